"""From training to judgement, on a matrix game."""

import json

import pytest
from short_runs import SHORT

from marl_td.cli import main

PAYOFF = "task.payoff=[[0,0],[0,8]]"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert (
        main(["train", "--out", str(folder), "--no-progress", "--episodes", "4", *SHORT, PAYOFF])
        == 0
    )
    return folder


def test_the_folder_holds_what_the_help_says(run):
    assert {path.name for path in run.iterdir()} == {
        "config.yaml",
        "metrics.csv",
        "checkpoints",
        "policy",
        "report",
    }
    assert {path.name for path in (run / "report").iterdir()} == {
        "report.md",
        "report.json",
        "report.png",
    }


def test_evaluate_prints_the_table(run, capsys):
    assert main(["evaluate", str(run), "--episodes", "6"]) == 0
    out = capsys.readouterr().out
    for word in (
        "random",
        "learned (qmix)",
        "optimum",
        "95 % interval",
        "Normalised score",
    ):
        assert word in out


def test_evaluate_json(run, capsys):
    assert main(["evaluate", str(run), "--episodes", "6", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["task"] == "marl_td/matrix_game"
    assert data["optimum"] == {"value": 8.0, "kind": "exact", "how": data["optimum"]["how"]}
    learned, random = data["learned"]["value"], data["rows"][0]["value"]
    assert data["normalised_score"] == pytest.approx((learned - random) / (8.0 - random))
    assert data["episodes"] == 6
    assert set(data["return"]) == {"value", "low", "high"}


def test_the_seed_decides_the_evaluation(run, capsys):
    values = []
    for seed in ("5", "5", "6"):
        main(["evaluate", str(run), "--episodes", "40", "--seed", seed, "--json"])
        values.append(json.loads(capsys.readouterr().out)["rows"][0]["value"])
    assert values[0] == values[1] != values[2]


def test_sampled_actions_are_another_policy(run, capsys):
    reports = []
    for options in ([], ["--sample"]):
        assert main(["evaluate", str(run), "--episodes", "40", "--json", *options]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    best, drawn = reports
    assert best["deterministic"] and not drawn["deterministic"]
    assert best["rows"] == drawn["rows"]
    assert best["learned"]["low"] == best["learned"]["high"]  # the game has no chance of its own
    assert drawn["learned"]["low"] < drawn["learned"]["high"]
    main(["evaluate", str(run), "--episodes", "6", "--sample"])
    assert "learned (qmix, actions drawn)" in capsys.readouterr().out


def test_a_folder_in_use_is_refused_and_overwritten_on_request(run, tmp_path, capsys):
    arguments = ["train", "--out", str(run), "--no-progress", "--no-report", *SHORT, PAYOFF]
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert "is not empty; give another folder, go on with the run in it (`marl-td resume " in err
    note = run / "my notes.txt"
    note.write_text("keep me")
    assert main([*arguments, "--overwrite", "seed=1"]) == 0
    assert note.read_text() == "keep me"
    note.unlink()
    assert "seed: 1" in (run / "config.yaml").read_text()
    assert main(["evaluate", str(run), "--episodes", "2", "--json"]) == 0


def test_overwrite_leaves_other_folders_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    arguments = ["train", "--out", str(tmp_path), "--overwrite", *SHORT]
    assert main(arguments) == 2
    assert (
        "holds no run (no config.yaml), so --overwrite leaves it alone" in capsys.readouterr().err
    )
    assert (tmp_path / "thesis.tex").exists()
    (tmp_path / "file").write_text("")
    assert main(["train", "--out", str(tmp_path / "file"), *SHORT]) == 2
    assert "is a file; give a folder" in capsys.readouterr().err


def test_bad_settings_do_not_cost_the_old_run(run, capsys):
    arguments = ["train", "--out", str(run), "--overwrite", *SHORT, "experiment.lr=-1"]
    assert main(arguments) == 2
    capsys.readouterr()
    assert (run / "policy" / "weights.safetensors").exists()


UNFIT = ["algorithm=marl_td/masac", "algorithm.team_value=true", "algorithm.actor_gradient=all"]
"""What is found out when the networks are built: these actions are discrete."""


def test_a_run_that_cannot_be_set_up_does_not_cost_the_old_one(run, capsys):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    arguments = ["train", "--out", str(run), "--overwrite", "--no-progress"]
    assert main([*arguments, *UNFIT, *SHORT[1:]]) == 2
    assert "team_value needs continuous actions" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert not list(run.glob(".*"))


@pytest.mark.parametrize("exists", [False, True])
def test_a_run_that_cannot_be_set_up_leaves_nothing(exists, tmp_path, capsys):
    folder = tmp_path / "run"
    if exists:
        folder.mkdir()
    assert main(["train", "--out", str(folder), "--no-progress", *UNFIT, *SHORT[1:]]) == 2
    capsys.readouterr()
    assert list(tmp_path.rglob("*")) == ([folder] if exists else [])


def test_a_task_without_renderer_has_no_video(run, tmp_path, capsys):
    assert main(["evaluate", str(run), "--episodes", "2", "--video", str(tmp_path / "a.mp4")]) == 2
    assert "this task has no renderer" in capsys.readouterr().err


def test_nan_observations_stop_the_run_with_a_sentence(tmp_path, monkeypatch, capsys):
    from marl_td.tasks.matrix_game import MatrixGame

    def observe(self, state):
        return {"agents": self._identity.expand(state.played.shape[0], -1, -1) * float("nan")}

    monkeypatch.setattr(MatrixGame, "observe", observe)
    assert main(["train", "--out", str(tmp_path / "run"), *SHORT]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "'agents.observation' is no longer finite in iteration 0" in err and "agents_0" in err


def test_a_diverged_run_stops_with_a_sentence(tmp_path, monkeypatch, capsys):
    from marl_td.training.experiment import Experiment

    step = Experiment._optimizer_loop

    def poisoned(self, group):
        for parameter in self.losses[group].parameters():
            parameter.data.fill_(float("nan"))
        return step(self, group)

    monkeypatch.setattr(Experiment, "_optimizer_loop", poisoned)
    assert main(["train", "--out", str(tmp_path / "run"), *SHORT]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "no longer finite" in err
    assert "Lower experiment.lr" in err


def test_a_missing_simulator_is_one_sentence(tmp_path, monkeypatch, capsys):
    from marl_td.training import extras

    monkeypatch.setattr(extras, "is_installed", lambda package: False)
    arguments = [
        "train",
        "--out",
        str(tmp_path / "run"),
        "algorithm=marl_td/mappo",
        "task=vmas/balance",
    ]
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        "marl-td: error: task 'vmas/balance' needs the package 'vmas', which is not installed; get it "
        "with: pip install 'marl-td[vmas]'\n"
    )
