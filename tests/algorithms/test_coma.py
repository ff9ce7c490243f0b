"""COMA in unchanged BenchMARL and in our experiment: every kind of task and network, and what it learns."""

from dataclasses import replace

import pytest
import torch
from benchmarl_runs import IGNORED, STATEFUL, THEIR_GRU, Metrics, assert_all_move
from discrete_teams import teams_task
from short_runs import short_experiment
from torchrl.envs.utils import ExplorationType, set_exploration_type
from toy_games import meet_task

from marl_td.algorithms.coma import ComaConfig
from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.collect.collector import CompiledCollector

pytestmark = IGNORED

OWN = {"share_policy_params": False}
TOLD = {"last_action": True, "agent_id": True}
SEPARATE = {"share_param_critic": False, "value_norm": "running"}
CASES = {
    "one group, no state": (teams_task(blue=0, masked=False, has_state=False), {}, {}),
    "masked, two groups, told": (teams_task(), {**TOLD, "huber_delta": 1.0}, {}),
    "masked, dead, per agent": (teams_task(mortal=True), {**SEPARATE, "team_reward": "none"}, OWN),
    "own group, dead not valued": (
        teams_task(mortal=True, has_state=False),
        {"critic_scope": "group", "mask_dead_values": True, "team_reward": "sum"},
        {},
    ),
    "GRU, told": (teams_task(mortal=True), TOLD, {"model": STATEFUL}),
    "GRU per agent, chunks": (
        teams_task(),
        {**SEPARATE, "chunk_length": 4},
        {**OWN, "model": STATEFUL},
    ),
    "GRU critic": (
        teams_task(mortal=True),
        {"chunk_length": 4},
        {"critic_model": replace(STATEFUL)},
    ),
    "BenchMARL's GRU": (teams_task(), {"chunk_length": 4}, {"model": THEIR_GRU}),
}


@pytest.mark.parametrize("case", CASES)
def test_two_iterations_of_every_kind(case, small_experiment):
    """Each live parameter moves, each metric is there and finite, in every group."""
    task, options, settings = CASES[case]
    metrics = Metrics()
    experiment = small_experiment(ComaConfig(**options), task, callbacks=[metrics], **settings)
    assert_all_move(experiment, metrics)


# ------------------------------------------------------------------ the critic
@pytest.mark.parametrize("shared", [True, False])
def test_values_depend_on_all_actions_but_the_agents_own(shared, small_experiment):
    experiment = small_experiment(
        ComaConfig(share_param_critic=shared, last_action=True),
        teams_task(masked=False, has_state=False),
    )
    batch = next(iter(experiment.collector))
    experiment._on_batch_collected(batch)
    experiment.close()
    critic = experiment.losses["blue"].critic
    value = critic(batch.clone())["blue", "action_value"]
    for agent in range(3):
        other = batch.clone()
        other["blue", "action"][..., agent] = (other["blue", "action"][..., agent] + 1) % 3
        changed = (critic(other)["blue", "action_value"] != value).any(-1)
        assert not changed[..., agent].any()
        assert changed[..., [i for i in range(3) if i != agent]].all()
    for key in (("joint", "red", "action"), ("blue", "last_action")):
        other = batch.clone()
        other[key] = (other[key] + 1) % 3
        assert (critic(other)["blue", "action_value"] != value).any(-1).all(), key


def test_what_the_dead_do_counts_as_nothing(small_experiment):
    experiment = small_experiment(ComaConfig(), teams_task(masked=False, mortal=True, blue=0))
    batch = next(iter(experiment.collector))
    experiment.close()
    dead = ~batch["red", "mask"]
    assert dead.any()
    other = batch.clone()
    other["red", "action"] = torch.where(
        dead, (other["red", "action"] + 1) % 3, other["red", "action"]
    )
    critic = experiment.losses["red"].critic
    values = [critic(data)["red", "action_value"] for data in (batch, other)]
    assert torch.equal(*values)


def test_what_dead_rivals_do_counts_as_nothing(small_experiment):
    experiment = small_experiment(ComaConfig(), teams_task(masked=False, mortal=True))
    batch = next(iter(experiment.collector))
    experiment._on_batch_collected(batch)
    experiment.close()
    alive = batch["blue", "mask"]
    assert not alive.all()
    critic = experiment.losses["red"].critic
    value = critic(batch.clone())["red", "action_value"]
    for changed, same in ((~alive, True), (alive, False)):
        other = batch.clone()
        action = other["joint", "blue", "action"]
        other["joint", "blue", "action"] = torch.where(changed, (action + 1) % 3, action)
        assert torch.equal(critic(other)["red", "action_value"], value) is same


@pytest.mark.parametrize(("team_reward", "per_step"), [("mean", 2.0), ("sum", 4.0)])
def test_the_teams_return_goes_on_after_a_death(team_reward, per_step, small_experiment):
    """The agents get 1 and 3 a step; the first is out after the second step of four."""
    experiment = small_experiment(
        ComaConfig(lmbda=1.0, team_reward=team_reward), teams_task(blue=0), gamma=1.0
    )
    batch = next(iter(experiment.collector))[2:3, :4].clone()
    experiment.close()
    ends = [[False] * 2, [True, False], [True, False], [True, True]]
    assert batch["next", "terminated"].flatten().tolist() == [False, False, False, True]
    for name in ("done", "terminated"):
        batch["next", "red", name] = torch.tensor(ends).reshape(1, 4, 2, 1)
    batch["next", "red", "reward"] = torch.tensor([1.0, 3.0]).reshape(1, 1, 2, 1).repeat(1, 4, 1, 1)
    target = experiment.algorithm.process_batch("red", batch)["red", "value_target"]
    expected = per_step * torch.tensor([4.0, 3.0, 2.0, 1.0])
    assert torch.equal(target[0, :, :, 0], expected.unsqueeze(-1).expand(4, 2))


def test_the_critics_states_go_on_over_batches(small_experiment):
    """Targets of a row that starts in mid-episode are those of the whole history, also in the target."""
    experiment = small_experiment(
        ComaConfig(lmbda=0.0),
        teams_task(blue=0, masked=False, max_steps=9),
        model=STATEFUL,
        on_policy_collected_frames_per_batch=16,
    )
    algorithm, loss = experiment.algorithm, experiment.losses["red"]
    for parameter in loss.target_critic.parameters():
        parameter.data.add_(0.1)
    batches = [batch.clone() for _, batch in zip(range(2), experiment.collector, strict=False)]
    whole = torch.cat([batch.clone() for batch in batches], dim=1)
    parts = torch.cat([algorithm.process_batch("red", batch) for batch in batches], dim=1)
    experiment.close()
    assert not parts["is_init"][:, 4].all()
    algorithm.memories["red"].last.clear()
    expected = algorithm.process_batch("red", whole)
    key = "red_critic_gru_0"
    assert expected[key].abs().sum() > 0
    torch.testing.assert_close(parts[key], expected[key])
    targets = [data["red", "value_target"][:, 4:-1] for data in (parts, expected)]
    torch.testing.assert_close(*targets)
    assert "target_red_critic_gru_0" not in parts.keys()


# ------------------------------------------------------------------ the policy
def test_the_floor_falls_and_evaluation_takes_the_most_probable_action(small_experiment):
    experiment = small_experiment(
        ComaConfig(),
        teams_task(blue=0),
        exploration_anneal_frames=48,
        exploration_eps_init=0.8,
        exploration_eps_end=0.2,
        max_n_iters=1,
    )
    head = experiment.group_policies["red"][-1]
    experiment.run()  # 24 frames: half of the way
    assert head.eps.item() == pytest.approx(0.5, rel=1e-3)
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        rollout = experiment.test_env.rollout(4, experiment.policy)
    logits = rollout["red", "logits"].masked_fill(~rollout["red", "action_mask"], -torch.inf)
    assert torch.equal(logits.argmax(-1), rollout["red", "action"])
    half = experiment.losses["red"].distribution(rollout).probs
    least = 0.5 / rollout["red", "action_mask"].sum(-1, keepdim=True)
    assert ((half >= least - 1e-6) == rollout["red", "action_mask"]).all()


@pytest.mark.parametrize("model", [None, STATEFUL], ids=["mlp", "GRU"])
def test_the_first_step_on_a_batch_is_on_the_policy_that_acted(model, small_experiment):
    metrics = Metrics()
    small_experiment(
        ComaConfig(chunk_length=4 if model else 0, last_action=True),
        teams_task(mortal=True),
        model=model,
        callbacks=[metrics],
        lr=1e-2,
        max_n_iters=3,
        on_policy_minibatch_size=24,
    ).run()
    divergence = torch.stack([values["kl_approx"] for _, values in metrics.seen])
    assert divergence[:, 0].abs().max() < 1e-6
    assert divergence[:, 1].max() > 1e-6


def test_continuous_actions_are_refused(small_experiment):
    with pytest.raises(Exception, match=r"not compatible with the action space of task .*meet"):
        small_experiment(ComaConfig(), meet_task())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lmbda": 1.5}, r"lmbda must be in \[0, 1\]; got 1.5"),
        ({"actor_gain": 0.0}, r"actor_gain must be at least 1e-06; got 0"),
        ({"entropy_coef": -0.1}, r"entropy_coef must be at least 0; got -0.1"),
        ({"huber_delta": -1.0}, r"huber_delta must be at least 0; got -1"),
        ({"value_norm": "popart"}, r"value_norm must be one of none, running; got 'popart'"),
        ({"team_reward": "max"}, r"team_reward must be one of mean, sum, none; got 'max'"),
        ({"critic_scope": "agent"}, r"critic_scope must be one of environment, group; got 'agent'"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ComaConfig(**options)


# ---------------------------------------------------------------- ours, learning
@pytest.mark.parametrize("model", [None, STATEFUL], ids=["mlp", "GRU"])
def test_rollouts_are_one_graph(model, small_experiment):
    experiment = small_experiment(
        ComaConfig(last_action=True), MarlTdTask.TWO_STEP.get_from_yaml(), model=model
    )
    experiment.collector.shutdown()
    env = experiment.env_func()
    env.set_seed(0)
    collector = CompiledCollector(env, experiment.policy, frames_per_batch=24, backend="eager")
    batch = next(iter(collector))
    data = experiment.algorithm.process_batch("agents", batch)
    assert data["agents", "value_target"].isfinite().all()


def test_our_experiment_trains(tmp_path):
    experiment = short_experiment(
        tmp_path / "run",
        "algorithm=marl_td/coma",
        "experiment.on_policy_collected_frames_per_batch=20",
        "experiment.on_policy_n_envs_per_worker=10",
        "experiment.on_policy_n_minibatch_iters=2",
        "experiment.on_policy_minibatch_size=20",
    )
    experiment.run()
    assert (tmp_path / "run" / "policy").is_dir()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_finds_the_best_equilibrium(seed, small_experiment):
    """Three equilibria pay 1, 2 and 3; uniformly random play makes 2/3, the second best is 2."""
    payoff = [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]]
    config = {**MarlTdTask.MATRIX_GAME.get_from_yaml().config, "payoff": payoff}
    experiment = small_experiment(
        ComaConfig(critic_steps=16),
        MarlTdTask.MATRIX_GAME.get_task(config),
        seed=seed,
        max_n_iters=60,
        lr=1e-2,
        gamma=0.99,
        exploration_eps_init=0.5,
        exploration_eps_end=0.01,
        exploration_anneal_frames=2000,
        on_policy_n_envs_per_worker=64,
        on_policy_collected_frames_per_batch=64,
        on_policy_minibatch_size=64,
        on_policy_n_minibatch_iters=16,
    )
    experiment.run()
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        rollout = experiment.test_env.rollout(experiment.max_steps, experiment.policy)
    assert rollout["next", "agents", "reward"].mean() > 2.5
