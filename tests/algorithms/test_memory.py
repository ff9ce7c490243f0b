"""Memory, for every algorithm: a task that provably needs it is learned with recurrent networks only.

Whatever is registered is tested. Without memory every policy makes the ceiling on average, in closed form.
The settings are those of `benchmarks/recall_table.py`, which makes the table of the task's page.
"""

import pytest
import torch
from algorithm_cases import ALGORITHM_KINDS
from benchmarl_runs import IGNORED, STATEFUL

from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.registry import ALGORITHMS, algorithm_config

pytestmark = IGNORED

QUICK = {("qmix", "discrete", 0), ("mappo", "discrete", 0)}
"""What the default tests run; the others are slow together, not one by one."""


def cases():
    """Every algorithm with every kind of actions it has, and three seeds."""
    for name, kind in ALGORITHM_KINDS:
        for seed in (0, 1, 2):
            quick = (name, kind, seed) in QUICK
            label = f"{name}, {kind}, seed {seed}"
            marks = [] if quick else pytest.mark.slow
            yield pytest.param(name, kind == "continuous", seed, id=label, marks=marks)


@pytest.mark.parametrize(("name", "continuous", "seed"), list(cases()))
def test_memory_is_learned(name, continuous, seed, script):
    table = script("recall_table")
    threshold = 0.95
    assert threshold > table.CEILING + table.TOLERANCE
    assert table.learn(name, True, seed, continuous).score > threshold


@pytest.mark.parametrize(("name", "continuous", "seed"), list(cases()))
def test_without_memory_nothing_is_gained(name, continuous, seed, script):
    """Neither above the ceiling nor below it: all policies without memory make the same."""
    table = script("recall_table")
    score = table.learn(name, False, seed, continuous).score
    assert abs(score - table.CEILING) < table.TOLERANCE


# ------------------------------------------------------------------------- states of ended episodes
@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_episode_that_ends_while_others_go_on_starts_from_nothing(name, small_experiment):
    """Before the first step of an episode the state is 0; before any other, what the last step left."""
    config = {**MarlTdTask.RECALL.get_from_yaml().config, "delay": 0, "extra_delay": 2}
    experiment = small_experiment(
        algorithm_config(name)(),
        MarlTdTask.RECALL.get_task(config),
        model=STATEFUL,
        prefer_continuous_actions=False,
        on_policy_collected_frames_per_batch=40,
        off_policy_collected_frames_per_batch=40,
    )
    first, second = (
        batch.clone() for batch, _ in zip(experiment.collector, range(2), strict=False)
    )
    batch = torch.cat([first, second], 1)
    experiment.close()
    starts = batch["is_init"].squeeze(-1)
    assert starts[:, 0].all()
    somewhere = starts[:, 1:].any(0)
    assert somewhere.any() and not starts[:, 1:][:, somewhere].all(0).any()
    assert torch.equal(starts[:, 1:], batch["next", "done"].squeeze(-1)[:, :-1])
    before = batch["agents", "hidden_gru_0"]
    after = batch["next", "agents", "hidden_gru_0"]
    assert (before[starts] == 0).all() and (after != 0).any(-1).all()
    goes_on = ~starts[:, 1:]
    assert torch.equal(before[:, 1:][goes_on], after[:, :-1][goes_on])
