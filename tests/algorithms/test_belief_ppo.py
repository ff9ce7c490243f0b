"""Belief-PPO in BenchMARL and in our experiment: tasks, networks, what is remembered, messages."""

import pytest
import torch
from benchmarl.environments import VmasTask
from benchmarl_runs import IGNORED, STATEFUL, THEIR_GRU, Metrics, assert_all_move
from discrete_teams import teams_task
from short_runs import short_experiment
from torchrl.collectors import Collector

from marl_td.algorithms.belief_ppo import BeliefPpoConfig
from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.collect.collector import CompiledCollector
from marl_td.collect.history import ActionHistory, Remembered

pytestmark = IGNORED

SMALL = {"history_length": 3, "belief_dim": 2, "belief_hidden_dim": 8}
OWN = {"share_policy_params": False}
SEPARATE = {"share_param_critic": False, "advantage_norm": "agent"}


def tag() -> VmasTask:
    """Three adversaries against one agent, of another observation size; continuous."""
    return VmasTask.SIMPLE_TAG.get_from_yaml()


CASES = {
    "discrete": (teams_task(red=3, blue=0, masked=False, has_state=False), {}, {}),
    "masked, two groups": (teams_task(), {"value_norm": "none", "critic_scope": "group"}, {}),
    "masked, dead, per agent": (teams_task(mortal=True), {**SEPARATE, "belief_beta": 0.0}, OWN),
    "mean, all groups": (
        teams_task(mortal=True),
        {"belief_pooling": "mean", "critic_scope": "environment"},
        {},
    ),
    "GRU, dead": (teams_task(mortal=True), {"value_norm": "running"}, {"model": STATEFUL}),
    "GRU per agent, chunks": (teams_task(), {"chunk_length": 4}, {**OWN, "model": STATEFUL}),
    "BenchMARL's GRU": (teams_task(), {"chunk_length": 4}, {"model": THEIR_GRU}),
    "continuous, two groups": (tag(), {"use_tanh_normal": False}, {}),
    "continuous, per agent": (tag(), SEPARATE, OWN),
}


@pytest.mark.parametrize("case", CASES)
def test_two_iterations_of_every_kind(case, small_experiment):
    """Each parameter moves, each metric is there and finite, in every group."""
    task, options, settings = CASES[case]
    metrics = Metrics()
    config = BeliefPpoConfig(**SMALL, actor_gain=1.0, **options)
    experiment = small_experiment(
        config, task, callbacks=[metrics], lr=1e-3, adam_eps=1e-12, **settings
    )
    assert_all_move(experiment, metrics)


# ------------------------------------------------------------------- the history
def collected(small_experiment, task, n_frames: int = 48, **options):
    """An experiment and one batch ``[4, T]`` of it."""
    experiment = small_experiment(
        BeliefPpoConfig(**{**SMALL, **options}), task, on_policy_collected_frames_per_batch=n_frames
    )
    return experiment, next(iter(experiment.collector))


def expected_history(batch, group: str, first: int, n_all: int, length: int, env: int, t: int):
    """By hand, what agents of ``group`` remember before step ``t``: observations, actions, who was seen."""
    n_agents = batch[group, "observation"].shape[-2]
    observed = torch.zeros(n_agents, length, batch[group, "observation"].shape[-1])
    seen = torch.zeros(n_agents, length, n_all, dtype=torch.bool)
    joint = torch.zeros(length, n_all, dtype=torch.long)
    for age in range(1, length + 1):
        step = t - age
        if step < 0 or batch["next", "done"][env, step : step + 1].any():
            break
        names = [name for name in ("red", "blue") if name in batch.keys()]
        joint[-age] = torch.cat([batch[name, "action"][env, step] for name in names])
        alive = torch.cat([batch[name, "mask"][env, step] for name in names])
        observed[:, -age] = batch[group, "observation"][env, step]
        for agent in range(n_agents):
            seen[agent, -age] = alive
            seen[agent, -age, first + agent] = False
    return observed, joint, seen


def test_each_agent_remembers_what_it_saw_in_this_episode(small_experiment):
    """Steps that the episode does not have, own actions and what the dead do are not seen."""
    experiment, batch = collected(small_experiment, teams_task(mortal=True))
    experiment.close()
    assert batch["next", "done"].any() and not batch["next", "done"].all()
    for group, first in (("red", 0), ("blue", 2)):
        for env in range(4):
            for t in range(12):
                observed, joint, seen = expected_history(batch, group, first, 5, 3, env, t)
                assert torch.equal(batch[group, "past_observation"][env, t], observed)
                assert torch.equal(batch[group, "past_seen"][env, t], seen)
                assert torch.equal(batch["joint_history"][env, t], joint)


def test_the_target_is_what_the_others_do_now(small_experiment):
    experiment, batch = collected(small_experiment, teams_task(mortal=True))
    experiment.close()
    joint = torch.cat([batch[name, "action"] for name in ("red", "blue")], -1)
    alive = torch.cat([batch[name, "mask"] for name in ("red", "blue")], -1)
    data = experiment.algorithm.process_batch("blue", batch.exclude("red", ("next", "red")))
    assert torch.equal(data["blue", "others_action"], joint.unsqueeze(-2).expand(-1, -1, 3, -1))
    own = torch.arange(5) == torch.arange(2, 5).unsqueeze(-1)
    assert torch.equal(data["blue", "others_seen"], alive.unsqueeze(-2) & ~own)
    assert "joint_history" in data.keys() and "joint_history" not in data["next"].keys()


def test_who_is_not_seen_is_not_remembered():
    """The entry of the observation says whom each agent sees; continuous actions are padded to one width."""
    groups = {
        "a": Remembered(2, {("observation",): 1}, mortal=False, visible="sees"),
        "b": Remembered(1, {("observation",): 1}, mortal=False, visible="sees"),
    }
    history = ActionHistory(groups, length=2)
    sees = torch.tensor([[[True, True, False], [True, True, True]]])
    entries = {
        ("a", "action"): torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]),
        ("b", "action"): torch.tensor([[[5.0]]]),
        ("a", "observation"): torch.tensor([[[6.0], [7.0]]]),
        ("b", "observation"): torch.tensor([[[8.0]]]),
        ("a", "sees"): sees,
        ("b", "sees"): torch.tensor([[[False, True, True]]]),
        ("joint_history",): torch.zeros(1, 2, 3, 2),
    }
    for name, n in (("a", 2), ("b", 1)):
        entries[name, "past_seen"] = torch.zeros(1, n, 2, 3, dtype=torch.bool)
        entries[name, "past_observation"] = torch.zeros(1, n, 2, 1)
    out = history.advance(entries.__getitem__)
    assert set(out) == set(history.keys)
    assert out["joint_history",][0, 1].tolist() == [[1.0, 2.0], [3.0, 4.0], [5.0, 0.0]]
    assert (out["joint_history",][0, 0] == 0).all()
    assert out["a", "past_seen"][0, :, 1].tolist() == [[False, True, False], [True, False, True]]
    assert out["b", "past_seen"][0, :, 1].tolist() == [[False, True, False]]
    assert out["a", "past_observation"][0, :, 1].tolist() == [[6.0], [7.0]]


@pytest.mark.parametrize("model", [None, STATEFUL], ids=["mlp", "GRU"])
def test_the_compiled_rollout_remembers_the_same(model, small_experiment):
    """One graph, and the entries of TorchRL's collector for the same random numbers."""
    experiment = small_experiment(
        BeliefPpoConfig(**SMALL), MarlTdTask.TWO_STEP.get_from_yaml(), model=model
    )
    experiment.collector.shutdown()
    batches = []
    for kind in ("theirs", "ours"):
        env = experiment.env_func()
        env.set_seed(0)
        torch.manual_seed(3)
        if kind == "ours":
            options = {"frames_per_batch": 24, "backend": "eager"}
            batches.append(next(iter(CompiledCollector(env, experiment.policy, **options))))
        else:
            options = {"frames_per_batch": 24, "total_frames": -1}
            batches.append(next(iter(Collector(env, experiment.policy, **options))))
    theirs, ours = batches
    assert ours["next", "done"].any()
    for key in ("joint_history", ("agents", "past_seen"), ("agents", "past_observation")):
        for data in ((ours, theirs), (ours["next"], theirs["next"])):
            assert torch.equal(data[0].get(key), data[1].get(key)), key
    data = experiment.algorithm.process_batch("agents", ours)
    assert data["agents", "value_target"].isfinite().all()


# --------------------------------------------------------------------- the policy
def test_the_first_ratio_is_1_whatever_the_belief_became(small_experiment):
    metrics = Metrics()
    experiment = small_experiment(
        BeliefPpoConfig(**SMALL, actor_gain=1.0),
        teams_task(mortal=True),
        callbacks=[metrics],
        lr=1e-2,
        max_n_iters=3,
        on_policy_minibatch_size=24,
    )
    experiment.run()
    divergence = torch.stack([values["kl_approx"] for _, values in metrics.seen])
    assert divergence[:, 0].abs().max() < 1e-6
    assert divergence[:, 1].max() > 1e-6


def test_the_policy_depends_on_what_others_did_and_sends_the_belief_no_gradient(small_experiment):
    experiment, batch = collected(small_experiment, teams_task(masked=False), actor_gain=1.0)
    experiment.close()
    other = batch.clone()
    other["joint_history"] = (other["joint_history"] + 1) % 3
    logits = [experiment.policy(data.clone())["blue", "logits"] for data in (batch, other)]
    differs = (logits[0] != logits[1]).any(-1)
    knows = batch["blue", "past_seen"].any((-1, -2))
    assert differs[knows].all() and not differs[~knows].any()
    data = experiment.algorithm.process_batch("blue", batch.exclude("red", ("next", "red")))
    loss = experiment.losses["blue"]
    out = loss(data)
    belief = [*loss.encoder.parameters(), *loss.decoder.parameters()]
    acting = [*loss.actor.parameters(), *loss.critic.parameters()]
    ppo = out["loss_objective"] + out["loss_critic"]
    assert all(
        g is None for g in torch.autograd.grad(ppo, belief, allow_unused=True, retain_graph=True)
    )
    assert all(
        g is None for g in torch.autograd.grad(out["loss_belief"], acting, allow_unused=True)
    )


# ----------------------------------------------------------------------- messages
def test_a_wrong_entry_of_visibility_is_named(small_experiment):
    with pytest.raises(ValueError, match=r"visible_entry='sees' must be an entry .* found none"):
        small_experiment(BeliefPpoConfig(visible_entry="sees"), teams_task())
    with pytest.raises(ValueError, match=r"of shape \[2, 5\] .* found \[2, 4\]"):
        small_experiment(BeliefPpoConfig(visible_entry="observation"), teams_task())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"history_length": 0}, r"history_length must be at least 1; got 0"),
        ({"belief_dim": 0}, r"belief_dim must be at least 1; got 0"),
        ({"belief_beta": -1.0}, r"belief_beta must be at least 0; got -1"),
        ({"belief_pooling": "max"}, r"belief_pooling must be one of attention, mean; got 'max'"),
        ({"critic_scope": "all"}, r"critic_scope must be one of agent, group, environment"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BeliefPpoConfig(**options)


def test_our_experiment_trains(tmp_path):
    experiment = short_experiment(
        tmp_path / "run",
        "algorithm=marl_td/belief_ppo",
        "experiment.on_policy_collected_frames_per_batch=20",
        "experiment.on_policy_n_envs_per_worker=10",
        "experiment.on_policy_n_minibatch_iters=2",
        "experiment.on_policy_minibatch_size=20",
    )
    experiment.run()
    assert (tmp_path / "run" / "policy").is_dir()
