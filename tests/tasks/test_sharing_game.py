"""The game that shared policies cannot win."""

import itertools

import pytest
import torch
from torchrl.envs.utils import check_env_specs

from marl_td.tasks import make_env, make_task
from marl_td.tasks.sharing_game import expected_reward, is_split, shared_ceiling


@pytest.mark.parametrize("params", [{}, {"n_agents": 2, "agent_id": True}])
def test_specs_hold(params):
    check_env_specs(make_env("sharing_game", n_envs=3, **params))


@pytest.mark.parametrize("n_agents", [2, 4, 6])
def test_two_joint_actions_of_all_are_paid(n_agents):
    """Proposition 1: (0, .., 0, 1, .., 1) and its mirror."""
    joint = torch.cartesian_prod(*[torch.arange(2)] * n_agents)
    task = make_task("sharing_game", n_agents=n_agents)
    step = task.step(task.reset(len(joint), {}), {"agents": joint}, {})
    half = n_agents // 2
    paid = {tuple(row.tolist()) for row in joint[step.reward["agents"][:, 0] > 0]}
    assert paid == {(0,) * half + (1,) * half, (1,) * half + (0,) * half}
    assert set(step.reward["agents"].flatten().tolist()) == {0.0, 1.0}
    assert (step.reward["agents"] == step.reward["agents"][:, :1]).all()
    assert step.terminated.all()


@pytest.mark.parametrize("n_agents", [2, 4, 6])
def test_the_expected_reward_is_the_sum_over_joint_actions(n_agents):
    p = torch.rand(5, n_agents)
    total = torch.zeros(5)
    for joint in itertools.product(range(2), repeat=n_agents):
        chance = torch.stack(
            [p[:, i] if a == 0 else 1 - p[:, i] for i, a in enumerate(joint)]
        ).prod(0)
        total += chance * is_split(torch.tensor(joint)).float()
    torch.testing.assert_close(expected_reward(p), total)


@pytest.mark.parametrize("n_agents", [2, 4, 8])
def test_no_shared_policy_beats_the_ceiling_and_the_fair_coin_reaches_it(n_agents):
    p = torch.linspace(0, 1, 1001).unsqueeze(-1).expand(-1, n_agents)
    found = expected_reward(p)
    assert found.max() == pytest.approx(shared_ceiling(n_agents))
    assert float(p[found.argmax(), 0]) == pytest.approx(0.5)


def test_everybody_sees_the_same_unless_told_who_they_are():
    assert (make_env("sharing_game", n_envs=2).reset()["agents", "observation"] == 1.0).all()
    seen = make_env("sharing_game", n_envs=2, agent_id=True).reset()["agents", "observation"]
    assert torch.equal(seen[0], torch.eye(4))


def test_the_split_reaches_the_optimum_and_the_random_policy_the_ceiling():
    from marl_td.evaluation.baselines import baseline_table

    table = baseline_table("marl_td/sharing_game", make_task("sharing_game"), 4000, seed=0)
    rows = {row.policy: row for row in table.rows}
    assert table.optimum.value == rows["split"].value == 1.0
    assert abs(rows["random"].value - shared_ceiling(4)) < 4 * (0.125 * 0.875 / 4000) ** 0.5


@pytest.mark.parametrize("n_agents", [0, 3])
def test_an_odd_number_of_agents_is_refused(n_agents):
    with pytest.raises(ValueError, match=f"n_agents must be even and at least 2; got {n_agents}"):
        make_task("sharing_game", n_agents=n_agents)
