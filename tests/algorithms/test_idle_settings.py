"""Settings that were given and change nothing are warned of, once, with the reason."""

import warnings

import pytest
from benchmarl.environments import task_config_registry
from benchmarl_runs import IGNORED, STATEFUL
from short_runs import short_experiment

from marl_td import register
from marl_td.algorithms.coma import ComaConfig
from marl_td.algorithms.isac import IsacConfig
from marl_td.algorithms.maddpg import MaddpgConfig
from marl_td.algorithms.mappo import MappoConfig
from marl_td.algorithms.pqn_vdn import PqnVdnConfig
from marl_td.algorithms.qmix import QmixConfig

pytestmark = IGNORED


def said(small_experiment, config, task="matrix_game", model=None, **settings):
    """The warnings of an experiment's set-up about settings."""
    register()
    task = task_config_registry[f"marl_td/{task}"].get_task()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small_experiment(config, task, model=model, **settings).close()
    found = [str(warning.message) for warning in caught]
    return [text for text in found if text.startswith(("algorithm.", "experiment."))]


CASES = [
    (MappoConfig(chunk_length=5), "chunk_length=5", "no network is recurrent"),
    (PqnVdnConfig(chunk_length=5), "chunk_length=5", "no network is recurrent"),
    (MappoConfig(mask_dead_values=True), "mask_dead_values=True", "nobody dies in this task"),
    (MappoConfig(use_tanh_normal=False), "use_tanh_normal=False", "all actions are discrete"),
    (ComaConfig(value_norm_beta=0.9), "value_norm_beta=0.9", "value_norm is none"),
    (MaddpgConfig(action_scale=2.0), "action_scale=2.0", "all actions are discrete"),
    (MaddpgConfig(inference_entropy_coef=0.1), "inference_entropy_coef=0.1",
     "infer_policies is false"),
    (IsacConfig(huber_delta=2.0), "huber_delta=2.0", "loss_function is l2"),
    (IsacConfig(fixed_alpha=True, target_entropy=0.5), "target_entropy=0.5", "fixed_alpha is true"),
    (IsacConfig(target_entropy=0.5, discrete_target_entropy_weight=0.9),
     "discrete_target_entropy_weight=0.9", "target_entropy is given"),
    (IsacConfig(priority_beta_end=0.5), "priority_beta_end=0.5",
     "experiment.off_policy_use_prioritized_replay_buffer is false"),
    (QmixConfig(temperature_end=0.01), "temperature_end=0.01", "exploration is epsilon_greedy"),
    (QmixConfig(huber_delta=2.0), "huber_delta=2.0", "loss_function is l2"),
    (QmixConfig(sequence="window"), "sequence=window",
     "single steps are replayed (no recurrent network, lmbda=0, n_steps=1)"),
    (QmixConfig(n_steps=2, burn_in=3), "burn_in=3", "sequence is episode"),
    (QmixConfig(n_steps=2, sequence="window", burn_in=3), "burn_in=3",
     "the network is not recurrent"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "setting", "why"), CASES)
def test_a_setting_without_effect_is_named_with_the_reason(small_experiment, config, setting, why):
    (text,) = said(small_experiment, config)
    assert text == f"algorithm.{setting} has no effect here: {why}."


def test_where_they_have_one_nothing_is_said(small_experiment):
    config = MappoConfig(chunk_length=3, value_norm_beta=0.9)
    assert said(small_experiment, config, model=STATEFUL) == []
    config = QmixConfig(sequence="window", window_length=2, burn_in=1, loss_function="huber")
    assert said(small_experiment, config, "two_step", model=STATEFUL) == []


def test_continuous_actions(small_experiment):
    settings = {"prefer_continuous_actions": True}
    config = MaddpgConfig(action_scale=2.0, gumbel_temperature=0.5)
    (text,) = said(small_experiment, config, "simple_spread", **settings)
    assert text == (
        "algorithm.gumbel_temperature=0.5 has no effect here: all actions are continuous."
    )


def test_a_memory_below_a_minibatch(small_experiment):
    sizes = {"off_policy_memory_size": 10, "off_policy_train_batch_size": 12}
    (text,) = said(small_experiment, QmixConfig(), **sizes)
    assert text == (
        "experiment.off_policy_memory_size=10 is less than experiment.off_policy_train_batch_size=12, "
        "so that minibatches hold the same steps several times; set a larger memory or a smaller batch."
    )
    assert said(small_experiment, MappoConfig(), **sizes) == []


def test_pictures_in_training(tmp_path):
    with pytest.warns(UserWarning, match=r"experiment\.render=true has no effect .*evaluate RUN"):
        short_experiment(tmp_path, "experiment.render=true").close()
