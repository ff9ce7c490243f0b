"""Learning from rare transitions: the blind cliffwalk of the prioritised replay paper.

Schaul et al. 2016, https://arxiv.org/abs/1511.05952, section 3.1 and appendix B.1: n states in a row, one
action goes on and the other ends the episode, and only the last step on is rewarded. The memory holds the
steps of all 2^n action sequences: 2^(n+1) - 2, of which one is rewarded. Tabular Q-learning with step size
1/4 and discount 1 - 1/n replays one step at a time, until its mean squared error is below 1e-3.
"""

import statistics

import torch
from torchrl.data import LazyTensorStorage, ReplayBuffer
from torchrl.data.replay_buffers import RandomSampler

from marl_td.collect.prioritised import ProportionalSampler

ON, OFF = 0, 1
SEEDS = range(6)


def memory(n_states: int) -> torch.Tensor:
    """State, action, reward, end of every step of all action sequences, ``[2^(n+1) - 2, 4]``."""
    rows = []
    for state in range(n_states):
        last = state == n_states - 1
        copies = 2 ** (n_states - 1 - state)
        rows += [(state, ON, float(last), last), (state, OFF, 0.0, True)] * copies
    return torch.tensor(rows)


def updates_until_learned(sampler, n_states: int, seed: int) -> int:
    torch.manual_seed(seed)
    steps = memory(n_states)
    steps = steps[torch.randperm(len(steps))]
    assert len(steps) == 2 ** (n_states + 1) - 2
    assert steps[:, 2].sum() == 1.0
    replay = ReplayBuffer(storage=LazyTensorStorage(len(steps)), sampler=sampler, batch_size=1)
    replay.extend(steps)
    gamma = 1.0 - 1.0 / n_states
    truth = torch.zeros(n_states, 2)
    truth[:, ON] = gamma ** torch.arange(n_states - 1, -1, -1)
    value = 0.1 * torch.randn(n_states + 1, 2)
    for n_updates in range(100_000):
        if (value[:-1] - truth).square().mean() < 1e-3:
            return n_updates
        index, _ = sampler.sample(replay.storage, 1)  # alone in its batch, its weight is 1
        state, action, reward, end = steps[index[0]].tolist()
        following = 0.0 if end else float(value[int(state) + 1].max())
        error = reward + gamma * following - float(value[int(state), int(action)])
        value[int(state), int(action)] += 0.25 * error
        if isinstance(sampler, ProportionalSampler):
            sampler.update_priority(index, abs(error))
    raise AssertionError("not learned")


def median_updates(make, n_states: int) -> float:
    return statistics.median(updates_until_learned(make(), n_states, seed) for seed in SEEDS)


def test_rare_rewards_are_learned_in_far_fewer_updates():
    n_states = 6
    size = 2 ** (n_states + 1) - 2
    uniform = median_updates(RandomSampler, n_states)
    prioritised = median_updates(lambda: ProportionalSampler(size, 0.6, 0.0), n_states)
    print(f"{n_states} states: uniform {uniform}, prioritised {prioritised} updates")
    assert prioritised < uniform / 2.5


def test_without_priorities_it_takes_as_long_as_uniform_replay():
    size = 2**5 - 2
    uniform = median_updates(RandomSampler, 4)
    flat = median_updates(lambda: ProportionalSampler(size, 0.0, 1.0), 4)
    assert 0.6 < flat / uniform < 1.7
