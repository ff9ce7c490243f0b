"""A network for critics that is chosen for an algorithm which makes none of it."""

import warnings

import pytest
from benchmarl.environments import task_config_registry
from benchmarl.models.mlp import MlpConfig
from benchmarl_runs import small_run
from torch import nn

from marl_td import register
from marl_td.registry import ALGORITHMS, action_kinds, algorithm_config
from marl_td.training.check import WITHOUT_CRITICS
from marl_td.training.compose import compose

TASK = "task=marl_td/two_step"


def said(*words):
    """The warnings of a command line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compose(list(words))
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    "word",
    [
        "critic_model=layers/marl_td/gru",
        "model@critic_model=layers/marl_td/gru",
        "critic_model={num_cells:[8]}",
        "critic_model=sequence",
    ],
)
@pytest.mark.parametrize("algorithm", ["marl_td/qmix", "marl_td/mat", "iql"])
def test_a_kind_of_network_that_is_chosen_in_vain(algorithm, word):
    layers = [f"model/layers@critic_model.layers.l{i}=mlp" for i in (1, 2)]
    rest = [*layers, "critic_model.intermediate_sizes=[4]"] if "sequence" in word else []
    (text,) = said(f"algorithm={algorithm}", TASK, word, *rest)
    assert text == f"{word} has no effect here: {algorithm} makes no network of critic_model."


def test_where_they_have_one_or_were_not_given_nothing_is_said():
    assert said("algorithm=marl_td/mappo", TASK, "critic_model=layers/marl_td/gru") == []
    assert said("algorithm=marl_td/qmix", TASK, "model=layers/marl_td/gru") == []
    assert said("preset=levers_ippo", "algorithm=marl_td/mat") == []
    assert said("algorithm=marl_td/qmix", TASK, "critic_model.num_cells=[8]") == []


class Watched(MlpConfig):
    """Counts the networks that are made of it."""

    made = 0

    def get_model(self, *args, **kwargs):
        Watched.made += 1
        return super().get_model(*args, **kwargs)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.filterwarnings("ignore")
def test_who_makes_networks_of_it(name, tmp_path, monkeypatch):
    register()
    monkeypatch.setattr(Watched, "made", 0)
    config = algorithm_config(name)()
    task = "two_step" if "discrete" in action_kinds(config) else "simple_spread"
    critic = Watched(num_cells=[4], layer_class=nn.Linear, activation_class=nn.Tanh)
    alone = {"share_policy_params": False} if name in ("happo", "hatrpo", "hasac") else {}
    entry = task_config_registry[f"marl_td/{task}"].get_task()
    small_run(tmp_path, config, entry, critic_model=critic, **alone).close()
    assert (Watched.made == 0) == isinstance(config, WITHOUT_CRITICS)
