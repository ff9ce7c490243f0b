"""Checkpoints of a running experiment, and an experiment that goes on from one."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch

from marl_td.collect.rng import rng_restore
from marl_td.collect.saving import collector_restore, env_restore, kind_of, restart_reason
from marl_td.tasks.vector_env import batched_task
from marl_td.training.checkpoint_folder import Checkpoint, Damaged, NewCheckpoint, Summary
from marl_td.training.checkpoints import Checkpoints
from marl_td.training.replay_files import ReplayFiles, Rows
from marl_td.training.snapshot import RESTART_SEED_OFFSET, device_kind, restore, snapshot
from marl_td.training.tensor_files import pack

LARGEST_SHARE = 0.05
"""Of a run's time that checkpoints by the clock may take."""


class Resumable:
    """Saves an experiment between iterations, and puts it back.

    Args:
        experiment: a :class:`~marl_td.training.experiment.Experiment`, set up.
        checkpoints: where they are.
    """

    def __init__(self, experiment: Any, checkpoints: Checkpoints) -> None:
        self.experiment = experiment
        self.checkpoints = checkpoints
        self.files = {
            group: ReplayFiles(buffer, group) for group, buffer in experiment.replay_buffers.items()
        }
        self.last: Checkpoint | None = None
        self.rng: dict[str, Any] | None = None
        """Where the random streams go on when training does."""
        self.remarks: list[str] = []
        """What is not exactly as in a run that was never stopped."""
        self._restarts: str | None = None
        self._checked = False
        self._saved_at = time.monotonic()
        self._took = 0.0

    # ---------------------------------------------------------------- saving
    def is_due(self, minutes: float | None) -> bool:
        """Whether the clock asks for a checkpoint: after so many minutes, later where saving takes long."""
        if minutes is None:
            return False
        passed = time.monotonic() - self._saved_at
        return passed >= max(60.0 * minutes, self._took / LARGEST_SHARE)

    def save(self, score: float | None) -> Path:
        """Write a checkpoint of the experiment as it is.

        Raises:
            OSError: if it cannot be written; nothing is left of it then, and the earlier ones are as before.
        """
        start = time.monotonic()
        experiment = self.experiment
        experiment.logger.flush()
        state = snapshot(experiment, self._why_restarts())
        new = self.checkpoints.begin()
        try:
            state["replay"] = self._save_replay(new)
            new.add_state(state)
            known = score is not None and math.isfinite(score)
            summary = Summary(
                experiment.total_frames, experiment.n_iters_performed, score if known else None
            )
            path = self.checkpoints.publish(new, summary)
        except BaseException:
            self.checkpoints.abandon(new)
            raise
        self.last = Checkpoint(path)
        for group, saved in state["replay"].items():
            self.files[group].rows = [Rows(*rows) for rows in saved["rows"]]
        self._saved_at = time.monotonic()
        self._took = self._saved_at - start
        return path

    def _save_replay(self, new: NewCheckpoint) -> dict[str, Any]:
        """Files of the replay buffers' rows; what is in the last checkpoint is not written again."""
        if self.experiment.config.exclude_buffer_from_checkpoint:
            return {}
        saved = {}
        for group, files in self.files.items():
            last = self.last if self.last is not None and self.last.folder.is_dir() else None
            kept, added = files.plan(may_share=last is not None)
            try:
                for rows in kept:
                    new.share(last, rows.file)  # type: ignore[arg-type]
            except (OSError, Damaged):  # somebody removed or changed it: write all rows anew
                kept, added = files.plan(may_share=False)
            for rows in added:
                new.add_tensors(rows.file, files.tensors(rows))
            saved[group] = files.snapshot([*kept, *added])
        return saved

    def _why_restarts(self) -> str | None:
        """Why environments will start fresh episodes; found out at the first checkpoint."""
        if not self._checked:
            self._checked = True
            env = self.experiment.collector.env
            if kind_of(self.experiment.collector) == "stepwise" and batched_task(env) is None:
                self._restarts = restart_reason(self.experiment.env_func, env, pack)
        return self._restarts

    # --------------------------------------------------------------- resuming
    def restore(self, checkpoint: Checkpoint) -> None:
        """Put the experiment where it was; its random streams follow when it runs.

        Raises:
            Damaged: if a file is not what was written.
            ValueError: if the checkpoint is not one of these settings.
        """
        experiment, state = self.experiment, checkpoint.state()
        try:
            restore(experiment, state, checkpoint.folder)
            self._restore_replay(checkpoint, state["replay"])
            self._restore_environments(state)
        except (LookupError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(
                f"checkpoint '{checkpoint.folder}' does not fit this run's settings "
                f"({type(error).__name__}: {error}). Was config.yaml edited after training?"
            ) from error
        self._compare_machines(state)
        experiment.restored_updates = state["compiled_updates"]
        self.last, self.rng = checkpoint, state["rng"]

    def _restore_replay(self, checkpoint: Checkpoint, saved: dict[str, Any]) -> None:
        for group, files in self.files.items():
            if self.experiment.on_policy and group in saved and not files.fits(saved[group]):
                self.remarks.append(  # every batch fills it anew
                    f"minibatches of '{group}' are drawn otherwise: a batch was {saved[group]['capacity']} "
                    f"items and is {files.capacity} now."
                )
            elif group in saved:
                files.restore(saved[group], checkpoint.tensors)
            elif not self.experiment.on_policy:
                self.remarks.append(
                    f"the replay of '{group}' starts empty: experiment.exclude_buffer_from_checkpoint "
                    "kept it out of the checkpoint."
                )

    def _compare_machines(self, state: dict[str, Any]) -> None:
        moved = self._moved(state, "train_device")
        if moved is not None:
            self.remarks.append(f"{moved}.")
        now = torch.get_num_threads()
        before = state.get("threads", now)  # marl_td 0.1.0 did not say at first
        if before != now:
            self.remarks.append(
                f"{now} instead of {before} threads take sums, which rounds some of them otherwise "
                f"(OMP_NUM_THREADS={before} goes on exactly)."
            )

    def _moved(self, state: dict[str, Any], name: str) -> str | None:
        """What there is to say if a device is of another kind than it was."""
        now = device_kind(self.experiment.config, name)
        before = state.get("devices", {}).get(name, now)  # checkpoints did not say at first
        if before == now:
            return None
        return f"experiment.{name} is {now} instead of {before}, which has other random numbers"

    def _restore_environments(self, state: dict[str, Any]) -> None:
        experiment = self.experiment
        collector, saved = experiment.collector, state["collector"]
        reason = state["restarts"] or self._moved(state, "sampling_device")
        if reason is None and saved["kind"] != kind_of(collector):
            kind = kind_of(collector)
            reason = f"the rollout was {saved['kind']} and is {kind} now (experiment.compile)"
        if reason is None:
            try:
                collector_restore(collector, saved, None)
            except ValueError as error:
                reason = str(error)
        if reason is not None:
            self.remarks.append(f"the environments start fresh episodes: {reason.rstrip('.')}.")
            seed = experiment.seed + RESTART_SEED_OFFSET + experiment.total_frames
            collector_restore(collector, saved, seed)
        try:
            self._restore_evaluation(state)
        except ValueError as error:  # such as another number of episodes
            experiment.test_env.set_seed(experiment.evaluation_seed + experiment.total_frames)
            self.remarks.append(f"evaluation has other episodes: {str(error).rstrip('.')}.")

    def _restore_evaluation(self, state: dict[str, Any]) -> None:
        experiment, moved = self.experiment, self._moved(state, "sampling_device")
        if moved is not None:
            raise ValueError(moved)
        if state["test_env"] is not None and state["restarts"] is None:
            env_restore(experiment.test_env, state["test_env"])
        else:
            experiment.test_env.set_seed(experiment.evaluation_seed + experiment.total_frames)
        compiled, saved = experiment.compiled_episodes, state["compiled_evaluation"]
        if compiled is not None and saved is not None:
            compiled.collector.restore(saved)

    def start(self) -> None:
        """Let the random streams go on where they were; called when training begins."""
        if self.rng is not None:
            rng_restore(self.rng)
            self.rng = None
