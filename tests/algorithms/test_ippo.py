"""IPPO: MAPPO with critics of own observations, in unchanged BenchMARL."""

import pytest
import torch
from benchmarl_runs import IGNORED, STATEFUL, Metrics, assert_all_move
from discrete_teams import teams_task
from toy_games import meet_task

from marl_td.algorithms.ippo import IppoConfig
from marl_td.algorithms.mappo import MappoConfig
from marl_td.losses.ppo import IPPOLoss

pytestmark = IGNORED

OWN = {"share_param_critic": False, "advantage_norm": "agent"}


@pytest.mark.parametrize("options", [{}, {**OWN, "value_norm": "running"}])
def test_it_is_mappo_whose_critic_sees_its_own_agent(options, small_experiment):
    """Same networks from the same seed, same batch: advantages, losses and gradients, group by group."""
    task = teams_task(mortal=True)
    runs = [
        small_experiment(config(**options, **more), task, share_policy_params=not options)
        for config, more in ((IppoConfig, {}), (MappoConfig, {"critic_scope": "agent"}))
    ]
    assert isinstance(runs[0].losses["red"], IPPOLoss)
    collected = next(iter(runs[0].collector))
    for group in ("red", "blue"):
        results = []
        for run in runs:
            run._on_batch_collected(collected)
            loss = run.losses[group]
            batch = run.algorithm.process_batch(group, collected.clone()).reshape(-1)
            out = loss(batch)
            (out["loss_objective"] + out["loss_critic"]).backward()
            gradients = {name: p.grad for name, p in loss.named_parameters()}
            results.append({**out, **gradients, "advantage": batch[group, "advantage"]})
        assert results[0].keys() == results[1].keys()
        for key, value in results[0].items():
            torch.testing.assert_close(value, results[1][key], msg=key)
        assert results[0]["loss_critic"] > 0.0


def test_a_critic_sees_nobody_else(small_experiment):
    experiment = small_experiment(IppoConfig(**OWN), teams_task(), critic_model=STATEFUL)
    data = experiment.test_env.reset()
    data["is_init"] = torch.zeros(*data.batch_size, 1, dtype=torch.bool)
    critic = experiment.losses["blue"].critic
    value = critic(data.clone())["blue", "state_value"]
    data["red", "observation"] += 1.0
    data["state"] += 1.0
    data["blue", "observation"][:, 1:] += 1.0
    other = critic(data)["blue", "state_value"]
    assert torch.equal(value[:, 0], other[:, 0])
    assert not torch.equal(value[:, 1], other[:, 1])


CASES = {
    "masked, two groups, dead": (teams_task(mortal=True), {}, {}),
    "masked, own networks, stateful chunks": (
        teams_task(),
        {**OWN, "chunk_length": 4},
        {"share_policy_params": False, "model": STATEFUL},
    ),
    "continuous": (meet_task(), {"value_norm": "none"}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_two_iterations_of_every_kind(case, small_experiment):
    task, options, settings = CASES[case]
    metrics = Metrics()
    experiment = small_experiment(IppoConfig(**options), task, callbacks=[metrics], **settings)
    assert_all_move(experiment, metrics)
