"""MAPPO in unchanged BenchMARL: every kind of task and network, reload, messages, and what it learns."""

import pytest
import torch
from benchmarl.environments import VmasTask
from benchmarl.experiment import Experiment
from benchmarl_runs import IGNORED, STATEFUL, THEIR_GRU, Metrics, assert_all_move
from discrete_teams import teams_task
from torchrl.envs.utils import ExplorationType, set_exploration_type
from toy_games import broken_task, meet_task, recall_task

from marl_td.algorithms.mappo import MappoConfig
from marl_td.algorithms.recurrent import chunk
from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.losses.value_norm import PopArt

pytestmark = IGNORED

METRICS = {"loss_objective", "loss_critic", "entropy", "kl_approx", "clip_fraction"}
METRICS |= {"explained_variance", "grad_norm_loss_objective", "grad_norm_loss_critic"}


def tag() -> VmasTask:
    """Three adversaries against one agent, of another observation size."""
    return VmasTask.SIMPLE_TAG.get_from_yaml()


SEPARATE = {"share_param_critic": False, "value_norm": "popart", "advantage_norm": "agent"}
OWN = {"share_policy_params": False}
SPECIFIC = {"agent_specific_state": True}
CASES = {
    "discrete": (teams_task(blue=0, masked=False, has_state=False), {}, {}),
    "discrete, per agent": (teams_task(blue=0, masked=False), SEPARATE, OWN),
    "masked, two groups": (teams_task(), {"value_norm": "none", "huber_delta": 0.0}, {}),
    "masked, two groups, dead": (teams_task(mortal=True, has_state=False), SPECIFIC, {}),
    "masked, per agent, dead": (teams_task(mortal=True), {**SEPARATE, **SPECIFIC}, OWN),
    "masked, own group": (teams_task(has_state=False), {"critic_scope": "group"}, {}),
    "masked, independent critics": (teams_task(), {"critic_scope": "agent"}, {}),
    "masked, stateful": (teams_task(mortal=True), {}, {"model": STATEFUL}),
    "masked, stateful chunks, per agent": (
        teams_task(),
        {**SEPARATE, "chunk_length": 4},
        {**OWN, "model": STATEFUL},
    ),
    "masked, BenchMARL's GRU": (teams_task(), {"chunk_length": 4}, {"model": THEIR_GRU}),
    "continuous, two groups": (tag(), {"use_tanh_normal": False}, {}),
    "continuous, two groups, per agent": (tag(), {**SEPARATE, **SPECIFIC}, OWN),
    "continuous, stateful chunks": (tag(), {"chunk_length": 4, **SPECIFIC}, {"model": STATEFUL}),
}


@pytest.mark.parametrize("case", CASES)
def test_two_iterations_of_every_kind(case, small_experiment):
    """Each parameter of actor and critic moves, each metric is there and finite, in every group."""
    task, options, settings = CASES[case]
    metrics = Metrics()
    experiment = small_experiment(MappoConfig(**options), task, callbacks=[metrics], **settings)
    assert_all_move(experiment, metrics)
    assert all(set(values) == METRICS for _, values in metrics.seen)


# ------------------------------------------------------------- recurrence
@pytest.mark.parametrize("length", [0, 4])
def test_the_first_ratio_is_1_from_a_stored_state(length, small_experiment):
    """In every iteration, also for rows that start in mid-episode; BenchMARL's GRU starts from zero."""
    divergence = {}
    for name, model in (("stateful", STATEFUL), ("theirs", THEIR_GRU)):
        metrics = Metrics()
        small_experiment(
            MappoConfig(chunk_length=length),
            recall_task() if length else tag(),
            model=model,
            callbacks=[metrics],
            lr=1e-2,
            max_n_iters=3,
            on_policy_collected_frames_per_batch=24,
            on_policy_minibatch_size=24,
            on_policy_n_envs_per_worker=4 if length == 0 else 8,
        ).run()
        divergence[name] = [float(values["kl_approx"][0]) for _, values in metrics.seen]
    assert max(divergence["stateful"]) < 1e-6
    assert max(divergence["theirs"]) > 1e-6


def test_the_critics_state_goes_on_over_batches(small_experiment):
    """Values of a row that starts in mid-episode are those of the whole history."""
    experiment = small_experiment(
        MappoConfig(value_norm="none"),
        tag(),
        model=STATEFUL,
        on_policy_collected_frames_per_batch=16,
    )
    algorithm, loss = experiment.algorithm, experiment.losses["agent"]
    batches = [batch.clone() for _, batch in zip(range(2), experiment.collector, strict=False)]
    for callback in experiment.callbacks:
        for batch in batches:
            callback.on_batch_collected(batch)
    whole = torch.cat([batch.clone() for batch in batches], dim=1)
    values = [algorithm.process_batch("agent", batch)["agent", "state_value"] for batch in batches]
    assert not batches[1]["is_init"].any()
    with torch.no_grad():
        expected = loss.critic(whole)["agent", "state_value"]
    torch.testing.assert_close(torch.cat(values, dim=1), expected)


def test_chunks_by_hand():
    """Rows of 5 in chunks of 2: the last is filled up with copies that do not count."""
    from tensordict import TensorDict

    rows = TensorDict({"x": torch.arange(10).reshape(2, 5)}, [2, 5])
    out = chunk(rows, 2)
    assert out["x"].tolist() == [[0, 1], [2, 3], [4, 4], [5, 6], [7, 8], [9, 9]]
    assert out["step_mask"].squeeze(-1).tolist() == [[True, True], [True, True], [True, False]] * 2
    assert chunk(rows, 5)["step_mask"].all()


# ------------------------------------------------------------------ reload
@pytest.mark.parametrize("options", [{}, {**SEPARATE}])
def test_a_reloaded_experiment_is_the_same_and_goes_on(options, small_experiment):
    settings = {"share_policy_params": not options, "checkpoint_at_end": True}
    experiment = small_experiment(MappoConfig(**options), meet_task(), **settings)
    experiment.run()
    (checkpoint,) = (experiment.folder_name / "checkpoints").glob("*.pt")
    reloaded = Experiment.reload_from_file(str(checkpoint), {"max_n_iters": 3})
    ours, theirs = experiment.losses["agents"], reloaded.losses["agents"]
    assert ours.value_norm.weight.min() > 0.0
    state = theirs.state_dict()
    for key, value in ours.state_dict().items():
        same = torch.equal(state[key], value) if torch.is_tensor(value) else state[key] == value
        assert same, key
    data = experiment.test_env.rollout(1)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        expected = experiment.policy(data.clone())["agents", "action"]
        assert torch.equal(reloaded.policy(data.clone())["agents", "action"], expected)
    reloaded.run()
    assert reloaded.n_iters_performed == 3
    if options:
        assert isinstance(theirs.value_norm, PopArt)
        assert theirs.value_norm._output_layer[0].data_ptr() in {
            p.data_ptr() for p in theirs.critic.parameters()
        }


# ---------------------------------------------------------------- messages
@pytest.mark.parametrize("continuous", [True, False])
def test_an_observation_that_is_not_a_number_stops_the_run(continuous, small_experiment):
    settings = {"prefer_continuous_actions": continuous}
    experiment = small_experiment(MappoConfig(), broken_task(), **settings)
    with pytest.raises(ValueError, match=r"'agents\.observation' is nan at index \[2, 0, 1, 0\]"):
        experiment.run()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_epsilon": 0.0}, r"clip_epsilon must be in \[1e-06, 0.999\]; got 0"),
        ({"entropy_coef": -0.1}, r"entropy_coef must be at least 0; got -0.1"),
        ({"critic_coef": float("nan")}, r"critic_coef must be at least 0; got nan"),
        ({"lmbda": 1.5}, r"lmbda must be in \[0, 1\]; got 1.5"),
        ({"clip_value": -1.0}, r"clip_value must be at least 0; got -1"),
        ({"huber_delta": -1.0}, r"huber_delta must be at least 0; got -1"),
        ({"chunk_length": -1}, r"chunk_length must be at least 0; got -1"),
        ({"value_norm_beta": 1.0}, r"value_norm_beta must be in \[0, 1\]; got 1"),
        (
            {"value_norm": "popArt"},
            r"value_norm must be one of none, running, popart; got 'popArt'",
        ),
        ({"advantage_norm": "x"}, r"advantage_norm must be one of none, team, agent; got 'x'"),
        (
            {"critic_scope": "all"},
            r"critic_scope must be one of agent, group, environment; got 'all'",
        ),
        ({"critic_scope": "agent", **SPECIFIC}, "critic_scope=agent there is nothing else"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MappoConfig(**options)


def test_settings_reach_the_loss(small_experiment):
    config = MappoConfig(
        clip_epsilon=0.13,
        entropy_coef=0.02,
        critic_coef=0.7,
        clip_value=0.0,
        huber_delta=0.0,
        value_norm_beta=0.9,
        advantage_norm="agent",
        mask_dead_values=True,
    )
    with pytest.warns(UserWarning, match="mask_dead_values=True has no effect here: nobody dies"):
        loss = small_experiment(config, meet_task()).losses["agents"]
    assert (loss.clip_epsilon, loss.entropy_coeff, loss.critic_coeff) == (0.13, 0.02, 0.7)
    assert loss.clip_value is None
    assert loss.huber_delta is None
    assert loss.value_norm.beta == 0.9
    assert loss.normalize_advantage_exclude_dims == (-1,)
    assert loss.mask_dead_values
    assert loss.value_norm.n_agents is None
    other = MappoConfig(share_param_critic=False, clip_value=0.3, huber_delta=2.0)
    loss = small_experiment(other, meet_task()).losses["agents"]
    assert (loss.clip_value, loss.huber_delta, loss.value_norm.n_agents) == (0.3, 2.0, 2)
    assert loss.normalize_advantage_exclude_dims == ()


# ---------------------------------------------------------------- learning
LEARN = {
    "on_policy_n_envs_per_worker": 64,
    "on_policy_n_minibatch_iters": 8,
    "lr": 1e-2,
    "gamma": 0.99,
}


def evaluated(experiment: Experiment, n_envs: int = 200) -> float:
    """Mean return of the policy acting at its mode, over fresh episodes."""
    env = experiment.task.get_env_fun(n_envs, experiment.continuous_actions, 99, "cpu")()
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        if experiment.model_config.is_rnn:
            env = experiment.test_env  # it carries the hidden state
        rollout = env.rollout(experiment.max_steps, experiment.policy)
    return rollout["next", "agents", "reward"].sum(1).mean().item()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_finds_the_best_equilibrium(seed, small_experiment):
    """Three equilibria pay 1, 2 and 3; uniformly random play makes 2/3, the second best is 2."""
    payoff = [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]]
    config = {**MarlTdTask.MATRIX_GAME.get_from_yaml().config, "payoff": payoff}
    settings = {"on_policy_collected_frames_per_batch": 64, "on_policy_minibatch_size": 64}
    task = MarlTdTask.MATRIX_GAME.get_task(config)
    experiment = small_experiment(
        MappoConfig(), task, seed=seed, max_n_iters=15, **LEARN, **settings
    )
    experiment.run()
    assert evaluated(experiment) > 2.5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_learns_continuous_actions_from_observations(seed, small_experiment):
    """Random -2/3, doing nothing -1/3, best 0."""
    settings = {"on_policy_collected_frames_per_batch": 256, "on_policy_minibatch_size": 256}
    experiment = small_experiment(
        MappoConfig(), meet_task(), seed=seed, max_n_iters=15, **LEARN, **settings
    )
    experiment.run()
    assert evaluated(experiment) > -0.05


def test_memory_is_learned_from_rows_that_start_in_mid_episode(small_experiment):
    """Recall what was seen three steps ago: 1 with memory, 0.5 without; rows of 6 steps, episodes of 4."""
    experiment = small_experiment(
        MappoConfig(),
        recall_task(),
        model=STATEFUL,
        max_n_iters=20,
        evaluation_episodes=200,
        on_policy_collected_frames_per_batch=6 * 64,
        on_policy_minibatch_size=6 * 64,
        **LEARN,
    )
    experiment.run()
    assert evaluated(experiment) > 0.9
