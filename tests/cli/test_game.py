"""``marl-td game``: JSON, text, files, exit codes."""

import json

import pytest

import marl_td.evaluation.games
import marl_td.evaluation.table_fit
import marl_td.evaluation.tabular
from marl_td.cli import main
from marl_td.cli.game import table_rows


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch):
    """The numbers are tested with the games themselves."""
    train = marl_td.evaluation.games.train_game
    monkeypatch.setattr(
        marl_td.evaluation.games, "train_game", lambda *a, **k: train(*a, n_steps=60, **k)
    )


def test_json_holds_every_seed(capsys):
    arguments = ["--payoff", "[[0, 1], [1, 2]]", "--algorithm", "vdn", "--seeds", "2", "--json"]
    assert main(["game", *arguments]) == 0
    out = capsys.readouterr()
    result = json.loads(out.out)
    runs = result["runs"]
    assert [run["seed"] for run in runs] == [0, 1]
    for run in runs:
        assert set(run) == {"seed", "table", "squared_error", "greedy_payoff", "joint_table"}
        assert [len(row) for row in run["table"]] == [2, 2]
        assert run["greedy_payoff"] == 2.0
    assert result["best"]["value"] == 1.0
    assert 0.0 < result["best"]["low"] < 0.2  # two seeds say little


def test_independent_learners_play_too(capsys, monkeypatch):
    train = marl_td.evaluation.tabular.train_tabular
    monkeypatch.setattr(
        marl_td.evaluation.tabular, "train_tabular", lambda *a, **k: train(*a, n_trials=300, **k)
    )
    arguments = ["--payoff", "[[0, 1, 9], [1, 2, 0]]", "--algorithm", "distributed_q"]
    assert main(["game", *arguments, "--seeds", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [run["seed"] for run in result["runs"]] == [0, 1]
    for run in result["runs"]:
        assert {"seed", "table", "squared_error", "greedy_payoff"} <= set(run)
        assert run["values"] == [[9.0, 2.0], [1.0, 2.0, 9.0]]
        assert run["table"] == [[5.0, 5.5, 9.0], [1.5, 2.0, 5.5]]
        assert (run["greedy_action"], run["greedy_payoff"]) == ([0, 2], 9.0)
    assert result["best"]["value"] == 1.0
    assert main(["game", *arguments, "--seeds", "1"]) == 0
    text = capsys.readouterr().out
    assert "  agent 2, greedy action 2:     1.000     2.000     9.000\ngreedy payoff 9" in text


def test_text_and_a_payoff_from_a_file(tmp_path, capsys):
    file = tmp_path / "payoff.json"
    file.write_text("[[[0, 1], [1, 2]], [[1, 2], [2, 3]]]")
    assert main(["game", "--payoff", str(file), "--algorithm", "marl_td/vdn", "--seeds", "1"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("seed 0: squared error ")
    assert "greedy payoff 3\n  [0]\n" in text
    assert "greedy payoff 3, the largest, in 1 of 1 seeds (share 1.00, 95 % interval 0.0" in text


def test_progress_goes_to_stderr(capsys):
    arguments = ["--payoff", "[[1]]", "--algorithm", "vdn", "--seeds", "1", "--json"]
    assert main(["game", *arguments, "--progress"]) == 0
    out = capsys.readouterr()
    assert "game: vdn" in out.err
    json.loads(out.out)
    assert main(["game", *arguments, "--no-progress"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("payoff", "algorithm", "message"),
    [
        ("[[1, 2], [3]]", "vdn", "all lists of a level of equal length"),
        ("[[1, NaN]]", "vdn", "must hold finite numbers only"),
        ("[[1, 2", "vdn", "--payoff is not valid JSON"),
        ("payoff.json", "vdn", "an existing file; got 'payoff.json'"),
        ("", "vdn", "an existing file; got ''"),
        ("[[1]]", "hysteretic", "for games. Did you mean 'hysteretic_q'?"),
        ("[[1, 2], [3]]", "fmq", "all lists of a level of equal length"),
        ("[[1]]", "qmxi", "no value-based algorithm 'qmxi' for games. Did you mean 'qmix'?"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(payoff, algorithm, message, capsys):
    assert main(["game", "--payoff", payoff, "--algorithm", algorithm]) == 2
    out = capsys.readouterr()
    assert out.out == ""
    (line,) = out.err.strip().splitlines()
    assert line.startswith("marl-td: error: ")
    assert message in line


def test_a_bad_file_is_named(tmp_path, capsys):
    file = tmp_path / "bad.json"
    file.write_text("{")
    assert main(["game", "--payoff", str(file), "--algorithm", "vdn"]) == 2
    assert f"the file {file} is not valid JSON" in capsys.readouterr().err


@pytest.mark.parametrize("seeds", ["0", "-1", "two"])
def test_the_number_of_seeds_must_be_positive(seeds, capsys):
    code = main(["game", "--payoff", "[[1]]", "--algorithm", "vdn", "--seeds", seeds])
    assert code == 2
    assert "must be a whole number above 0" in capsys.readouterr().err


def test_tables_of_any_depth():
    assert table_rows([1.0, -0.0001]) == ["     1.000     0.000"]
    assert table_rows([[1.0], [2.0]]) == ["     1.000", "     2.000"]
    deep = table_rows([[[1.0, 2.0]], [[3.0, 4.0]]])
    assert deep == ["[0]", "     1.000     2.000", "[1]", "     3.000     4.000"]
