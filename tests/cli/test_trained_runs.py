"""The page on trained runs in one's own code: its command and examples, and what it says of exploration."""

import pytest
import torch
from page_runs import blocks, commands, python, replaced, shortened
from torchrl.envs.utils import ExplorationType, set_exploration_type

from marl_td.cli import main
from marl_td.deploy import load_bundle
from marl_td.training.trained import load_run

PAGE = "docs/trained_runs.md"
(TRAIN,) = commands(PAGE)
ACT, GO_ON, EXPORT = blocks(PAGE, "python")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with the page's run, and runs of two other families, as the current one."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(shortened(TRAIN, "--no-report")) == 0
        for name in ("mappo", "maddpg"):
            words = (
                f"marl-td train --out runs/{name} algorithm=marl_td/{name} task=marl_td/simple_tag"
            )
            assert main(shortened(words, "--no-report")) == 0
        yield folder


def test_the_page_s_policy_acts(here, capsys):
    exec(replaced(ACT, {"256": "4", "rollout(50": "rollout(5"}), {})
    assert "mean return: " in capsys.readouterr().out


def test_the_page_s_run_goes_on_and_is_exported(here, capsys):
    changes = {"3_000": "60", "30_000": "120", "range(150)": "range(2)", "256": "4"}
    before = dict(load_run("runs/pursuit", 1).policy.named_parameters())
    found = {}
    exec(replaced(GO_ON, changes), found)
    assert "mean return: " in capsys.readouterr().out
    after = dict(found["policy"].named_parameters())
    assert before.keys() == after.keys()
    assert not any(torch.equal(before[name], after[name]) for name in before)
    assert set(load_bundle("bundle", verify=True).agents) == {f"agents_{i}" for i in range(4)}
    torch.save(found["policy"].state_dict(), "policy.pt")
    run = load_run("runs/pursuit", 1)  # the folder keeps what it had
    again = dict(run.policy.named_parameters())
    assert all(torch.equal(before[name], again[name]) for name in before)
    run.policy.load_state_dict(torch.load("policy.pt", weights_only=True))
    assert all(torch.equal(after[name], again[name]) for name in after)


def test_networks_of_one_s_own_are_exported_by_torch(tmp_path):
    pytest.importorskip("onnxscript")
    printed = python(tmp_path, "-c", EXPORT)  # torch's exporter warns of itself
    assert "same actions: True" in printed


def alike(run, group, kind):
    """Whether the policy does the same twice in the same states, under an exploration type or none."""
    state = run.env.reset()
    with torch.no_grad():
        if kind is None:
            acts = [run.policy(state.clone())[group, "action"] for _ in range(2)]
        else:
            with set_exploration_type(kind):
                acts = [run.policy(state.clone())[group, "action"] for _ in range(2)]
    return torch.equal(*acts)


@pytest.mark.parametrize(
    ("name", "group", "alike_by_default"),
    [("pursuit", "agents", False), ("maddpg", "agent", False), ("mappo", "agent", True)],
)
def test_what_a_loaded_policy_does(name, group, alike_by_default, here):
    run = load_run(f"runs/{name}", 64)
    for buffer, value in run.policy.named_buffers():
        if buffer.endswith("eps"):  # hardly left in so short a run
            value.fill_(0.5)
    assert alike(run, group, ExplorationType.DETERMINISTIC)
    assert not alike(run, group, ExplorationType.RANDOM)
    assert alike(run, group, None) == alike_by_default
    run.policy.eval()
    assert alike(run, group, None) == alike_by_default
