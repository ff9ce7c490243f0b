"""What the package says about itself: baselines, list, doctor."""

import json

import pytest

from marl_td.cli import main
from marl_td.cli.listing import PRESETS
from marl_td.registry import ALGORITHMS
from marl_td.tasks.registry import TASKS
from marl_td.training.compose import compose, compose_task


def output(capsys, *arguments):
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def test_baselines_json_has_the_promised_shape(capsys):
    data = json.loads(
        output(capsys, "baselines", "task=marl_td/two_step", "--episodes", "20", "--json")
    )
    assert {"task", "unit", "rows", "optimum"} <= set(data)
    assert data["task"] == "marl_td/two_step"
    assert data["rows"][0]["policy"] == "random"
    for row in data["rows"]:
        assert set(row) == {"policy", "value", "low", "high"}
        assert row["low"] <= row["value"] <= row["high"]
    assert data["optimum"] == {"value": 8.0, "kind": "exact", "how": data["optimum"]["how"]}


def test_baselines_text_and_task_settings(capsys):
    out = output(
        capsys,
        "baselines",
        "task=marl_td/matrix_game",
        "task.payoff=[[3,3],[3,3]]",
        "--episodes",
        "4",
    )
    assert (
        out.splitlines()[0]
        == "marl_td/matrix_game: return, higher is better, 4 episodes per policy"
    )
    assert "3.000 to 3.000" in out
    assert "Optimum or bound: largest entry of the payoff table" in out


def test_a_task_without_optimum_and_baselines(capsys):
    pytest.importorskip("vmas")
    data = json.loads(
        output(
            capsys,
            "baselines",
            "task=vmas/balance",
            "task.max_steps=3",
            "--episodes",
            "4",
            "--json",
        )
    )
    assert data["optimum"] is None
    assert [row["policy"] for row in data["rows"]] == ["random"]


def test_kinds_of_actions(capsys):
    assert (
        main(["baselines", "task=marl_td/retail", "--discrete", "--episodes", "2", "--json"]) == 0
    )
    capsys.readouterr()


@pytest.mark.parametrize("kind, table", [("algorithms", ALGORITHMS), ("tasks", TASKS)])
def test_lists_hold_everything_of_ours(capsys, kind, table):
    entries = json.loads(output(capsys, "list", kind, "--json"))
    assert {f"marl_td/{name}" for name in table} <= {entry["name"] for entry in entries}
    for entry in entries:
        assert entry["description"]
        assert "`" not in entry["description"], "markup"
        assert entry["actions"]
    assert len({entry["description"] for entry in entries}) == len(entries)
    text = output(capsys, "list", kind)
    assert all(entry["name"] in text for entry in entries)


def test_every_preset_is_listed_with_what_it_chooses(capsys):
    entries = {e["name"]: e for e in json.loads(output(capsys, "list", "presets", "--json"))}
    assert set(entries) == {path.stem for path in PRESETS.glob("*.yaml")}
    text = output(capsys, "list", "presets")
    for name, entry in entries.items():
        anyhow = ["task=marl_td/retail"] if entry["task"] == "any" else []
        settings = compose([f"preset={name}", *anyhow])
        assert entry["algorithm"] == settings.algorithm
        assert entry["task"] in ("any", settings.task)
        assert not entry["description"].startswith(("#", "@")), "the file's second line says it"
        assert name in text and entry["description"] in text
    assert [name for name, entry in entries.items() if entry["task"] == "any"] == ["qmix_tuned"]


def test_every_level_is_listed_with_its_settings(capsys):
    entries = {e["name"]: e for e in json.loads(output(capsys, "list", "levels", "--json"))}
    for name, entry in entries.items():
        _, task = compose_task([f"level={name}"])
        assert entry["task"] == f"marl_td/{name.rpartition('_')[0]}"
        assert {key: task.config[key] for key in entry["settings"]} == entry["settings"]
    assert {name.rpartition("_")[2] for name in entries} == {"easy", "medium", "hard"}
    text = output(capsys, "list", "levels")
    assert "marl_td/levers  task.n_agents=3 task.pool=12" in text
    assert "marl_td/levers  the task's defaults" in text


@pytest.mark.parametrize("kind, name", [("algorithms", "masac"), ("tasks", "vmas/balance")])
def test_benchmarl_s_own_on_request(capsys, kind, name):
    names = [entry["name"] for entry in json.loads(output(capsys, "list", kind, "--json", "--all"))]
    assert name in names
    assert any(name.startswith("marl_td/") for name in names)


def test_doctor(capsys):
    data = json.loads(output(capsys, "doctor", "--json"))
    assert data["versions"]["torchrl"]
    assert "torch_geometric" in data["versions"]  # behind BenchMARL's graph networks
    checks = {check["name"]: check for check in data["checks"]}
    assert checks["algorithms and tasks are registered"]["ok"]
    assert checks["videos"]["ok"], checks["videos"]
    vmas = next(extra for extra in data["extras"] if extra["name"] == "vmas")
    assert vmas["command"] == "pip install 'marl-td[vmas]'"


def test_doctor_says_what_is_missing_and_how_to_get_it(capsys, monkeypatch):
    from marl_td.cli import doctor
    from marl_td.training import extras

    def broken():
        raise RuntimeError("no such\n thing")

    monkeypatch.setattr(extras, "is_installed", lambda package: package != "mpe2")
    monkeypatch.setattr(doctor, "_device", broken)
    out = output(capsys, "doctor")
    assert "missing mpe2; get it with: pip install 'marl-td[mpe]'" in out
    assert "-- device: RuntimeError: no such thing" in " ".join(out.split())


def test_extras_are_those_of_the_package():
    """The table of extras and pyproject.toml say the same."""
    from importlib.metadata import metadata

    from marl_td.training.extras import EXTRAS

    declared = set(metadata("marl-td").get_all("Provides-Extra")) - {"all"}
    assert set(EXTRAS) == declared


def test_baselines_record_the_best_policy_or_a_named_one(capsys, tmp_path):
    task = ["baselines", "task=marl_td/predator_prey", "--episodes", "4", "--every", "5"]
    for extra, name in (((), "best.gif"), (("--policy", "random"), "random.gif")):
        path = tmp_path / name
        assert main([*task, "--video", str(path), *extra]) == 0
        told = capsys.readouterr()
        assert path.stat().st_size > 1_000
        recorded = told.err.split(" pictures of ")[1].split(" to ")[0]
        rows = [line.split() for line in told.out.splitlines()[3:] if " to " in line]
        best = min(rows, key=lambda row: float(row[1]))[0]  # steps to the capture
        assert recorded == ("random" if extra else best)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["best.gif", "random.gif"]


@pytest.mark.parametrize(
    "extra, message",
    [
        (["--policy", "random"], "--policy says whose episode --video FILE records"),
        (
            ["--video", "a.gif", "--policy", "best"],
            "'marl_td/predator_prey' has no policy 'best'; it has random, ",
        ),
    ],
)
def test_baselines_refuse_what_they_cannot_record(capsys, extra, message):
    assert main(["baselines", "task=marl_td/predator_prey", "--episodes", "2", *extra]) == 2
    assert message in capsys.readouterr().err
