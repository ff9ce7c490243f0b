"""COMA in unchanged BenchMARL and in our experiment: every kind of task and network, and what it learns."""

import copy

import pytest
import torch
from benchmarl_runs import IGNORED, STATEFUL, THEIR_GRU, Metrics
from discrete_teams import teams_task

from marl_td.algorithms.coma import ComaConfig

pytestmark = IGNORED

OWN = {"share_policy_params": False}
TOLD = {"last_action": True, "agent_id": True}
SEPARATE = {"share_param_critic": False, "value_norm": "running"}
CASES = {
    "one group, no state": (teams_task(blue=0, masked=False, has_state=False), {}, {}),
    "masked, two groups, told": (teams_task(), {**TOLD, "huber_delta": 1.0}, {}),
    "masked, dead, per agent": (teams_task(mortal=True), {**SEPARATE, "team_reward": "none"}, OWN),
    "own group, dead not valued": (
        teams_task(mortal=True, has_state=False),
        {"critic_scope": "group", "mask_dead_values": True, "team_reward": "sum"},
        {},
    ),
    "GRU, told": (teams_task(mortal=True), TOLD, {"model": STATEFUL}),
    "GRU per agent, chunks": (
        teams_task(),
        {**SEPARATE, "chunk_length": 4},
        {**OWN, "model": STATEFUL},
    ),
    "GRU critic": (teams_task(mortal=True), {"chunk_length": 4}, {"critic_model": STATEFUL}),
    "BenchMARL's GRU": (teams_task(), {"chunk_length": 4}, {"model": THEIR_GRU}),
}


@pytest.mark.parametrize("case", CASES)
def test_two_iterations_of_every_kind(case, small_experiment):
    """Each live parameter moves, each metric is there and finite, in every group."""
    task, options, settings = CASES[case]
    metrics = Metrics()
    experiment = small_experiment(ComaConfig(**options), task, callbacks=[metrics], **settings)
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
        norms = {"grad_norm_loss_actor", "grad_norm_loss_critic"}
        assert set(values) == {*experiment.losses[group].out_keys, *norms}
        assert all(value.isfinite().all() for value in values.values())
