"""A task of one's own that refuses its parameters is bad input; its faults keep their traceback."""

import sys

import pytest
from own_names import forgotten

from marl_td.cli import main

MODULE = """
import json
from dataclasses import dataclass

from marl_td.extend import register_task
from marl_td.tasks.base import require
from toy_tasks import Hunt, HuntParams

@dataclass
class Params(HuntParams):
    kind: str = ""

def refuse(reason):
    raise ValueError(reason)

class Odd(Hunt):
    name, Params = "odd", Params

    def __init__(self, params, **options):
        super().__init__(params, **options)
        kind = params.kind
        if kind == "own words":
            raise ValueError(f"kind is {kind},\\n  which there is not.")
        if kind == "ours":
            require(False, "kind must be another.")
        if kind == "helper":
            refuse("kind is no good.")
        if kind == "int":
            int("x")
        if kind == "unpacked":
            one, two = (1, 2, 3)
        if kind == "library":
            json.loads("x")
        if kind == "attribute":
            kind.nothing
        if kind == "type":
            raise TypeError("of another type")

    def reset(self, n_envs, noise):
        if self.params.kind == "reset":
            raise ValueError("nothing to do with parameters")
        return super().reset(n_envs, noise)

register_task("acme/odd", Odd)
"""


@pytest.fixture
def train(tmp_path, monkeypatch):
    """``train(kind)``: the arguments of a training, in a folder with the module."""
    (tmp_path / "odd_task.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    with forgotten("odd_task"):
        given = ["--import", "odd_task", "task=acme/odd"]
        train = ["train", "--out", "run", "--no-report", "algorithm=marl_td/mappo", *given]
        yield lambda kind: [*train, f"task.kind={kind}"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("own words", "kind is own words, which there is not."),
        ("ours", "kind must be another."),
        ("helper", "kind is no good."),
    ],
)
def test_parameters_that_a_task_refuses(kind, message, train, tmp_path, capsys):
    assert main(train(kind)) == 2
    assert capsys.readouterr().err == f"marl-td: error: task 'acme/odd': {message}\n"
    assert not (tmp_path / "run").exists()
    assert main(["--debug", *train(kind)]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err and "in __init__" in err


def test_other_commands_say_it_too(train, capsys):
    assert main(["baselines", *train("helper")[5:]]) == 2
    assert capsys.readouterr().err == "marl-td: error: task 'acme/odd': kind is no good.\n"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("int", "ValueError: invalid literal for int()"),
        ("unpacked", "ValueError: too many values to unpack"),
        ("library", "JSONDecodeError: Expecting value"),
        ("attribute", "AttributeError: 'str' object has no attribute 'nothing'"),
        ("type", "TypeError: of another type"),
        ("reset", "ValueError: nothing to do with parameters"),
    ],
)
def test_faults_of_a_task_keep_their_traceback(kind, message, train, capsys):
    assert main(train(kind)) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and message in err and "odd_task.py" in err
