"""Checks of an experiment, and of its batches for numbers that are none."""

import pytest
import torch
from benchmarl.experiment import Experiment
from benchmarl_runs import IGNORED, STATEFUL
from discrete_teams import teams_task
from tensordict import TensorDict

from marl_td.algorithms.checks import check_finite
from marl_td.algorithms.mappo import MappoConfig

pytestmark = IGNORED


def batch(**entries):
    return TensorDict({"agents": TensorDict(entries, [2])}, [2])


def test_large_numbers_are_numbers_although_their_sum_is_none():
    large = batch(observation=torch.full((2, 4), 3e38), action=torch.zeros(2, 1))
    assert large["agents", "observation"].sum().isinf()
    assert check_finite(large) is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_first_entry_that_is_none_is_named(bad):
    observation = torch.zeros(2, 4)
    observation[1, 2] = bad
    wrong = batch(observation=observation, log_prob=torch.full((2,), bad))
    with pytest.raises(ValueError, match=rf"'agents.observation' is {bad} at index \[1, 2\]"):
        check_finite(wrong)


def test_opposite_infinities_do_not_cancel():
    with pytest.raises(ValueError, match=r"is inf at index \[0\]"):
        check_finite(batch(reward=torch.tensor([float("inf"), -float("inf")])))


def test_one_recurrent_configuration_for_actor_and_critic_is_refused(small_experiment):
    experiment = small_experiment(MappoConfig(), teams_task(), model=STATEFUL)
    model = experiment.model_config
    with pytest.raises(ValueError, match=r"same object.*copy\.deepcopy"):
        Experiment(
            task=teams_task(),
            algorithm_config=MappoConfig(),
            model_config=model,
            critic_model_config=model,
            seed=0,
            config=experiment.config,
        )
