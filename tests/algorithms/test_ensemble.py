"""A different algorithm for each group."""

import pytest
import torch
from benchmarl.algorithms.ensemble import EnsembleAlgorithmConfig
from benchmarl.models.mlp import MlpConfig
from benchmarl_runs import IGNORED, STATEFUL, Metrics
from discrete_teams import teams_task

from marl_td.algorithms.ensemble import EnsembleConfig
from marl_td.registry import algorithm_config
from marl_td.training.compose import compose
from marl_td.training.settings import RunSettings

pytestmark = IGNORED

PAIRS = {
    "on-policy": ("mappo", "ippo"),
    "one agent after the other": ("happo", "coma"),
    "a sequence of decisions": ("mat", "coma"),
    "beliefs": ("belief_ppo", "coma"),
    "values on fresh data": ("pqn_vdn", "coma"),
    "deterministic": ("maddpg", "matd3"),
    "soft": ("masac", "hasac"),
    "value-based": ("qmix", "vdn"),
    "mixed": ("maddpg", "iql"),
}


def ensemble(red, blue, **options):
    """Both teams' algorithms, with fields of the second one's that only it has."""
    return EnsembleConfig(
        {"red": algorithm_config(red)(), "blue": algorithm_config(blue)(**options)}
    )


@pytest.mark.parametrize("model", [None, STATEFUL], ids=["mlp", "gru"])
@pytest.mark.parametrize("pair", PAIRS)
def test_every_group_is_trained_by_its_own(pair, model, small_experiment):
    red, blue = PAIRS[pair]
    if pair == "mixed":  # a central critic over both teams would need both teams' actors
        config = EnsembleConfig(
            {"red": algorithm_config(red)(critic_scope="group"), "blue": algorithm_config(blue)()}
        )
    else:
        config = ensemble(red, blue)
    metrics = Metrics()
    experiment = small_experiment(
        config,
        teams_task(mortal=True),
        callbacks=[metrics],
        model=model,
        off_policy_n_optimizer_steps=4,
    )
    members = experiment.algorithm.algorithms_map
    for group, name in (("red", red), ("blue", blue)):
        assert type(members[group]) is algorithm_config(name).ALGORITHM
        assert experiment.losses[group] is members[group].get_loss_and_updater(group)[0]
    before = {name: value.clone() for name, value in experiment.policy.named_parameters()}
    experiment.run()
    still = [
        name
        for name, value in experiment.policy.named_parameters()
        if torch.equal(value, before[name])
    ]
    # A bias of MAT's keys adds the same to all scores of a query: attention does not depend on it.
    assert [name for name in still if not name.endswith("key.bias")] == []
    # The networks that collect are those that are trained.
    for group in ("red", "blue"):
        collected = {p.data_ptr() for p in experiment.group_policies[group].parameters()}
        trained = {p.data_ptr() for p in experiment.losses[group].parameters()}
        assert collected and collected <= trained
    assert all(value.isfinite().all() for _, values in metrics.seen for value in values.values())


@pytest.mark.parametrize("name", ["happo", "hatrpo"])
def test_a_factor_cannot_count_policies_without_probabilities(name, small_experiment):
    with pytest.raises(ValueError, match=r"PqnVdn trains values there\. Set turn_scope=group"):
        small_experiment(ensemble("pqn_vdn", name), teams_task())
    small_experiment(ensemble("pqn_vdn", name, turn_scope="group"), teams_task()).run()


def test_a_central_critic_sees_the_policies_that_are_trained(small_experiment):
    experiment = small_experiment(ensemble("maddpg", "matd3"), teams_task())
    red, blue = (experiment.losses[group] for group in ("red", "blue"))
    # Target actors are in both losses the ones that their own group's loss moves.
    assert red._actors["blue"] is blue.target_actor
    assert blue._actors["red"] is red.target_actor
    assert red.target_actor is not blue.target_actor


def test_each_group_has_sub_policies_of_its_own_number(small_experiment):
    maddpg = algorithm_config("maddpg")
    config = EnsembleConfig({"red": maddpg(ensemble_size=2), "blue": maddpg(ensemble_size=3)})
    experiment = small_experiment(config, teams_task(), off_policy_collected_frames_per_batch=240)
    batch = next(iter(experiment.collector))
    experiment.close()
    for group, size in (("red", 2), ("blue", 3)):
        assert set(batch[group, "sub_policy"].flatten().tolist()) == set(range(size))
        assert (
            experiment.test_env.observation_spec[group, "sub_policy"].space.high.max() == size - 1
        )


def test_a_group_without_sub_policies_draws_none(small_experiment):
    maddpg = algorithm_config("maddpg")
    config = EnsembleConfig({"red": maddpg(), "blue": maddpg(ensemble_size=3)})
    experiment = small_experiment(config, teams_task())
    keys = experiment.test_env.observation_spec.keys(True, True)
    assert ("blue", "sub_policy") in keys and ("red", "sub_policy") not in keys
    experiment.run()


def test_histories_of_two_lengths_are_refused(small_experiment):
    belief = algorithm_config("belief_ppo")
    config = EnsembleConfig({"red": belief(history_length=2), "blue": belief(history_length=4)})
    message = r"one history of what everybody did.*history_length=2 \(red\), 4 \(blue\)"
    with pytest.raises(ValueError, match=message):
        small_experiment(config, teams_task())
    config = EnsembleConfig({"red": belief(history_length=2), "blue": belief(history_length=2)})
    small_experiment(config, teams_task()).run()


def test_actors_of_another_kind_are_refused(small_experiment):
    with pytest.raises(
        ValueError, match=r"sees group 'blue', whose actors Iql trains.*critic_scope=group"
    ):
        small_experiment(ensemble("maddpg", "iql"), teams_task())


def test_benchmarls_own_ensemble_is_refused(small_experiment):
    config = EnsembleAlgorithmConfig(
        {"red": algorithm_config("mappo")(), "blue": algorithm_config("mappo")()}
    )
    with pytest.raises(ValueError, match=r"take marl_td\.algorithms\.ensemble\.EnsembleConfig"):
        small_experiment(config, teams_task())


def test_groups_must_be_the_environments(small_experiment):
    config = EnsembleConfig({"red": algorithm_config("mappo")()})
    with pytest.raises(ValueError, match="do not match"):
        small_experiment(config, teams_task())


def test_settings_are_saved_and_read_back(tmp_path):
    settings = compose(["algorithm=marl_td/mappo", "task=marl_td/matrix_game"])
    settings.algorithm = "marl_td.ensemble"
    settings.algorithm_config = ensemble("mappo", "mappo", clip_epsilon=0.1)
    settings.save(tmp_path / "config.yaml")
    again = RunSettings.load(tmp_path / "config.yaml")
    assert again.algorithm_config == settings.algorithm_config
    assert isinstance(again.model_config, MlpConfig)
