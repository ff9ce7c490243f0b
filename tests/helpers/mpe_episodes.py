"""Random episodes of ``mpe2``, and a batched task beside them, free from the start on."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from marl_td.tasks.adapters.grouping import group_agents

STEPS = 25


def played(
    name, n_episodes, continuous, *, groups="name", goal=None, moving=slice(None), **options
):
    """Start, actions, and what ``mpe2`` says at every step.

    Args:
        name: module of mpe2.
        goal: reads the goal's number off the world.
        moving: the agents whose places count.

    Returns:
        ``position``, ``velocity``, ``landmark`` ``[STEPS + 1, n_episodes, n, 2]``, ``goal`` ``[n_episodes]``,
        and by group ``observation`` ``[STEPS + 1, n_episodes, n, d]``, ``reward`` and ``action``
        ``[STEPS, n_episodes, n(, d)]``.
    """
    module = pytest.importorskip(f"mpe2.{name}")
    env = module.parallel_env(max_cycles=STEPS, continuous_actions=continuous, **options)
    grouped = group_agents(env.possible_agents, groups)
    random = np.random.default_rng(0)
    action, seen, reward = {}, {}, {}
    for agent in env.possible_agents:
        space = env.action_space(agent)
        shape = (STEPS, n_episodes)
        if continuous:  # float64, as the simulator computes; some beyond the limits, which it clips
            action[agent] = random.uniform(-0.2, 1.2, (*shape, *space.shape))
        else:
            action[agent] = random.integers(0, space.n, shape)
        seen[agent] = np.zeros((STEPS + 1, n_episodes, *env.observation_space(agent).shape))
        reward[agent] = np.zeros(shape)
    track = {key: [] for key in ("position", "velocity", "landmark")}
    goals = []
    for episode in range(n_episodes):
        observation, _ = env.reset(seed=episode)
        world = env.unwrapped.world
        goals.append(0 if goal is None else goal(world))
        for t in range(STEPS + 1):
            movers = world.agents[moving]
            track["position"].append([a.state.p_pos.copy() for a in movers])
            track["velocity"].append([a.state.p_vel.copy() for a in movers])
            track["landmark"].append([a.state.p_pos.copy() for a in world.landmarks])
            for agent, value in observation.items():
                seen[agent][t, episode] = value
            if t < STEPS:
                given = {agent: values[t, episode] for agent, values in action.items()}
                observation, rewards, _, cut, _ = env.step(given)
                for agent, value in rewards.items():
                    reward[agent][t, episode] = value
        assert all(cut.values())
    env.close()

    def by_group(values):
        return {
            group: torch.tensor(np.stack([values[agent] for agent in agents], 2))
            for group, agents in grouped.items()
        }

    places = {
        key: torch.tensor(np.array(values)).unflatten(0, (n_episodes, STEPS + 1)).transpose(0, 1)
        for key, values in track.items()
    }
    return SimpleNamespace(
        **places,
        goal=torch.tensor(goals),
        observation=by_group(seen),
        reward=by_group(reward),
        action=by_group(action),
    )


def compare(task, theirs, start):
    """All episodes at once beside mpe2's; sums of the task's raw quantities over everything.

    ``start(dtype)`` is the noise of their start.
    """
    n_episodes = theirs.position.shape[1]
    sums = dict.fromkeys(task.info_keys, 0.0)
    for dtype, tolerance in ((torch.float64, 1e-8), (torch.float32, 1e-4)):
        close = {"rtol": 0.0, "atol": tolerance}
        state = task.reset(n_episodes, start(dtype))
        for t in range(STEPS + 1):
            place, speed = theirs.position[t].to(dtype), theirs.velocity[t].to(dtype)
            torch.testing.assert_close(state.position, place, **close)
            torch.testing.assert_close(state.velocity, speed, rtol=0.0, atol=10 * tolerance)
            for group, seen in task.observe(state).items():
                assert seen.dtype == dtype
                expected = theirs.observation[group][t].to(dtype)
                # Velocities among them, which mpe2 rounds to float32.
                torch.testing.assert_close(seen, expected, rtol=0.0, atol=10 * tolerance + 1e-6)
            if t < STEPS:
                action = {group: values[t] for group, values in theirs.action.items()}
                if task.continuous:
                    action = {group: values.to(dtype) for group, values in action.items()}
                step = task.step(state, action, {})
                for group, reward in step.reward.items():
                    torch.testing.assert_close(reward, theirs.reward[group][t].to(dtype), **close)
                state = step.state
                sums = {key: sums[key] + float(step.info[key].sum()) for key in sums}
        torch.testing.assert_close(state.landmark, theirs.landmark[-1].to(dtype), **close)
    return sums
