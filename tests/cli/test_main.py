"""The program itself: help without torch, exit codes, one sentence for bad input."""

import subprocess
import sys

import pytest

from marl_td import __version__
from marl_td.cli import COMMANDS, main
from marl_td.cli.errors import report_error
from marl_td.tasks.base import require

QMIX = ("algorithm=marl_td/qmix", "task=marl_td/two_step")
NO_TORCH = """
import sys
from marl_td.cli import main
codes = [main([*words, "--help"]) for words in {commands}]
loaded = [name for name in ("torch", "benchmarl", "hydra", "matplotlib", "numpy") if name in sys.modules]
sys.exit(f"codes {{codes}}, loaded {{loaded}}" if loaded or any(codes) else 0)
"""


def test_help_of_every_command_needs_no_torch():
    script = NO_TORCH.format(commands=[[], *([name] for name in COMMANDS)])
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert f"usage: marl-td {name}" in done.stdout
    assert "%%" not in done.stdout


@pytest.mark.parametrize(
    "command", [["-m", "marl_td"], ["-c", "import sys, marl_td.cli as c; sys.exit(c.main())"]]
)
def test_it_runs_as_a_program(command):
    arguments = [sys.executable, *command]
    done = subprocess.run([*arguments, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"marl-td {__version__}\n")
    done = subprocess.run([*arguments, "trian"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "invalid choice: 'trian'" in done.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "COMMAND"),
        (["trian"], "invalid choice: 'trian'"),
        (["train"], "--out"),
        (["train", "--out", "x", "--episodes", "0"], "must be a whole number above 0, not '0'"),
        (["evaluate"], "DIR"),
        (["evaluate", "x", "--seed", "one"], "invalid int value: 'one'"),
        (["list"], "kind"),
        (["list", "tasks", "a=b"], "unrecognized arguments: a=b"),
        (["train", "--out", "x", "a=b", "--fast", "c=d"], "unrecognized arguments: --fast"),
    ],
)
def test_wrong_arguments_are_one_line_with_exit_code_2(arguments, message, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert "--help" in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train", "--out", "{new}", "task=marl_td/retail"], "no algorithm was given"),
        (
            ["train", "--out", "{new}", "algorithm=marl_td/mapo", "task=marl_td/retail"],
            "Did you mean",
        ),
        (
            ["train", "--out", "{new}", "algorithm=marl_td/qmix", "task=marl_td/retial"],
            "'marl_td/retail'",
        ),
        (
            [
                "train",
                "--out",
                "{new}",
                "algorithm=marl_td/qmix",
                "task=marl_td/two_step",
                "experiment.lr=-1",
            ],
            "experiment.lr must be above 0; got -1.0.",
        ),
        (
            [
                "train",
                "--out",
                "{new}",
                "algorithm=marl_td/qmix",
                "task=marl_td/two_step",
                "seed=x",
            ],
            "seed must be a whole number",
        ),
        (["train", "--out", "{new}", "algorithm=maddpg", "task=marl_td/two_step"], "take one of"),
        (["evaluate", "{new}"], "is not a run folder: it has no config.yaml"),
        (["evaluate", "{new}", "--episodes", "1"], "--episodes must be at least 2"),
        (
            ["baselines", "task=marl_td/two_step", "--episodes", "1"],
            "--episodes must be at least 2",
        ),
        (
            ["baselines", "task=marl_td/retail", "task.n_agents=0"],
            "n_agents must be at least 1; got 0.",
        ),
        (["baselines", "task.n_agents=0"], "no task was given"),
    ],
)
def test_bad_input_is_one_sentence_with_exit_code_2(arguments, message, tmp_path, capsys):
    new = str(tmp_path / "new")
    assert main([word.format(new=new) for word in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("marl-td: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def raised(function):
    """The exception that ``function`` raises, with its traceback."""
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_errors_of_ours_are_a_sentence_and_others_keep_their_traceback(capsys):
    ours = raised(lambda: require(False, "n must be\n at least 1; got 0."))
    assert report_error(ours, debug=False) == 2
    assert capsys.readouterr().err == "marl-td: error: n must be at least 1; got 0.\n"
    bug = raised(lambda: int("x"))
    assert report_error(bug, debug=False) == 1
    assert "Traceback" in capsys.readouterr().err
    assert report_error(ours, debug=True) == 2
    assert "Traceback" in capsys.readouterr().err


def test_debug_shows_where_bad_input_was_found(tmp_path, capsys):
    assert main(["--debug", "evaluate", str(tmp_path)]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_has_its_own_code(monkeypatch, capsys):
    from marl_td.cli import listing

    def interrupt(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(listing, "run", interrupt)
    assert main(["list", "tasks"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
