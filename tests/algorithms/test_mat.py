"""MAT and MAT-Dec in BenchMARL and in our experiment: every kind of task and network, and what they learn."""

import copy

import pytest
import torch
from benchmarl.environments import VmasTask
from benchmarl_runs import IGNORED, STATEFUL, THEIR_GRU, Metrics
from discrete_teams import teams_task
from short_runs import short_experiment
from torchrl.envs.utils import ExplorationType, set_exploration_type
from toy_games import meet_task, recall_task

from marl_td.algorithms.mat import MatConfig, MatDecConfig
from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.collect.collector import CompiledCollector

pytestmark = IGNORED

SMALL = {"embed_dim": 8}
OWN = {"share_policy_params": False}
SEPARATE = {"share_param_critic": False, "advantage_norm": "agent", "agent_id": True}


def tag() -> VmasTask:
    """Three adversaries against one agent, of another observation size; continuous."""
    return VmasTask.SIMPLE_TAG.get_from_yaml()


CASES = {
    "discrete": (teams_task(blue=0, masked=False, has_state=False), {}, {}),
    "masked, two groups": (teams_task(), {"value_norm": "none", "n_heads": 2}, {}),
    "masked, dead, per agent": (teams_task(mortal=True), {**SEPARATE, "n_blocks": 2}, OWN),
    "GRU, dead": (teams_task(mortal=True), {"value_norm": "running"}, {"model": STATEFUL}),
    "GRU per agent, chunks": (teams_task(), {"chunk_length": 4}, {**OWN, "model": STATEFUL}),
    "BenchMARL's GRU": (teams_task(), {"chunk_length": 4}, {"model": THEIR_GRU}),
    "continuous, two groups": (tag(), {"use_tanh_normal": False}, {}),
    "continuous, two groups, GRU": (tag(), {"n_blocks": 2}, {"model": STATEFUL}),
}


@pytest.mark.parametrize("config", [MatConfig, MatDecConfig])
@pytest.mark.parametrize("case", CASES)
def test_two_iterations_of_every_kind(case, config, small_experiment):
    """Each parameter moves, each metric is there and finite, in every group."""
    task, options, settings = CASES[case]
    metrics = Metrics()
    experiment = small_experiment(config(**SMALL, **options), task, callbacks=[metrics], **settings)
    before = copy.deepcopy(
        {g: dict(loss.named_parameters()) for g, loss in experiment.losses.items()}
    )
    experiment.run()
    for group, loss in experiment.losses.items():
        for name, parameter in loss.named_parameters():
            assert parameter.isfinite().all(), name
            assert not torch.equal(parameter, before[group][name]), name
    assert {group for group, _ in metrics.seen} == set(experiment.group_map)
    for group, values in metrics.seen:
        norms = {f"grad_norm_{name}" for name in experiment.optimizers[group]}
        assert set(values) == {*experiment.losses[group].out_keys, *norms}
        assert all(value.isfinite().all() for value in values.values())
