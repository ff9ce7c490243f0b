"""simple_spread: mpe2's own numbers, step by step, and what the task adds to them."""

import mpe_episodes
import pytest
import torch

from marl_td.tasks import make_env, make_task
from marl_td.tasks.particle import SpreadState, physics
from marl_td.tasks.particle.assignment import Assignment, keep_apart, match


def compare(n_episodes, n_agents, continuous, local_ratio=0.5):
    """Our task beside mpe2's; how many collisions there were."""
    theirs = mpe_episodes.played(
        "simple_spread_v3",
        n_episodes,
        continuous,
        groups="all",
        N=n_agents,
        local_ratio=local_ratio,
    )
    task = make_task(
        "simple_spread", continuous=continuous, n_agents=n_agents, local_ratio=local_ratio
    )
    parts = ("position", "landmark")
    return mpe_episodes.compare(
        task, theirs, lambda dtype: {k: (getattr(theirs, k)[0].to(dtype) + 1) / 2 for k in parts}
    )["collisions"]


@pytest.mark.parametrize("continuous", [True, False])
def test_steps_are_those_of_mpe2(continuous):
    assert compare(12, 3, continuous) > 10  # the contact forces have been at work


def test_any_number_of_agents_and_weight_is_that_of_mpe2():
    compare(2, 1, False, local_ratio=0.2)
    assert compare(3, 6, True, local_ratio=0.8) > 10


@pytest.mark.slow
@pytest.mark.parametrize("continuous", [True, False])
def test_200_episodes_are_those_of_mpe2(continuous):
    assert compare(200, 3, continuous) > 200


def state_of(position, landmark, velocity=None):
    """One environment as a state."""
    rows = [position, velocity or [[0.0, 0.0]] * len(position), landmark]
    return SpreadState(*(torch.tensor([row]) for row in rows))


def test_a_step_worked_out_by_hand():
    """Two agents far apart, one pushed right and up, one left alone and drifting."""
    task = make_task("simple_spread", n_agents=2, local_ratio=0.25)
    state = state_of([[0.0, 0.0], [1.0, 0.0]], [[0.0, 3.0], [1.2, 0.0]], [[0.0, 0.0], [2.0, 0.0]])
    action = torch.tensor([[[0.9, 0.2, 0.6, 0.0, 1.0], [1.0, 0.5, 0.5, 0.3, 0.3]]])
    step = task.step(state, {"agents": action}, {})
    torch.testing.assert_close(step.state.position, torch.tensor([[[0.0, 0.0], [1.2, 0.0]]]))
    torch.testing.assert_close(step.state.velocity, torch.tensor([[[0.2, 0.5], [1.5, 0.0]]]))
    torch.testing.assert_close(step.reward["agents"], torch.tensor([[-2.25, -2.25]]))
    assert step.info["distance"].item() == pytest.approx(3.0)
    assert step.info["covered"].item() == 1.0
    assert step.info["collisions"].item() == 0.0
    assert not step.terminated.any()


def test_touching_agents_push_each_other_apart_equally():
    task = make_task("simple_spread", n_agents=2, continuous=False)
    state = state_of([[0.0, 0.0], [0.2, 0.0]], [[0.0, 0.0], [0.2, 0.0]])
    step = task.step(state, {"agents": torch.zeros((1, 2), dtype=torch.long)}, {})
    expected = torch.tensor([[[-1.0, 0.0], [1.0, 0.0]]])  # 100 * (0.3 - 0.2) * 0.1 s
    torch.testing.assert_close(step.state.velocity, expected)
    assert step.info["collisions"].item() == 1.0
    torch.testing.assert_close(step.reward["agents"], torch.tensor([[-0.5, -0.5]]))


def test_agents_in_one_place_give_no_nan():
    task = make_task("simple_spread", n_agents=2, continuous=False)
    state = state_of([[0.5, 0.5]] * 2, [[0.0, 0.0]] * 2)
    step = task.step(state, {"agents": torch.zeros((1, 2), dtype=torch.long)}, {})
    assert torch.isfinite(step.state.velocity).all()


def test_matching_takes_the_shortest_total():
    """The nearest pair first would cost 1 + 10; both matches of the best cost 3 + 2."""
    distance = torch.tensor([[[1.0, 3.0], [2.0, 10.0]]])
    assert match(distance).tolist() == [[1, 0]]


def test_many_agents_are_matched_pair_by_pair():
    distance = torch.full((1, 5, 5), 9.0)
    for agent, landmark in enumerate([3, 0, 4, 2, 1]):
        distance[0, agent, landmark] = 1.0 + agent
    assert match(distance).tolist() == [[3, 0, 4, 2, 1]]
    drawn = match(torch.rand(50, 7, 7, generator=torch.Generator().manual_seed(0)))
    assert (drawn.sort(-1).values == torch.arange(7)).all()


def test_goals_are_moved_apart_to_the_limit():
    goal = torch.tensor([[[0.0, 0.0], [0.1, 0.0], [5.0, 0.0]]])
    moved = keep_apart(goal)
    torch.testing.assert_close(moved[0, :, 0], torch.tensor([-0.105, 0.205, 5.0]))
    assert (moved[0, 1, 0] - moved[0, 0, 0]).item() > 0.3


@pytest.mark.parametrize("continuous", [True, False])
def test_the_controller_pushes_towards_the_goal(continuous):
    env = make_env("simple_spread", 1, continuous=continuous, n_agents=1)
    td = env.reset()
    env.state = state_of([[0.5, 0.0]], [[-0.5, 0.1]])
    td["agents", "observation"] = env.task.observe(env.state)["agents"]
    action = Assignment(1, continuous)(td)["agents", "action"][0, 0]
    if continuous:
        assert action[1] == 1.0 and action[2] == 0.0 and action[4] > action[3]
    else:
        assert action == 1


def test_a_body_does_not_touch_itself():
    offset = physics.offsets(*[torch.zeros(2, 3, 1)] * 2)
    distance = physics.apart_from_itself(physics.distances(offset))
    assert distance.diagonal().eq(physics.APART).all()
