"""Settings that were given and change nothing are warned of, once, with the reason."""

import warnings
from copy import copy
from dataclasses import dataclass, field

import pytest
from benchmarl.environments import task_config_registry
from benchmarl_runs import IGNORED, STATEFUL
from discrete_teams import teams_task
from short_runs import short_experiment

from marl_td import register
from marl_td.algorithms.base import MarlTdAlgorithm
from marl_td.algorithms.coma import ComaConfig
from marl_td.algorithms.ensemble import EnsembleConfig
from marl_td.algorithms.facmac import FacmacConfig
from marl_td.algorithms.isac import IsacConfig
from marl_td.algorithms.maddpg import MaddpgConfig
from marl_td.algorithms.mappo import Mappo, MappoConfig
from marl_td.algorithms.masac import MasacConfig
from marl_td.algorithms.matd3 import Matd3Config
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
    (IsacConfig(target_entropy_scale=0.5), "target_entropy_scale=0.5", "all actions are discrete"),
    (Matd3Config(target_noise=0.1), "target_noise=0.1", "all actions are discrete"),
    (Matd3Config(target_noise_clip=0.1), "target_noise_clip=0.1", "all actions are discrete"),
    (MaddpgConfig(evaluation_sub_policy=0), "evaluation_sub_policy=0", "ensemble_size is 1"),
    (MaddpgConfig(gumbel_temperature=0.5, discrete_gradient="expected"), "gumbel_temperature=0.5",
     "discrete_gradient is expected"),
    (MappoConfig(scale_mapping="exp"), "scale_mapping=exp", "all actions are discrete"),
    (MaddpgConfig(exploration_sigma=0.5), "exploration_sigma=0.5", "all actions are discrete"),
    (MasacConfig(fixed_alpha=True, min_alpha=0.5), "min_alpha=0.5", "fixed_alpha is true"),
    (MasacConfig(fixed_alpha=True, max_alpha=2.0), "max_alpha=2.0", "fixed_alpha is true"),
    (QmixConfig(temperature_init=2.0), "temperature_init=2.0", "exploration is epsilon_greedy"),
    (QmixConfig(window_length=5), "window_length=5",
     "single steps are replayed (no recurrent network, lmbda=0, n_steps=1)"),
    (QmixConfig(n_steps=2, window_overlap=0.25), "window_overlap=0.25", "sequence is episode"),
    (QmixConfig(hypernet_layers=1, hypernet_embed=8), "hypernet_embed=8", "hypernet_layers is 1"),
    (FacmacConfig(hypernet_layers=1, hypernet_embed=8), "hypernet_embed=8", "hypernet_layers is 1"),
    (FacmacConfig(mixer_type="free", hypernet_embed=8), "hypernet_embed=8", "mixer_type is free"),
    (FacmacConfig(mixer_type="free", hypernet_layers=1), "hypernet_layers=1", "mixer_type is free"),
    (FacmacConfig(mixer_type="sum", mixing_embed_dim=8), "mixing_embed_dim=8", "mixer_type is sum"),
    (FacmacConfig(mixer_type="sum", state_norm="layer"), "state_norm=layer", "mixer_type is sum"),
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


@pytest.mark.parametrize(
    ("setting", "value"),
    [("discrete_target_entropy_weight", 0.9), ("coupled_discrete_values", True)],
)
def test_those_of_discrete_actions(setting, value, small_experiment):
    config = (MasacConfig if setting.startswith("coupled") else IsacConfig)(**{setting: value})
    (text,) = said(small_experiment, config, "simple_spread", prefer_continuous_actions=True)
    assert text == f"algorithm.{setting}={value} has no effect here: all actions are continuous."


@pytest.mark.parametrize("config", [MaddpgConfig(priority_eta=0.5), IsacConfig(priority_eta=0.5)])
def test_one_step_has_one_error(config, small_experiment):
    prioritised = {"off_policy_use_prioritized_replay_buffer": True}
    (text,) = said(small_experiment, config, **prioritised)
    assert text == (
        "algorithm.priority_eta=0.5 has no effect here: single steps are replayed (no network is recurrent)."
    )
    models = {"model": STATEFUL, "critic_model": STATEFUL}
    assert said(small_experiment, config, **models, **prioritised) == []
    config = QmixConfig(priority_eta=0.5, n_steps=2)
    assert said(small_experiment, config, **prioritised) == []


def test_an_ensemble_s_algorithms_are_asked_for_their_own_groups(small_experiment, monkeypatch):
    monkeypatch.setattr(MarlTdAlgorithm, "is_mortal", lambda self, group: group == "red")
    own, other = (MappoConfig(mask_dead_values=value) for value in (True, False))
    for group, expected in (("red", []), ("blue", ["nobody dies in this task"])):
        configs = {"red": other, "blue": copy(other), group: own}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            small_experiment(EnsembleConfig(configs), teams_task()).close()
        texts = [str(w.message) for w in caught if "has no effect here" in str(w.message)]
        assert [text.split(": ")[1].rstrip(".") for text in texts] == expected


@dataclass
class ListedConfig(MappoConfig):
    sizes: list[int] = field(default_factory=lambda: [1, 2])


def test_a_default_that_is_made_anew_was_not_given(small_experiment, monkeypatch):
    class Listed(Mappo):
        def idle_settings(self):
            return {**super().idle_settings(), "sizes": "nobody reads them"}

    monkeypatch.setattr(ListedConfig, "ALGORITHM", Listed)
    assert said(small_experiment, ListedConfig()) == []
    (text,) = said(small_experiment, ListedConfig(sizes=[3]))
    assert text == "algorithm.sizes=[3] has no effect here: nobody reads them."


def test_a_memory_below_a_minibatch(small_experiment):
    sizes = {"off_policy_memory_size": 24, "off_policy_train_batch_size": 25}
    (text,) = said(small_experiment, QmixConfig(), **sizes)
    assert text == (
        "experiment.off_policy_memory_size=24 is less than experiment.off_policy_train_batch_size=25, "
        "so that minibatches hold the same steps several times; set a larger memory or a smaller batch."
    )
    assert said(small_experiment, MappoConfig(), **sizes) == []


def test_a_memory_below_a_collected_batch(small_experiment):
    (text,) = said(small_experiment, QmixConfig(), off_policy_memory_size=23)
    assert text == (
        "experiment.off_policy_memory_size=23 is less than the 24 steps that are collected at once, so that "
        "not all of them are kept; set a larger memory, or collect fewer "
        "(experiment.off_policy_collected_frames_per_batch)."
    )
    assert said(small_experiment, QmixConfig(), off_policy_memory_size=24) == []


def test_pictures_in_training(tmp_path):
    with pytest.warns(UserWarning, match=r"experiment\.render=true has no effect .*evaluate RUN"):
        short_experiment(tmp_path, "experiment.render=true").close()
