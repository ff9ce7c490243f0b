"""QMIX in unchanged BenchMARL: every kind of task and network, replay of episodes, reload, learning."""

import copy
import json

import pytest
import torch
from benchmarl.environments import VmasTask
from benchmarl.experiment import Experiment
from benchmarl_runs import IGNORED, STATEFUL, THEIR_GRU, Metrics
from discrete_teams import teams_task
from torchrl.data import TensorDictReplayBuffer
from torchrl.envs.utils import ExplorationType, set_exploration_type
from toy_games import RECALL_RUN, meet_task, recall_task

from marl_td.algorithms.qmix import QmixConfig
from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.collect.episode_replay import EpisodeReplayBuffer
from marl_td.losses.functional.action_values import masked_argmax
from marl_td.training.compose import compose
from marl_td.training.experiment import Experiment as OurExperiment

pytestmark = IGNORED

METRICS = {"loss_value", "td_error", "global_value", "target_value", "chosen_action_value"}
METRICS |= {"grad_norm_loss_value"}
OWN = {"share_policy_params": False}
HARD = {"soft_target_update": False, "hard_target_update_frequency": 2}


CASES = {
    "two groups": (teams_task(masked=False), {"critic_scope": "group"}, {}),
    "two groups, per agent": (teams_task(masked=False, has_state=False), {"double_q": False}, OWN),
    "masked": (teams_task(has_state=False), {"hypernet_layers": 1, "state_norm": "layer"}, {}),
    "masked, dead, per agent": (teams_task(mortal=True), {"loss_function": "huber"}, OWN),
    "masked, lambda": (teams_task(mortal=True), {"lmbda": 0.6}, HARD),
    "their GRU": (teams_task(masked=False, blue=0), {}, {"model": THEIR_GRU}),
    "their GRU, per agent": (teams_task(masked=False), {}, {"model": THEIR_GRU, **OWN}),
    "masked, their GRU": (teams_task(mortal=True), {"lmbda": 0.6}, {"model": THEIR_GRU}),
    "masked, their GRU, per agent": (teams_task(has_state=False), {}, {"model": THEIR_GRU, **OWN}),
    "masked, stateful GRU": (teams_task(mortal=True), {}, {"model": STATEFUL}),
    "VMAS": (VmasTask.BALANCE.get_from_yaml(), {"team_reward": "sum"}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_two_iterations_of_every_kind(case, small_experiment):
    """Each live parameter moves, targets follow, each metric is there and finite, in every group."""
    task, options, settings = CASES[case]
    metrics = Metrics()
    experiment = small_experiment(
        QmixConfig(**options),
        task,
        callbacks=[metrics],
        prefer_continuous_actions=False,
        lr=1e-3,
        **settings,
    )
    before = copy.deepcopy({g: loss.state_dict() for g, loss in experiment.losses.items()})
    experiment.run()
    for group, loss in experiment.losses.items():
        for name, parameter in loss.named_parameters():
            assert parameter.isfinite().all(), name
            moved = not torch.equal(parameter, before[group][name])
            assert moved or name.startswith("target_mixer"), name
        kind = EpisodeReplayBuffer if loss.sequences else TensorDictReplayBuffer
        assert type(experiment.replay_buffers[group]) is kind
    assert {group for group, _ in metrics.seen} == set(experiment.group_map)
    for _, values in metrics.seen:
        assert set(values) == METRICS
        assert all(value.isfinite().all() for value in values.values())


# ------------------------------------------------------------------- replay
@pytest.mark.parametrize("model", [THEIR_GRU, STATEFUL, None])
def test_replayed_episodes_give_the_values_that_chose_the_actions(model, small_experiment):
    """Without exploration, each stored action is greedy by the values that the loss computes."""
    experiment = small_experiment(
        QmixConfig(lmbda=0.5),
        teams_task(has_state=False),
        model=model,
        exploration_eps_init=0.0,
        exploration_eps_end=0.0,
        lr=0.0,
        off_policy_collected_frames_per_batch=28,
        max_n_iters=3,
    )
    experiment.run()
    for group, replay in experiment.replay_buffers.items():
        batch = replay[:]
        assert batch["is_init"][:, 0].all()
        values = experiment.losses[group]._action_values(batch).now
        greedy = masked_argmax(values, batch[group, "action_mask"])
        real = batch["step_mask"].expand_as(greedy)
        assert torch.equal(greedy[real], batch[group, "action"][real])
        hidden = [key for key in batch.keys(True, True) if "hidden" in str(key)]
        assert not hidden


def test_sizes_count_episodes_of_the_time_limit(small_experiment):
    replay = small_experiment(
        QmixConfig(),
        teams_task(max_steps=5),
        model=STATEFUL,
        off_policy_memory_size=1001,
        off_policy_train_batch_size=32,
    ).replay_buffers["red"]
    assert (replay.storage.max_size, replay.batch_size, replay.length) == (201, 7, 5)


def test_the_buffer_may_lie_on_disk(small_experiment):
    experiment = small_experiment(
        QmixConfig(lmbda=0.5), teams_task(blue=0), buffer_device="disk", max_n_iters=1
    )
    replay = experiment.replay_buffers["red"]
    folder = experiment.folder_name / "buffer_red"
    assert str(replay.storage.scratch_dir).startswith(str(folder))
    experiment.run()


def test_too_few_steps_for_one_episode_say_so(small_experiment):
    experiment = small_experiment(
        QmixConfig(),
        recall_task(),
        model=STATEFUL,
        off_policy_collected_frames_per_batch=12,
        off_policy_n_envs_per_worker=4,
    )
    with pytest.raises(RuntimeError, match="no whole episode to learn from yet: 4 environments"):
        experiment.run()


def test_a_recurrent_critic_model_is_not_asked(small_experiment):
    """There is no critic: steps are replayed one by one, whatever the critic's settings say."""
    experiment = small_experiment(QmixConfig(), recall_task(), critic_model=THEIR_GRU)
    assert not experiment.algorithm.has_rnn
    experiment.run()
    assert experiment.replay_buffers["agents"].sample().ndim == 1


@pytest.mark.parametrize(("team_reward", "expected"), [("mean", 0.5), ("sum", 1.0)])
def test_the_teams_reward(team_reward, expected, small_experiment):
    experiment = small_experiment(QmixConfig(team_reward=team_reward), teams_task(blue=0))
    batch = next(iter(experiment.collector))
    batch["next", "red", "reward"][:] = torch.tensor([1.0, 0.0]).unsqueeze(-1)
    out = experiment.algorithm.process_batch("red", batch)
    assert (out["next", "reward"] == expected).all()
    experiment.close()


@pytest.mark.parametrize(
    ("has_state", "scope", "d_state"),
    [(True, "environment", 2), (False, "environment", 4 * (2 + 3)), (False, "group", 4 * 2)],
)
def test_the_replay_holds_of_other_groups_what_the_mixer_sees(
    has_state, scope, d_state, small_experiment
):
    """The global state, or the observations of all groups, or of this one (width 4 per agent)."""
    config, task = QmixConfig(critic_scope=scope), teams_task(has_state=has_state)
    experiment = small_experiment(config, task, max_n_iters=1)
    experiment.run()
    keys = experiment.replay_buffers["red"].sample().keys(True, True)
    joint = {key for key in keys if key[0] == "joint"}
    both = {("joint", group, "observation") for group in ("red", "blue")}
    assert joint == (both if d_state == 20 else set())
    assert experiment.losses["red"].mixer[1].d_state == d_state


# ------------------------------------------------------------------- reload
@pytest.mark.parametrize("model", [None, STATEFUL])
def test_a_reloaded_experiment_is_the_same_and_goes_on(model, small_experiment):
    experiment = small_experiment(
        QmixConfig(), teams_task(), model=model, checkpoint_at_end=True, lr=1e-2
    )
    experiment.run()
    (checkpoint,) = (experiment.folder_name / "checkpoints").glob("*.pt")
    reloaded = Experiment.reload_from_file(str(checkpoint), {"max_n_iters": 3})
    for group, loss in experiment.losses.items():
        state = reloaded.losses[group].state_dict()
        for key, value in loss.state_dict().items():
            same = torch.equal(state[key], value) if torch.is_tensor(value) else state[key] == value
            assert same, key
        replayed = (e.replay_buffers[group][:] for e in (experiment, reloaded))
        assert (next(replayed) == next(replayed)).all()
    reloaded.run()
    assert reloaded.n_iters_performed == 3


# ----------------------------------------------------------------- messages
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"loss_function": "l3"},
            "loss_function must be one of l2, l1, smooth_l1, huber; got 'l3'",
        ),
        ({"team_reward": "max"}, "team_reward must be one of mean, sum; got 'max'"),
        ({"huber_delta": 0.0}, "huber_delta must be at least 1e-06; got 0"),
        ({"lmbda": 1.5}, r"lmbda must be in \[0, 1\]; got 1.5"),
        ({"mixing_embed_dim": 0}, "mixing_embed_dim must be at least 1; got 0"),
        ({"hypernet_layers": 3}, r"hypernet_layers must be in \[1, 2\]; got 3"),
        ({"hypernet_embed": 0}, "hypernet_embed must be at least 1; got 0"),
        ({"state_norm": "batch"}, "state_norm must be one of none, layer; got 'batch'"),
        ({"critic_scope": "all"}, "critic_scope must be one of environment, group; got 'all'"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        QmixConfig(**options)


def test_settings_reach_loss_and_mixer(small_experiment):
    config = QmixConfig(
        double_q=False,
        loss_function="huber",
        huber_delta=2.0,
        lmbda=0.3,
        mixing_embed_dim=7,
        hypernet_layers=2,
        hypernet_embed=9,
        state_norm="layer",
    )
    loss = small_experiment(config, teams_task(), gamma=0.7).losses["red"]
    assert (loss.gamma, loss.returns.lmbda, loss.sequences) == (0.7, 0.3, True)
    assert (loss.double_q, loss.loss_function, loss.huber_delta) == (False, "huber", 2.0)
    mixer = loss.mixer[1]
    assert (mixer.d_embed, mixer.weight_1[0].out_features) == (7, 9)
    assert isinstance(mixer.scaled.normalise, torch.nn.LayerNorm)


def test_continuous_actions_are_refused(small_experiment):
    with pytest.raises(ValueError, match="not compatible with the action space"):
        small_experiment(QmixConfig(), meet_task())


# ----------------------------------------------------------------- learning
def evaluated(experiment: Experiment, n_envs: int = 200) -> float:
    """Mean return of the greedy policy over fresh episodes."""
    env = experiment.task.get_env_fun(n_envs, experiment.continuous_actions, 99, "cpu")()
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        if experiment.model_config.is_rnn:
            env = experiment.test_env  # it carries the hidden state
        rollout = env.rollout(experiment.max_steps, experiment.policy)
    return rollout["next", "agents", "reward"].sum(1).mean().item()


@pytest.mark.parametrize("seed", [0, 1])
def test_it_chooses_the_better_table_of_the_two_step_game(seed, small_experiment):
    """8, through an agent that must give up a sure 7; a sum of values settles for 7."""
    config = json.loads(json.dumps(MarlTdTask.TWO_STEP.get_from_yaml().config))
    experiment = small_experiment(
        QmixConfig(),
        MarlTdTask.TWO_STEP.get_task(config),
        seed=seed,
        max_n_iters=10,
        lr=5e-3,
        gamma=0.99,
        exploration_eps_init=1.0,
        exploration_eps_end=1.0,
        polyak_tau=0.1,
        off_policy_n_envs_per_worker=50,
        off_policy_collected_frames_per_batch=100,
        off_policy_n_optimizer_steps=40,
        off_policy_train_batch_size=128,
        off_policy_memory_size=1000,
    )
    experiment.run()
    assert evaluated(experiment) == 8.0


def test_benchmarl_s_gru_remembers_too(small_experiment):
    """Recall what was seen three steps ago: 1 with memory, 0.5 without; for ours see `test_memory.py`."""
    experiment = small_experiment(
        QmixConfig(lmbda=0.8), recall_task(), model=THEIR_GRU, **RECALL_RUN
    )
    experiment.run()
    assert evaluated(experiment) > 0.9


def test_the_tuned_preset_runs(tmp_path):
    """Eight episodes and one update of 128 episodes an iteration, target networks copied, not moved."""
    given = ("preset=qmix_tuned", "task=marl_td/two_step", "experiment.max_n_frames=32")
    settings = compose([*given, "experiment.evaluation=false", "experiment.compile=off"])
    settings.experiment_config.save_folder = str(tmp_path / "run")
    experiment = OurExperiment(**settings.arguments())
    experiment.run()
    buffer, updater = experiment.replay_buffers["agents"], experiment.target_updaters["agents"]
    assert (len(buffer), buffer._batch_size, buffer.storage.max_size) == (16, 128, 5000)
    assert (updater.n_steps, updater.interval, updater.tau) == (2, 25, None)
    loss = experiment.losses["agents"]
    assert (loss.sequences, loss.returns.lmbda) == (True, 0.6)
    assert experiment.group_policies["agents"][-1].eps == pytest.approx(1.0 - 0.95 * 32 / 100_000)
