"""PQN-VDN in unchanged BenchMARL and in our experiment: groups, masks, networks, exploration, learning."""

import copy

import pytest
import torch
from benchmarl.models.common import SequenceModelConfig
from benchmarl.models.mlp import MlpConfig
from benchmarl_runs import IGNORED, STATEFUL, THEIR_GRU, Metrics
from discrete_teams import teams_task
from short_runs import short_experiment
from torchrl.envs.utils import ExplorationType, set_exploration_type
from toy_games import recall_task

from marl_td.algorithms.pqn_vdn import PqnVdnConfig
from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.collect.collector import CompiledCollector
from marl_td.models.gru import StatefulGruConfig
from marl_td.training.compose import compose
from marl_td.training.experiment import Experiment

pytestmark = IGNORED

OWN = {"share_policy_params": False}
CASES = {
    "single steps": (teams_task(masked=False), {"exploration": "boltzmann"}, {}),
    "masked, dead, per agent": (teams_task(mortal=True, has_state=False), {"dueling": True}, OWN),
    "GRU": (teams_task(mortal=True), {}, {"model": STATEFUL}),
    "last action, index": (teams_task(mortal=True), {"last_action": True, "agent_id": True}, {}),
    "GRU per agent, chunks": (teams_task(), {"chunk_length": 4}, {"model": STATEFUL, **OWN}),
    "BenchMARL's GRU": (teams_task(mortal=True), {"layer_norm": False}, {"model": THEIR_GRU}),
}


@pytest.mark.parametrize("case", CASES)
def test_two_iterations_of_every_kind(case, small_experiment):
    """Each parameter moves, each metric is there and finite, in every group; there is no target network."""
    task, options, settings = CASES[case]
    metrics = Metrics()
    experiment = small_experiment(
        PqnVdnConfig(**options), task, callbacks=[metrics], lr=1e-3, **settings
    )
    before = copy.deepcopy({g: loss.state_dict() for g, loss in experiment.losses.items()})
    experiment.run()
    assert experiment.on_policy
    for group, loss in experiment.losses.items():
        assert loss.target_pairs() == []
        assert experiment.target_updaters[group] is None
        for name, parameter in loss.named_parameters():
            assert parameter.isfinite().all(), name
            assert not torch.equal(parameter, before[group][name]), name
    assert {group for group, _ in metrics.seen} == set(experiment.group_map)
    for group, values in metrics.seen:
        assert set(values) == {*experiment.losses[group].out_keys, "grad_norm_loss_value"}
        assert all(value.isfinite().all() for value in values.values())
        assert len(values["loss_value"]) == 4  # two epochs of two minibatches


# ------------------------------------------------------------------ exploration
@pytest.mark.parametrize("exploration", ["epsilon_greedy", "boltzmann"])
def test_exploration_falls_in_benchmarls_on_policy_loop(exploration, small_experiment):
    falling = {"temperature_init": 4.0, "temperature_end": 1.0}
    config = PqnVdnConfig(exploration=exploration, **falling if exploration == "boltzmann" else {})
    experiment = small_experiment(
        config,
        teams_task(blue=0),
        exploration_anneal_frames=48,
        exploration_eps_init=0.8,
        exploration_eps_end=0.2,
        max_n_iters=1,
    )
    explore = experiment.group_policies["red"][-1]
    experiment.run()  # 24 frames: half of the way
    half = {"epsilon_greedy": ("eps", 0.5), "boltzmann": ("temperature", 2.0)}
    name, value = half[exploration]
    assert getattr(explore, name).item() == pytest.approx(value, rel=1e-3)


def test_what_is_collected_is_explored_and_what_is_evaluated_is_not(small_experiment):
    settings = {"on_policy_n_envs_per_worker": 50, "on_policy_collected_frames_per_batch": 500}
    experiment = small_experiment(
        PqnVdnConfig(), teams_task(blue=0, masked=False), exploration_eps_init=1.0, **settings
    )
    batch = next(iter(experiment.collector))
    greedy = batch["red", "action_value"].argmax(-1)
    share = (greedy == batch["red", "action"]).float().mean()
    assert share == pytest.approx(1 / 3, abs=0.06)
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        rollout = experiment.test_env.rollout(4, experiment.policy)
    assert torch.equal(rollout["red", "action_value"].argmax(-1), rollout["red", "action"])
    experiment.close()


# --------------------------------------------------------------------- layer norm
def norms(experiment) -> list[str]:
    """The vectors of the hidden layer's width: its bias, and what a normalisation has."""
    loss = experiment.losses["red"]
    return [name for name, p in loss.network.named_parameters() if p.shape == (16,)]


def test_hidden_layers_are_normalised_unless_told_otherwise(small_experiment):
    task = teams_task(blue=0)
    counts = []
    for layer_norm in (True, False):
        experiment = small_experiment(PqnVdnConfig(layer_norm=layer_norm), task)
        counts.append(len(norms(experiment)))
        experiment.close()
    assert counts[0] - counts[1] == 2  # weight and bias of the hidden layer's
    with pytest.raises(ValueError, match=r"the model 'gru'; use layers/mlp or layers/marl_td/gru"):
        small_experiment(PqnVdnConfig(), task, model=THEIR_GRU)


def test_a_chain_of_models_is_normalised_in_every_part(small_experiment):
    mlp = MlpConfig(num_cells=[16], activation_class=torch.nn.ReLU, layer_class=torch.nn.Linear)
    chain = SequenceModelConfig(model_configs=[mlp, copy.copy(mlp)], intermediate_sizes=[5])
    experiment = small_experiment(PqnVdnConfig(), teams_task(blue=0), model=chain)
    assert len(norms(experiment)) == 2 * 3  # bias of the layer, weight and bias of its norm
    experiment.run()


# ----------------------------------------------------------------------- ours
def test_our_experiment_trains_and_goes_on(tmp_path):
    settings = (
        "algorithm=marl_td/pqn_vdn",
        "experiment.on_policy_collected_frames_per_batch=20",
        "experiment.on_policy_n_envs_per_worker=10",
        "experiment.on_policy_n_minibatch_iters=2",
        "experiment.on_policy_minibatch_size=10",
        "experiment.exploration_anneal_frames=60",
    )
    experiment = short_experiment(tmp_path / "run", *settings)
    experiment.run()
    explore = experiment.group_policies["agents"][-1]
    assert explore.eps.item() == pytest.approx(experiment.config.exploration_eps_end, abs=1e-6)
    assert (tmp_path / "run" / "policy").is_dir()


@pytest.mark.parametrize("model", [None, STATEFUL], ids=["mlp", "GRU"])
def test_exploring_rollouts_are_one_graph(model, small_experiment):
    """Epsilon, hidden states and resets are inside it; the actions are explored."""
    experiment = small_experiment(
        PqnVdnConfig(), MarlTdTask.TWO_STEP.get_from_yaml(), model=model, exploration_eps_init=1.0
    )
    experiment.collector.shutdown()
    env = experiment.env_func()
    env.set_seed(0)
    collector = CompiledCollector(env, experiment.policy, frames_per_batch=24, backend="eager")
    batch = next(iter(collector))
    assert batch.shape == (4, 6)
    data = experiment.algorithm.process_batch("agents", batch)
    assert ("value_target" in data.keys()) is (model is None)
    greedy = batch["agents", "action_value"].argmax(-1)
    assert 0.2 < (greedy == batch["agents", "action"]).float().mean() < 0.8


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "marl_td/gru"])
def test_compiled_rollouts_and_updates(model, tmp_path):
    changes = {
        "algorithm": "marl_td/pqn_vdn",
        "task": "marl_td/two_step",
        "model": f"layers/{model}",
        "experiment.compile": "on",
        "experiment.evaluation": "false",
        "experiment.max_n_frames": "60",
        "experiment.on_policy_collected_frames_per_batch": "20",
        "experiment.on_policy_n_envs_per_worker": "10",
        "experiment.on_policy_n_minibatch_iters": "2",
        "experiment.on_policy_minibatch_size": "10",
    }
    settings = compose([f"{name}={value}" for name, value in changes.items()])
    settings.experiment_config.save_folder = str(tmp_path / "run")
    experiment = Experiment(**settings.arguments())
    experiment.run()
    assert isinstance(experiment.collector, CompiledCollector)
    assert experiment._compiled_updates["agents"] is not None


# ------------------------------------------------------------------------ learning
@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))])
def test_memory_is_learned(seed, small_experiment):
    """Recall: the cue of the first step is asked for in the fourth. 0.5 without memory, 1 with it."""
    experiment = small_experiment(
        PqnVdnConfig(lmbda=0.8),
        recall_task(),
        model=StatefulGruConfig(hidden_size=16, encoder_cells=[16]),
        seed=seed,
        max_n_iters=20,
        lr=3e-3,
        gamma=0.99,
        exploration_eps_init=1.0,
        exploration_eps_end=0.1,
        exploration_anneal_frames=10 * 256,
        on_policy_n_envs_per_worker=64,
        on_policy_collected_frames_per_batch=4 * 64,
        on_policy_minibatch_size=64,
        on_policy_n_minibatch_iters=4,
        evaluation_episodes=200,
    )
    experiment.run()
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        rollout = experiment.test_env.rollout(4, experiment.policy)
    assert rollout["next", "agents", "reward"].sum(1).mean() > 0.9


# ------------------------------------------------------------------------ messages
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lmbda": 1.5}, r"lmbda must be in \[0, 1\]; got 1.5"),
        ({"chunk_length": -1}, "chunk_length must be at least 0; got -1"),
        ({"team_reward": "max"}, "team_reward must be one of mean, sum; got 'max'"),
        ({"exploration": "ucb"}, "exploration must be one of epsilon_greedy, boltzmann; got 'ucb'"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PqnVdnConfig(**options)
