"""The two-step game of QMIX."""

import itertools

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs.utils import check_env_specs

from marl_td.tasks import make_env, make_task

TABLES = {"payoff_2a": [[1, 2], [3, 4]], "payoff_2b": [[5, 6], [7, -8]]}


def play(env, *joint_actions):
    """Every copy plays the joint actions in turn; the list of next tensordicts."""
    td, steps = env.reset(), []
    for joint in joint_actions:
        action = torch.tensor(joint).expand(env.n_envs, 2)
        inner = TensorDict({"action": action}, [env.n_envs, 2])
        td = env.step(td.update(TensorDict({"agents": inner}, [env.n_envs])))["next"].clone()
        steps.append(td)
    return steps


@pytest.mark.parametrize("agent_id", [True, False])
def test_specs_hold(agent_id):
    check_env_specs(make_env("two_step", n_envs=3, agent_id=agent_id))


@pytest.mark.parametrize("choice", [0, 1])
@pytest.mark.parametrize("second", [0, 1])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_agent_one_chooses_the_table_and_its_row(choice, second, row, column):
    first, last = play(make_env("two_step", n_envs=2, **TABLES), (choice, second), (row, column))
    table = TABLES["payoff_2b" if choice else "payoff_2a"]
    assert (first["agents", "reward"] == 0).all() and not first["done"].any()
    assert (last["agents", "reward"] == table[row][column]).all()
    assert last["terminated"].all() and not last["truncated"].any()


def test_the_default_is_the_game_of_the_paper():
    env = make_env("two_step", n_envs=1)
    pays = {
        (choice, row, column): play(env, (choice, 0), (row, column))[1]["agents", "reward"][0, 0, 0]
        for choice, row, column in itertools.product([0, 1], repeat=3)
    }
    assert [int(pays[0, i, j]) for i in (0, 1) for j in (0, 1)] == [7, 7, 7, 7]
    assert [int(pays[1, i, j]) for i in (0, 1) for j in (0, 1)] == [0, 1, 1, 8]


def test_what_agents_and_critic_see():
    env = make_env("two_step", n_envs=1)
    start = env.reset()
    assert start["state"].tolist() == [[1, 0, 0]]
    assert start["agents", "observation"].tolist() == [[[1, 0, 0, 1, 0], [1, 0, 0, 0, 1]]]
    assert play(env, (0, 1))[0]["state"].tolist() == [[0, 1, 0]]
    assert play(env, (1, 0))[0]["state"].tolist() == [[0, 0, 1]]
    plain = make_env("two_step", n_envs=1, agent_id=False).reset()
    assert plain["agents", "observation"].tolist() == [[[1, 0, 0], [1, 0, 0]]]


def test_environments_are_in_their_own_states():
    task = make_task("two_step", **TABLES)
    state = task.reset(2, {})
    state = task.step(state, {"agents": torch.tensor([[0, 0], [1, 0]])}, {}).state
    step = task.step(state, {"agents": torch.tensor([[0, 1], [1, 1]])}, {})
    assert step.reward["agents"].tolist() == [[2, 2], [-8, -8]]


def test_a_low_time_limit_does_not_cut_the_second_step():
    steps = make_env("two_step", n_envs=1, max_steps=1).rollout(5)["next"]
    assert steps["terminated"].flatten().tolist() == [False, True]
    assert not steps["truncated"].any()


def test_the_optimum_is_the_best_entry_of_both_tables():
    assert make_task("two_step").optimum().value == 8.0
    assert make_task("two_step").optimum().kind == "exact"
    assert make_task("two_step", **TABLES).optimum().value == 7.0
    only_losses = {"payoff_2a": [[-2, -2], [-2, -2]], "payoff_2b": [[-3, -3], [-3, -3]]}
    assert make_task("two_step", **only_losses).optimum().value == -2.0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"payoff_2a": [[1, 2, 3]] * 3}, r"payoff_2a must be a 2 x 2 table; got shape \(3, 3\)"),
        ({"payoff_2b": [1, 2]}, r"payoff_2b must be a 2 x 2 table; got shape \(2,\)"),
        ({"payoff_2b": [[1, 2], [3]]}, "nested lists of numbers of equal lengths"),
    ],
)
def test_a_bad_table_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        make_task("two_step", **params)
