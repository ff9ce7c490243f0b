"""Runs in processes of their own that are killed and go on, compared with a run that never stopped.

Children are forked from one process that has everything imported: a child costs its run, not the seconds that
importing torch takes.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import time
import traceback
from pathlib import Path

import torch
from faults import FileFaults
from survival import bits, experiment_of

from marl_td.training.experiment import Experiment

KINDS = ("clock", "kill", "power")
"""SIGKILL at a random time; at a random file operation; there, and what was not flushed is lost."""


def digest(found):
    """Every entry of :func:`survival.bits` as a checksum."""
    return {name: _checksum(value) for name, value in found.items()}


def _checksum(value):
    if isinstance(value, torch.Tensor):
        raw = value.contiguous().reshape(-1).view(torch.uint8) if value.numel() else value
        value = f"{value.dtype} {list(value.shape)} " + raw.numpy().tobytes().hex()
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def forked(function, kill_after=None):
    """What ``function`` returns (JSON), run in a forked child; None if the child was killed."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(function, write)
    os.close(write)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(read, "rb") as file:
        content = file.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return None
    answer = json.loads(content)
    if "error" in answer:
        raise AssertionError(answer["error"])
    return answer["value"]


def _child(function, write):
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    try:
        answer = {"value": function()}
    except BaseException:
        answer = {"error": traceback.format_exc()}
    with os.fdopen(write, "wb") as file:
        file.write(json.dumps(answer).encode())
    os._exit(0)


def whole_run(overrides, folder):
    """Run to the end, from the newest checkpoint where there is one; checksums of all that counts."""
    if (folder / "checkpoints").exists() and any(folder.glob("checkpoints/checkpoint_*")):
        experiment = Experiment.resume(folder)
    else:  # killed before there was anything to go on from
        shutil.rmtree(folder, ignore_errors=True)
        experiment = experiment_of(overrides, folder)
    start = experiment.n_iters_performed
    experiment.close = lambda: None
    experiment.run()
    return {"start": start, "digest": digest(bits(experiment))}


class Victim:
    """A tiny run that is killed again and again.

    Args:
        overrides: its settings.
        folder: for its runs.
    """

    def __init__(self, overrides, folder):
        self.overrides = overrides
        self.folder = Path(folder)
        begin = time.monotonic()
        answer = forked(lambda: self._counted(self.folder / "whole" / "run"))
        self.seconds = time.monotonic() - begin
        self.expected, self.n_calls = answer["digest"], answer["calls"]

    def _counted(self, folder):
        with FileFaults(folder).active() as faults:
            answer = whole_run(self.overrides, folder)
        return {**answer, "calls": faults.count}

    def kill(self, seed, most=3):
        """Kill a run up to ``most`` times at random points, then let it end.

        Returns:
            what happened: kinds of kills, where the last resume began, and what differs in the end.
        """
        chance = random.Random(seed)
        folder = self.folder / f"kill_{seed}" / "run"
        happened = []
        for _ in range(chance.randint(1, most)):
            kind = chance.choice(KINDS)
            if self._one(kind, folder, chance) is None:
                happened.append(kind)
                continue
            if not happened:  # it ended before it could be killed: once more, at a file operation
                shutil.rmtree(folder)
                assert self._one("kill", folder, chance) is None
                happened.append("kill")
            break
        answer = forked(lambda: whole_run(self.overrides, folder))
        leftovers = [str(path) for path in folder.rglob(".tmp-*")]
        names = sorted(set(self.expected) | set(answer["digest"]))
        wrong = [n for n in names if self.expected.get(n) != answer["digest"].get(n)]
        shutil.rmtree(folder.parent)
        return {"kinds": happened, "start": answer["start"], "wrong": wrong + leftovers}

    def _one(self, kind, folder, chance):
        if kind == "clock":
            run = lambda: whole_run(self.overrides, folder)  # noqa: E731
            return forked(run, kill_after=chance.uniform(0.0, self.seconds))

        def run():
            at, seed = chance.randint(1, self.n_calls), chance.random()
            with FileFaults(folder, at, kind, seed).active():
                return whole_run(self.overrides, folder)

        return forked(run)
