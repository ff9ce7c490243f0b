"""What cannot act decentralised, or may be overwritten by mistake, is refused; nothing is half written."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarl.models.lstm import LstmConfig
from benchmarl_runs import IGNORED
from small_policies import DISCRETE, MLP, RETAIL, small_source
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn

from marl_td.deploy import compare, export, load_bundle
from marl_td.deploy.agents import agent_exports
from marl_td.deploy.export import export_policy
from marl_td.deploy.source import policy_source
from marl_td.deploy.steps import own_policy
from marl_td.training.compose import compose
from marl_td.training.trained import build_run

pytestmark = IGNORED


@pytest.fixture(scope="module")
def source():
    return small_source("marl_td/mappo", *MLP, *DISCRETE)


@pytest.fixture(scope="module")
def forms(source):
    """The converted actor, which takes most of an export's time."""
    return export.actor_forms(source, agent_exports(source)[0])


@pytest.fixture(autouse=True)
def converted_once(forms, monkeypatch):
    monkeypatch.setattr(export, "actor_forms", lambda source, agent: forms)


def test_mat_is_refused_with_what_to_do_instead(tmp_path):
    source = small_source("marl_td/mat", *MLP)
    with pytest.raises(
        ValueError,
        match=r"group 'agents' cannot act decentralised.*agent after agent.*marl_td/mat_dec",
    ):
        export_policy(source, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_is_not_known_is_refused():
    settings = compose(["algorithm=marl_td/mappo", *RETAIL, *MLP])
    settings.model_config = LstmConfig(
        hidden_size=4,
        n_layers=1,
        bias=True,
        dropout=0.0,
        compile=False,
        mlp_num_cells=[4],
        mlp_layer_class=nn.Linear,
        mlp_activation_class=nn.Tanh,
    )
    run = build_run(settings, 1, "cpu")
    with pytest.raises(ValueError, match=r"network Lstm of group 'agents' cannot be exported.*mlp"):
        agent_exports(policy_source(run.policy, run.env, run.settings))


class Subclass(TensorDictModule):
    """It could do anything."""


KEYS = [("agents", "observation")], [("agents", "action")]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (
            TensorDictModule(nn.Linear(5, 2), *KEYS),
            "the part 'Linear' of the policy of group 'agents'",
        ),
        (Subclass(nn.Linear(5, 2), *KEYS), "the part 'Subclass' of the policy"),
    ],
)
def test_unknown_parts_are_refused(policy, message):
    with pytest.raises(ValueError, match=message):
        own_policy(TensorDictSequential(policy), "agents", 0)


@pytest.mark.parametrize("key", [("state",), ("others", "observation")])
def test_entries_that_an_agent_does_not_have_are_refused(source, key):
    from marl_td.deploy.actor import Actor
    from marl_td.deploy.steps import OwnPolicy, Step

    steps = (Step(nn.Identity(), (key,), (("agents", "action"),)),)
    message = rf"reads {'.'.join(key)}, which an agent does not have by itself"
    with pytest.raises(ValueError, match=message):
        Actor(OwnPolicy(steps, {}, ""), "agents", "deterministic")


def test_a_wrong_actor_is_not_written(tmp_path, source, monkeypatch):
    real = compare.expected_outputs

    def shifted(*arguments):
        found = real(*arguments)
        return {**found, "scores": found["scores"] + 2e-3}

    monkeypatch.setattr(compare, "expected_outputs", shifted)
    with pytest.raises(ValueError, match=r"eager form .* differs by .* nothing was written"):
        export_policy(source, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_an_actor_that_looks_at_another_agent_is_found(source, monkeypatch, tmp_path):
    real = compare.of_agent

    def other(values, keys, group, agent):
        return real(values, keys, group, 1 - agent)

    monkeypatch.setattr(compare, "of_agent", other)
    monkeypatch.setattr(compare, "expected_outputs", lambda s, a, i: real_expected(s, a, i, real))
    with pytest.raises(ValueError, match="differs by"):
        export_policy(source, tmp_path / "b")


def real_expected(source, agent, inputs, of_agent):
    group = agent.signature.group
    names = agent.actor.outputs
    every = compare.policy_outputs(source.policies[group], inputs, names, group)
    return of_agent(every, names, group, agent.signature.index)


def test_a_folder_in_use_is_kept(tmp_path, source):
    out = tmp_path / "b"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"is not empty; choose another folder, or .*--overwrite"):
        export_policy(source, out)
    with pytest.raises(
        ValueError, match="holds something else than a bundle, which is not removed"
    ):
        export_policy(source, out, overwrite=True)
    assert (out / "thesis.txt").read_text() == "years of work"
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match="is not a folder"):
        export_policy(source, file, overwrite=True)


def test_a_bundle_is_replaced_as_a_whole_or_not_at_all(tmp_path, source, monkeypatch):
    out = tmp_path / "deep" / "b"
    export_policy(source, out, licence="first")
    export_policy(source, out, licence="second", overwrite=True)
    assert load_bundle(out).manifest["licence"] == "second"
    assert [path.name for path in out.parent.iterdir()] == ["b"]

    def broken(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr("marl_td.deploy.export.load_bundle", broken)
    with pytest.raises(OSError, match="disk full"):
        export_policy(source, out, licence="third", overwrite=True)
    assert load_bundle(out, verify=True).manifest["licence"] == "second"
    assert [path.name for path in out.parent.iterdir()] == ["b"]


def test_a_failed_rename_brings_the_old_bundle_back(tmp_path, source, monkeypatch):
    out = tmp_path / "b"
    export_policy(source, out, licence="first")
    real = os.replace

    def broken(start, end):
        if ".tmp-" in str(start) and Path(start).is_dir():
            raise OSError("busy")
        real(start, end)

    monkeypatch.setattr(export.os, "replace", broken)
    with pytest.raises(OSError, match="busy"):
        export_policy(source, out, overwrite=True)
    assert load_bundle(out).manifest["licence"] == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_scores_that_are_no_numbers_are_null(tmp_path, source, monkeypatch):
    run = tmp_path / "run"
    (run / "report").mkdir(parents=True)
    (run / "report" / "report.json").write_text(
        '{"learned": {"value": 1.5, "low": NaN}, "x": [Infinity]}'
    )
    (run / "config.yaml").write_bytes(source.settings.as_yaml())
    export_policy(replace(source, folder=run), tmp_path / "b")
    report = json.loads((tmp_path / "b" / "evaluation.json").read_text())["report"]
    assert report == {"learned": {"value": 1.5, "low": None}, "x": [None]}
    assert "See `evaluation.json`" in (tmp_path / "b" / "README.md").read_text()


def test_the_current_folder_may_be_the_bundle(tmp_path, source, monkeypatch):
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    export_policy(source, Path("."))
    assert load_bundle(tmp_path / "b").agents


def test_the_random_stream_of_a_training_is_left_alone(source, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    export_policy(source, tmp_path / "b")
    assert torch.equal(torch.rand(4), expected)


def test_a_bundle_says_what_it_is(source, tmp_path):
    out = tmp_path / "b"
    export_policy(source, out, licence="CC-BY-4.0")
    assert {path.name for path in out.iterdir()} == {
        "manifest.json",
        "signature.json",
        "config.yaml",
        "evaluation.json",
        "golden.npz",
        "README.md",
        "actors",
    }
    assert {path.name for path in (out / "actors").iterdir()} == {
        "agents.onnx",
        "agents.pt2",
        "agents.safetensors",
    }
    manifest = json.loads((out / "manifest.json").read_text())
    assert set(manifest["files"]) == {
        str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()
    } - {"manifest.json"}
    assert {"marl_td", "torch", "onnx", "onnxruntime"} <= set(manifest["versions"])
    signature = json.loads((out / "signature.json").read_text())
    agent = signature["agents"]["agents_1"]
    assert signature["algorithm"] == "marl_td/mappo" and agent["index"] == 1
    assert agent["action"]["kind"] == "discrete" and agent["action"]["n"] == 33
    assert agent["mask"]["shape"] == [33] and agent["state"] == []
    first = agent["observation"][0]["components"][0]
    expected = {"name": "stock before the delivery", "width": "1", "unit": "units / lambda_i"}
    assert first == expected
    moves = agent["action"]["components"]
    assert len(moves) == 33 and moves[3] == {"name": "level 0.1, offer", "unit": ""}
    assert "Discrete, 33 actions" in signature["task_says"]["action"]
    assert json.loads((out / "evaluation.json").read_text())["report"] is None
    card = (out / "README.md").read_text()
    assert "Licence of these weights: CC-BY-4.0" in card and "mask=mask" in card
    for path in out.rglob("*"):
        assert path.is_dir() or b"marl_td/deploy" not in path.read_bytes(), (
            f"{path} names our files"
        )


def test_weights_are_the_actors(source, tmp_path):
    from marl_td.training.tensor_files import load_tensors

    export_policy(source, tmp_path / "b")
    actor = agent_exports(source)[0].actor
    weights = load_tensors(tmp_path / "b" / "actors" / "agents.safetensors", actor.state_dict())
    assert weights and all(torch.equal(weights[k], v) for k, v in actor.state_dict().items())
