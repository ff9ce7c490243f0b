"""MAT and MAT-Dec in BenchMARL and in our experiment: every kind of task and network, and what they learn."""

import pytest
import torch
from benchmarl.environments import VmasTask
from benchmarl_runs import IGNORED, STATEFUL, THEIR_GRU, Metrics, assert_all_move
from discrete_teams import teams_task
from short_runs import short_experiment
from torchrl.envs.utils import ExplorationType, set_exploration_type
from toy_games import meet_task, recall_task

from marl_td.algorithms.mat import MatConfig, MatDecConfig
from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.collect.collector import CompiledCollector

pytestmark = IGNORED

SMALL = {"embed_dim": 8}
OWN = {"share_policy_params": False}
SEPARATE = {"share_param_critic": False, "advantage_norm": "agent", "agent_id": True}


def tag() -> VmasTask:
    """Three adversaries against one agent, of another observation size; continuous."""
    return VmasTask.SIMPLE_TAG.get_from_yaml()


CASES = {
    "discrete": (teams_task(blue=0, masked=False, has_state=False), {}, {}),
    "masked, two groups": (teams_task(), {"value_norm": "none", "n_heads": 2}, {}),
    "masked, dead, per agent": (teams_task(mortal=True), {**SEPARATE, "n_blocks": 2}, OWN),
    "GRU, dead": (teams_task(mortal=True), {"value_norm": "running"}, {"model": STATEFUL}),
    "GRU per agent, chunks": (teams_task(), {"chunk_length": 4}, {**OWN, "model": STATEFUL}),
    "BenchMARL's GRU": (teams_task(), {"chunk_length": 4}, {"model": THEIR_GRU}),
    "continuous, two groups": (tag(), {"use_tanh_normal": False}, {}),
    "continuous, two groups, GRU": (tag(), {"n_blocks": 2}, {"model": STATEFUL}),
}


@pytest.mark.parametrize("config", [MatConfig, MatDecConfig])
@pytest.mark.parametrize("case", CASES)
def test_two_iterations_of_every_kind(case, config, small_experiment):
    """Each parameter moves, each metric is there and finite, in every group."""
    task, options, settings = CASES[case]
    metrics = Metrics()
    # The authors' initialisation leaves next to nothing of the gradient in queries and keys.
    config = config(**SMALL, actor_gain=1.0, **options)
    experiment = small_experiment(
        config, task, callbacks=[metrics], lr=1e-2, adam_eps=1e-12, **settings
    )

    def asks_nobody(group, name):
        """One agent has nobody else to look at: what it asks and is asked by makes no difference."""
        return len(experiment.group_map[group]) == 1 and name.split(".")[-2] in ("query", "key")

    assert_all_move(experiment, metrics, asks_nobody)


# -------------------------------------------------------------------- the number
def collected(small_experiment, task, config=MatConfig, **options):
    """A batch of both groups, drawn agent after agent by a policy that is not the first one."""
    experiment = small_experiment(config(**SMALL, actor_gain=1.0, **options), task)
    for parameter in experiment.policy.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    batch = next(iter(experiment.collector))
    experiment._on_batch_collected(batch)
    experiment.close()
    return experiment, batch


TASKS = {
    "discrete": (teams_task(masked=False), {}),
    "masked, dead": (teams_task(mortal=True), {"n_blocks": 2, "n_heads": 2}),
    "squashed": (tag(), {"n_blocks": 2}),
    "normal": (tag(), {"use_tanh_normal": False}),
}


@pytest.mark.parametrize("case", TASKS)
def test_probabilities_in_one_pass_equal_those_of_acting_agent_after_agent(case, small_experiment):
    task, options = TASKS[case]
    experiment, batch = collected(small_experiment, task, **options)
    for group, loss in experiment.losses.items():
        with torch.no_grad():
            distribution = loss.distribution(loss.trunk(batch.clone()))
            found = distribution.log_prob(batch[group, "action"])
        torch.testing.assert_close(found, batch[group, "log_prob"], rtol=1e-4, atol=1e-4)
        assert batch[group, "log_prob"].std() > 0.01


@pytest.mark.parametrize("case", TASKS)
def test_no_agent_sees_its_own_or_a_later_action_and_each_sees_the_earlier_ones(
    case, small_experiment
):
    task, options = TASKS[case]
    experiment, batch = collected(small_experiment, task, **options)
    for group, loss in experiment.losses.items():
        n_agents = len(experiment.group_map[group])
        data = loss.trunk(batch.clone())
        decoder, key = loss.actor[0], (group, "action")
        before = decoder(data.clone())[group, "logits"]
        for agent in range(n_agents):
            other = data.clone()
            taken = other[key][:, :, agent]
            changed = taken + 0.5 if taken.is_floating_point() else (taken + 1) % 3
            other[key][:, :, agent] = changed
            after = decoder(other)[group, "logits"]
            assert torch.equal(after[:, :, : agent + 1], before[:, :, : agent + 1])
            alive = data.get((group, "mask"), None)
            lives = alive[:, :, agent] if alive is not None else torch.ones(4, 6, dtype=torch.bool)
            differs = (after != before).any(-1)[:, :, agent + 1 :]
            assert differs[lives].all() and not differs[~lives].any()


def test_deterministic_actions_are_each_agents_best_given_the_earlier_ones(small_experiment):
    experiment, batch = collected(small_experiment, teams_task())
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        data = experiment.policy(batch.clone())
    loss = experiment.losses["blue"]
    with torch.no_grad():
        found = loss.distribution(loss.trunk(data)).probs
    assert torch.equal(found.argmax(-1), data["blue", "action"])


def test_what_the_dead_see_changes_nothing(small_experiment):
    experiment, batch = collected(small_experiment, teams_task(mortal=True), n_blocks=2)
    dead = ~batch["blue", "mask"]
    assert dead.any()
    other = batch.clone()
    key = ("blue", "observation")
    other[key] = torch.where(dead.unsqueeze(-1), other[key] + 7.0, other[key])
    loss = experiment.losses["blue"]
    values = [loss.whole_critic(data)["blue", "state_value"] for data in (batch, other)]
    assert torch.equal(*values)


# --------------------------------------------------------------------- the family
@pytest.mark.parametrize("config", [MatConfig, MatDecConfig])
@pytest.mark.parametrize("length", [0, 4])
def test_the_first_ratio_is_1(config, length, small_experiment):
    """In every iteration, also from a stored hidden state in mid-episode."""
    metrics = Metrics()
    small_experiment(
        config(**SMALL, chunk_length=length),
        recall_task(),
        model=STATEFUL,
        callbacks=[metrics],
        lr=1e-2,
        max_n_iters=3,
        on_policy_minibatch_size=24,
        on_policy_n_envs_per_worker=8,
    ).run()
    divergence = torch.stack([values["kl_approx"] for _, values in metrics.seen])
    assert divergence[:, 0].abs().max() < 1e-6
    assert divergence[:, 1].max() > 1e-6


def test_mat_needs_everybodys_observation_and_mat_dec_does_not(small_experiment):
    """A change of another agent's observation changes an agent's probabilities, or not."""
    for config, depends in ((MatConfig, True), (MatDecConfig, False)):
        experiment, batch = collected(small_experiment, teams_task(blue=0), config)
        loss = experiment.losses["red"]
        logits = []
        for shift in (0.0, 1.0):
            data = batch.clone()
            data["red", "observation"][..., 1, :] += shift
            data = loss.trunk(data) if depends else data
            logits.append(loss.distribution(data).logits[..., 0, :])
        assert torch.equal(*logits) is not depends


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embed_dim": 0}, r"embed_dim must be at least 1; got 0"),
        ({"n_blocks": 0}, r"n_blocks must be at least 1; got 0"),
        ({"n_heads": 3}, r"embed_dim must be a multiple of n_heads; got 64 and 3"),
        ({"clip_epsilon": 0.0}, r"clip_epsilon must be in \[1e-06, 0.999\]; got 0"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    for config in (MatConfig, MatDecConfig):
        with pytest.raises(ValueError, match=message):
            config(**options)


@pytest.mark.parametrize("model", [None, STATEFUL], ids=["mlp", "GRU"])
def test_rollouts_are_one_graph(model, small_experiment):
    experiment = small_experiment(
        MatConfig(**SMALL, agent_id=True), MarlTdTask.TWO_STEP.get_from_yaml(), model=model
    )
    experiment.collector.shutdown()
    env = experiment.env_func()
    env.set_seed(0)
    collector = CompiledCollector(env, experiment.policy, frames_per_batch=24, backend="eager")
    batch = next(iter(collector))
    data = experiment.algorithm.process_batch("agents", batch)
    assert data["agents", "value_target"].isfinite().all()
    assert ("agents", "encoding") not in batch.keys(True)


@pytest.mark.parametrize("name", ["mat", "mat_dec"])
def test_our_experiment_trains(name, tmp_path):
    experiment = short_experiment(
        tmp_path / "run",
        f"algorithm=marl_td/{name}",
        "experiment.on_policy_collected_frames_per_batch=20",
        "experiment.on_policy_n_envs_per_worker=10",
        "experiment.on_policy_n_minibatch_iters=2",
        "experiment.on_policy_minibatch_size=20",
    )
    experiment.run()
    assert (tmp_path / "run" / "policy").is_dir()


# ---------------------------------------------------------------------- learning
LEARN = {
    "on_policy_n_envs_per_worker": 64,
    "on_policy_n_minibatch_iters": 8,
    "lr": 3e-3,
    "gamma": 0.99,
}


def evaluated(experiment, n_envs: int = 200) -> float:
    """Mean return of the policy acting at its mode, over fresh episodes."""
    env = experiment.task.get_env_fun(n_envs, experiment.continuous_actions, 99, "cpu")()
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        rollout = env.rollout(experiment.max_steps, experiment.policy)
    return rollout["next", "agents", "reward"].sum(1).mean().item()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_learns_continuous_actions_from_observations(seed, small_experiment):
    """Random -2/3, doing nothing -1/3, best 0; the second agent sees what the first chose."""
    settings = {"on_policy_collected_frames_per_batch": 256, "on_policy_minibatch_size": 256}
    experiment = small_experiment(
        MatConfig(embed_dim=32), meet_task(), seed=seed, max_n_iters=20, **LEARN, **settings
    )
    experiment.run()
    assert evaluated(experiment) > -0.05


@pytest.mark.parametrize("config", [MatConfig, MatDecConfig])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_finds_the_best_equilibrium(seed, config, small_experiment):
    """Three equilibria pay 1, 2 and 3; uniformly random play makes 2/3, the second best is 2."""
    payoff = [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]]
    game = {**MarlTdTask.MATRIX_GAME.get_from_yaml().config, "payoff": payoff}
    settings = {"on_policy_collected_frames_per_batch": 64, "on_policy_minibatch_size": 64}
    task = MarlTdTask.MATRIX_GAME.get_task(game)
    experiment = small_experiment(
        config(embed_dim=32), task, seed=seed, max_n_iters=15, **LEARN, **settings
    )
    experiment.run()
    assert evaluated(experiment) > 2.5
