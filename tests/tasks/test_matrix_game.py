"""One-step matrix games."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict
from torchrl.envs.utils import check_env_specs

from marl_td.tasks import make_env, make_task
from marl_td.tasks.matrix_game import joint_index, payoff_tensor

ASYMMETRIC = [[1.0, 2.0], [3.0, 4.0]]


def play(env, *actions):
    """Every copy plays the same joint action; the next step's tensordict."""
    action = torch.tensor(actions).expand(env.n_envs, -1)
    inner = TensorDict({"action": action}, [env.n_envs, len(actions)])
    return env.step(env.reset().update(TensorDict({"agents": inner}, [env.n_envs])))["next"]


@pytest.mark.parametrize("params", [{}, {"payoff": ASYMMETRIC, "repeats": 3}])
def test_specs_hold(params):
    check_env_specs(make_env("matrix_game", n_envs=2, **params))


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("column", [0, 1])
def test_the_first_agent_picks_the_row(row, column):
    step = play(make_env("matrix_game", n_envs=3, payoff=ASYMMETRIC), row, column)
    assert (step["agents", "reward"] == ASYMMETRIC[row][column]).all()
    assert step["agents", "reward"].shape == (3, 2, 1)


def test_the_default_is_the_game_of_qtran():
    env = make_env("matrix_game", n_envs=1)
    rewards = [
        [play(env, i, j)["agents", "reward"][0, 0].item() for j in range(3)] for i in range(3)
    ]
    assert rewards == [[8, -12, -12], [-12, 0, 0], [-12, 0, 0]]


def test_three_agents():
    payoff = [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    env = make_env("matrix_game", n_envs=1, payoff=payoff)
    assert play(env, 1, 0, 1)["agents", "reward"].flatten().tolist() == [5, 5, 5]
    assert play(env, 0, 1, 1)["agents", "reward"].flatten().tolist() == [3, 3, 3]


def test_each_environment_gets_its_own_joint_action_s_payoff():
    task = make_task("matrix_game", payoff=ASYMMETRIC)
    action = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    step = task.step(task.reset(4, {}), {"agents": action}, {})
    assert step.reward["agents"].tolist() == [[1, 1], [2, 2], [3, 3], [4, 4]]


@given(n_actions=st.integers(1, 5), n_agents=st.integers(1, 4), data=st.data())
def test_joint_index_is_row_major(n_actions, n_agents, data):
    one = st.integers(0, n_actions - 1)
    action = data.draw(st.lists(one, min_size=n_agents, max_size=n_agents))
    table = torch.arange(n_actions**n_agents).reshape([n_actions] * n_agents)
    assert joint_index(torch.tensor(action), n_actions) == table[tuple(action)]


def test_one_game_terminates_after_one_step():
    step = play(make_env("matrix_game", n_envs=2), 0, 0)
    assert step["terminated"].all() and step["done"].all() and not step["truncated"].any()


def test_repeats_terminate_after_the_last_even_beyond_the_time_limit():
    ends = make_env("matrix_game", n_envs=2, repeats=5, max_steps=2).rollout(9)["next"]
    assert ends["terminated"][0].flatten().tolist() == [False] * 4 + [True]
    assert not ends["truncated"].any()


def test_agents_see_their_index_and_the_state_is_constant():
    td = make_env("matrix_game", n_envs=2).reset()
    assert torch.equal(td["agents", "observation"], torch.eye(2).expand(2, 2, 2))
    assert torch.equal(td["state"], torch.ones(2, 1))


def test_the_optimum_is_the_best_entry_each_time():
    found = make_task("matrix_game", repeats=25).optimum()
    assert (found.value, found.kind) == (200.0, "exact")
    assert make_task("matrix_game", payoff=[[-3, -1], [-2, -4]]).optimum().value == -1.0


@pytest.mark.parametrize(
    ("payoff", "message"),
    [
        ([[1, 2], [3]], "payoff must be nested lists of numbers of equal lengths"),
        ([["a", "b"]], "payoff must be nested lists of numbers of equal lengths"),
        ([[1, 2, 3], [4, 5, 6]], r"same number of actions; got shape \(2, 3\)"),
        ([], r"same number of actions; got shape \(0,\)"),
        ([[1.0, float("nan")], [0.0, 0.0]], "payoff must hold finite numbers only"),
        ([[1.0, float("inf")], [0.0, 0.0]], "payoff must hold finite numbers only"),
    ],
)
def test_a_bad_payoff_is_refused(payoff, message):
    with pytest.raises(ValueError, match=message):
        payoff_tensor(payoff)
    with pytest.raises(ValueError, match=message):
        make_task("matrix_game", payoff=payoff)


def test_repeats_must_be_positive():
    with pytest.raises(ValueError, match="repeats must be at least 1; got 0"):
        make_task("matrix_game", repeats=0)
