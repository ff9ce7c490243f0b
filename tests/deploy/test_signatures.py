"""What signatures say: names and units of the task, memories, communication, file names."""

import pytest
import torch
from benchmarl_runs import IGNORED
from small_policies import DISCRETE, GRU, MLP, OWN, small_source
from torch import nn

from marl_td.deploy.actor import Actor, entry_name
from marl_td.deploy.agents import _file_name, agent_exports
from marl_td.deploy.compare import example_inputs, group_inputs
from marl_td.deploy.parts import own_bounds
from marl_td.deploy.steps import OwnPolicy, Step
from marl_td.deploy.task_text import NOTHING, table_rows, task_sections
from marl_td.tasks import make_env

pytestmark = IGNORED
TABLE = """\
Observation space (per site):

    =========  ==========  =======
    entry      width       unit
    =========  ==========  =======
    stock      1           units
    others,    ``n - 1``   units /
    seen       if shared   lambda
    ages                   steps,
                           clipped
    =========  ==========  =======

    More text."""


def test_rows_of_a_table_with_lines_that_go_on():
    assert table_rows(TABLE) == (
        {"name": "stock", "width": "1", "unit": "units"},
        {"name": "others,", "width": "``n - 1``", "unit": "units /"},
        {"name": "seen", "width": "if shared", "unit": "lambda"},
        {"name": "ages", "width": "", "unit": "steps, clipped"},
    )
    assert table_rows("no table") == ()
    assert table_rows("a\n=== ===\n1   2\n=== ===\n3   4\n=== ===") == ()


@pytest.mark.parametrize("name", ["retail", "banking", "pricing", "drones", "market_making"])
def test_tasks_say_what_is_observed(name):
    rows = table_rows(task_sections(make_env(name, n_envs=1))["observation"])
    assert len(rows) >= 5
    assert all(row["name"] and row["unit"] for row in rows)


def test_tasks_describe_observations_and_actions():
    for name in ("retail", "recall", "pong"):
        texts = task_sections(make_env(name, n_envs=1))
        assert set(texts) == {"observation", "action"}
        assert texts["observation"].startswith("Observation space")
    assert NOTHING == "the task gives no names or units"


def test_memories_start_where_the_training_does():
    source = small_source("marl_td/qmix", *GRU, "algorithm.last_action=true")
    (signature, *_) = [agent.signature for agent in agent_exports(source)]
    state = {entry.name: entry for entry in signature.state}
    assert set(state) == {"hidden_gru_0", "last_action"}
    assert state["hidden_gru_0"].shape == (2, 6) and state["hidden_gru_0"].init == 0.0
    assert state["last_action"].init == -1 and state["last_action"].next == "action"
    assert signature.communication == "" and signature.normalisation.startswith("none")


def test_what_is_shared_is_one_actor():
    shared = agent_exports(small_source("marl_td/vdn", *MLP))
    own = agent_exports(small_source("marl_td/vdn", *MLP, *OWN))
    told = agent_exports(small_source("marl_td/vdn", *MLP, "algorithm.agent_id=true"))
    assert [agent.signature.actor for agent in shared] == ["agents", "agents"]
    assert shared[0].actor is shared[1].actor
    assert [agent.signature.actor for agent in own] == ["agents_0", "agents_1"]
    assert [agent.signature.actor for agent in told] == ["agents_0", "agents_1"]


def test_belief_ppo_says_what_must_be_brought():
    source = small_source("marl_td/belief_ppo", *MLP, *DISCRETE)
    agent = agent_exports(source)[0]
    signature = agent.signature
    assert "in the order agents_0, agents_1" in signature.communication
    names = [entry.name for entry in signature.observation]
    assert names == ["joint_history", "past_observation", "past_seen", "observation"]
    assert signature.observation[0].shape == (8, 2)  # of all agents; the others are this agent's
    inputs = example_inputs(source, agent, group_inputs(source, agent, 5))
    before = agent.actor(inputs)["scores"]
    seen = inputs["past_seen"]
    for moved, changes in (
        (torch.where(seen, inputs["joint_history"], 9), False),
        (torch.where(seen, 9, inputs["joint_history"]), True),
    ):
        after = agent.actor({**inputs, "joint_history": moved})["scores"]
        assert (after != before).any() == changes  # what was not seen does not matter


def test_file_names_are_plain_and_different():
    taken: set[str] = set()
    found = [_file_name(name, taken) for name in ("a/b", "a:b", "../a", "Ü", "", "a_b")]
    assert found == ["a_b", "a_b_2", "_a", "_", "actor", "a_b_3"]


def test_two_entries_of_one_name_are_refused():
    steps = (Step(nn.Identity(), (("agents", "action", "x"),), (("agents", "action"),)),)
    Actor(OwnPolicy(steps, {}, ""), "agents", "deterministic")
    steps = (Step(nn.Identity(), (("agents", "scores"),), (("agents", "action"),)),)
    steps += (Step(nn.Identity(), (("agents", "action"),), (("agents", "scores"),)),)
    with pytest.raises(ValueError, match="two entries of group 'agents' would be called 'scores'"):
        Actor(OwnPolicy(steps, {}, ""), "agents", "deterministic")
    keys = (("agents", "a", "b"), ("agents", "a_b"))
    steps = (Step(nn.Bilinear(1, 1, 1), keys, (("agents", "action"),)),)
    with pytest.raises(ValueError, match="would be called 'a_b'"):
        Actor(OwnPolicy(steps, {}, ""), "agents", "deterministic")


@pytest.mark.parametrize(
    ("bound", "own"),
    [
        (torch.tensor(2.0), [[2.0]]),
        (torch.tensor([1.0, 2.0]), [[1.0, 2.0]]),
        (torch.tensor([[1.0, 2.0]]), [[1.0, 2.0]]),
        (torch.tensor([[1.0, 2.0], [3.0, 4.0]]), [[3.0, 4.0]]),
    ],
)
def test_bounds_of_one_agent(bound, own):
    assert own_bounds(bound, 1).tolist() == own


def test_names_of_entries():
    assert entry_name(("agents", "observation")) == "observation"
    assert entry_name(("agents", "info", "x")) == "info_x"
    assert entry_name(("joint_history",)) == "joint_history"
    assert entry_name(("agents", "_hidden_gru_0")) == "hidden_gru_0"
