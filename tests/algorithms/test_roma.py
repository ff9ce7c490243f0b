"""ROMA in unchanged BenchMARL: what is replayed, how agents act when evaluated.

That they learn, and remember, is tested with all algorithms in `test_memory.py`.
"""

import pytest
import torch
from benchmarl_runs import IGNORED
from discrete_teams import teams_task
from torchrl.envs.utils import ExplorationType, set_exploration_type

from marl_td.algorithms.roma import RomaConfig

pytestmark = IGNORED


def test_roles_are_collected_but_not_replayed(small_experiment):
    """The loss draws its own, and a history of 64 numbers per agent would fill the replay."""
    experiment = small_experiment(RomaConfig(), teams_task())
    batch = next(iter(experiment.collector))
    drawn = {"role", "role_mean", "role_std"}
    assert drawn <= set(batch["red"].keys())
    kept = experiment.algorithm.process_batch("red", batch.clone())
    keys = {"observation", "action", "action_mask"}
    assert keys <= set(kept["red"].keys())
    assert not (drawn | {"trajectory", "agent_input", "action_value"}) & set(kept["red"].keys())
    experiment.close()


def test_evaluated_agents_act_by_their_mean_roles(small_experiment):
    experiment = small_experiment(RomaConfig(), teams_task(blue=0))
    start = experiment.test_env.reset()
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        first, second = (experiment.policy(start.copy())["red"] for _ in range(2))
    assert torch.equal(first["action_value"], second["action_value"])
    assert torch.equal(first["role"], first["role_mean"])
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        drawn = experiment.policy(start.copy())["red"]
    assert not torch.equal(drawn["role"], drawn["role_mean"])
    experiment.close()


@pytest.mark.parametrize("share", [True, False])
def test_role_networks_are_shared_as_the_agents_networks_are(small_experiment, share):
    experiment = small_experiment(RomaConfig(), teams_task(), share_policy_params=share)
    for group, n_agents in (("red", 2), ("blue", 3)):
        loss = experiment.losses[group]
        for module in (loss.network, loss.posterior):
            shapes = {n: p.shape[0] for n, p in module.named_parameters() if "distribution" in n}
            assert set(shapes.values()) == {1 if share else n_agents}
    experiment.close()
