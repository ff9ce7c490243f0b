"""ISAC, MASAC and HASAC inside unchanged BenchMARL: specs to networks, all kinds of tasks, checkpoints."""

import math

import pytest
import torch
from benchmarl.algorithms import MasacConfig as TheirMasacConfig
from benchmarl.experiment import Experiment
from benchmarl_runs import IGNORED, STATEFUL, THEIR_GRU
from discrete_teams import teams_task
from off_policy_runs import data_of, hunt, simple_tag, snapshot

from marl_td.algorithms.hasac import HasacConfig
from marl_td.algorithms.isac import IsacConfig
from marl_td.algorithms.masac import MasacConfig

pytestmark = IGNORED


# -------------------------------------------------------------------------- it runs
@pytest.mark.parametrize(
    ("config", "task", "share_policy"),
    [
        (IsacConfig(), simple_tag, True),
        (IsacConfig(share_param_critic=False, share_alpha=False), hunt, False),
        (IsacConfig(n_steps=3), hunt, True),
        (MasacConfig(), simple_tag, True),
        (MasacConfig(share_param_critic=True, actor_gradient="own"), simple_tag, False),
        (MasacConfig(num_qvalue_nets=3, entropy_bonus="team", n_steps=2), hunt, False),
        (MasacConfig(critic_scope="group", state_and_observations=True), hunt, True),
        (MasacConfig(critic_scope="agent", value_norm="running"), hunt, True),
        (MasacConfig(coupled_discrete_values=True), hunt, True),
        (MasacConfig(use_tanh_normal=False), simple_tag, True),
        (MasacConfig(team_value=True, actor_gradient="all"), simple_tag, True),
        (HasacConfig(fixed_alpha=False), simple_tag, True),
        (HasacConfig(fixed_alpha=False, fixed_order=True, state_and_observations=True), hunt, True),
        (
            HasacConfig(fixed_alpha=False, critic_scope="group", n_steps=1, value_norm="none"),
            lambda: teams_task(max_steps=4, has_state=False),
            False,
        ),
    ],
    ids=[
        "isac, two teams",
        "isac, mixed actions, masks, deaths",
        "isac, n steps, shared actors",
        "masac, two teams",
        "masac, two teams, one critic, own actions",
        "masac, three critics, team entropy, n steps, mixed actions, masks, deaths",
        "masac, group critics with state and observations",
        "masac, independent critics of normalised values",
        "masac, coupled values",
        "masac, plain normal",
        "masac, a value per team",
        "hasac, two teams",
        "hasac, mixed actions, masks, deaths, state",
        "hasac, discrete teams",
    ],
)
def test_two_iterations(config, task, share_policy, small_experiment):
    experiment = small_experiment(config, task(), share_policy_params=share_policy, polyak_tau=0.5)
    before = snapshot(experiment)
    experiment.run()
    for group, values in snapshot(experiment).items():
        moved = [not torch.equal(a, b) for a, b in zip(values, before[group], strict=True)]
        assert all(moved), f"{moved.count(False)} parameters of '{group}' never moved"
        assert all(value.isfinite().all() for value in values)


@pytest.mark.parametrize("config", [IsacConfig, MasacConfig, HasacConfig])
@pytest.mark.parametrize("task", [simple_tag, lambda: teams_task(max_steps=4)])
@pytest.mark.parametrize("model", [STATEFUL, pytest.param(THEIR_GRU, marks=pytest.mark.slow)])
def test_recurrent_networks_learn_from_sequences(config, task, model, small_experiment):
    experiment = small_experiment(config(), task(), model=model, critic_model=model)
    before = snapshot(experiment)
    experiment.run()
    for group, values in snapshot(experiment).items():
        assert any(not torch.equal(a, b) for a, b in zip(values, before[group], strict=True))
        assert experiment.replay_buffers[group].sample().batch_size == (2, 6)


def reloaded(experiment, folder):
    """The experiment from its last checkpoint."""
    (checkpoint,) = folder.rglob("checkpoint_*.pt")
    return Experiment.reload_from_file(str(checkpoint))


def test_a_reloaded_hasac_goes_on_with_orders_and_moments(small_experiment, tmp_path):
    """In unchanged BenchMARL, which keeps no optimiser: the actors' is part of the loss."""
    experiment = small_experiment(HasacConfig(), simple_tag(), checkpoint_at_end=True, seed=3)
    experiment.run()
    again = reloaded(experiment, tmp_path)
    for index, (group, loss) in enumerate(experiment.losses.items()):
        other = again.losses[group]
        assert int(other.rounds) == int(loss.rounds) == 4
        assert int(other.order_seed) == 3 * 2 + index  # every group has orders of its own
        first, second = loss.state_dict(), other.state_dict()
        assert first.keys() == second.keys()
        tensors = [key for key in first if isinstance(first[key], torch.Tensor)]
        assert any(key.endswith("optimiser.mean") for key in tensors)
        assert all(torch.equal(first[key], second[key]) for key in tensors)
        assert torch.equal(loss._next_order(), other._next_order())
    again.close()


def test_groups_and_seeds_of_hasac_have_orders_of_their_own(small_experiment):
    orders = []
    for seed in (0, 1):
        experiment = small_experiment(HasacConfig(), teams_task(red=3, blue=3), seed=seed)
        for loss in experiment.losses.values():
            orders.append([loss._next_order().tolist() for _ in range(20)])
        experiment.close()
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])


def test_losses_of_groups_look_at_one_another_s_live_actors(small_experiment, tmp_path):
    experiment = small_experiment(MasacConfig(), simple_tag(), checkpoint_at_end=True)
    experiment.run()
    for run in (experiment, reloaded(experiment, tmp_path)):
        chasers, runner = run.losses["adversary"], run.losses["agent"]
        assert chasers._actors["agent"] is runner.actor
        assert runner._actors["adversary"] is chasers.actor
        acting = {id(p) for p in run.policy.parameters()}
        assert {id(p) for p in runner.actor.parameters()} <= acting
        own = {id(p) for p in runner.parameters()}
        assert not own & {id(p) for p in chasers.actor.parameters()}
        frozen = next(runner._frozen_critics.module.parameters())
        assert torch.equal(frozen, next(runner.critics.parameters()))


# ------------------------------------------------------------------ who sees what
@pytest.mark.parametrize(
    ("config", "group", "width", "d_out"),
    [
        # 3 hunters (4 observations, 3 actions) and the prey (2 observations, 2 actions); state of 4.
        (MasacConfig(), "hunter", 4 + 3 * 3 + 2, 3),
        (MasacConfig(), "prey", 4 + 3 * 3 + 2, 1),
        (MasacConfig(state_and_observations=True), "hunter", 4 + 3 * 4 + 2 + 3 * 3 + 2, 3),
        (MasacConfig(share_param_critic=True), "hunter", 4 + 3 * 3 + 2 + 3, 3),
        (MasacConfig(critic_scope="group"), "hunter", 4 + 3 * 3, 3),
        (MasacConfig(coupled_discrete_values=True), "hunter", 4, 3),
        (MasacConfig(coupled_discrete_values=True), "prey", 4 + 3 * 3 + 2, 1),
        (IsacConfig(), "hunter", 4, 3),
        (IsacConfig(), "prey", 2 + 2, 1),
        (HasacConfig(), "hunter", 4 + 3 * 3 + 2 + 3, 3),
        (HasacConfig(), "prey", 4 + 3 * 3 + 2, 1),
        (HasacConfig(critic_scope="group"), "prey", 4 + 2, 1),
    ],
)
def test_what_a_critic_reads_and_says(config, group, width, d_out, small_experiment):
    experiment = small_experiment(config, hunt())
    critics = experiment.losses[group].critics
    assert len(critics) == 2
    for critic in critics:
        first, *_, last = critic.parameters()
        assert first.shape[-1] == width
        assert last.shape[-1] == d_out
    starts = [next(critic.parameters()) for critic in critics]
    assert not torch.equal(*starts)
    experiment.close()


def test_a_discrete_agents_values_are_not_told_its_own_action(small_experiment):
    experiment = small_experiment(MasacConfig(), teams_task(max_steps=4))
    loss, batch = experiment.losses["red"], data_of(experiment, "red")
    changed = batch.clone()
    for place in (("red",), ("joint", "red")):
        action = changed[(*place, "action")]
        action[..., 0] = (action[..., 0] + 1) % 3
    values = [loss._values(loss.critics, b, loss._rows(loss._taken(b))) for b in (batch, changed)]
    same = (values[0] == values[1]).flatten(0, -3).all(0).all(-1)
    assert same.tolist() == [True] + [False] * (len(same) - 1)
    experiment.close()


def test_replay_holds_what_the_loss_reads_and_not_what_it_computes(small_experiment):
    experiment = small_experiment(MasacConfig(), hunt())
    for group, made in (("hunter", ["logits"]), ("prey", ["logits", "loc", "scale"])):
        batch = data_of(experiment, group)
        assert not {*made, "log_prob"} & set(batch[group].keys())
        experiment.losses[group](batch.reshape(-1))
        assert "discount" not in batch["next", group].keys()
    experiment.close()


def test_n_steps_are_one_transition_in_replay(small_experiment):
    """Rewards of two steps, what the second reaches (all groups', too), and gamma squared."""
    experiment = small_experiment(MasacConfig(n_steps=2), simple_tag(), gamma=0.5)
    batch = next(iter(experiment.collector))
    experiment._on_batch_collected(batch)
    single = batch.clone()
    data = experiment.algorithm.process_batch(
        "agent", batch.exclude(*experiment._get_excluded_keys("agent"))
    )
    done = single["next", "done"].squeeze(-1)
    alone = done.clone()
    alone[:, -1] = True
    reward = single["next", "agent", "reward"]
    later = reward.roll(-1, 1)
    expected = torch.where(alone[..., None, None], reward, reward + 0.5 * later)
    torch.testing.assert_close(data["next", "agent", "reward"], expected)
    discount = torch.where(alone[..., None, None], 0.5, 0.25).expand_as(expected)
    torch.testing.assert_close(data["next", "agent", "discount"], discount)
    for key in (("agent", "observation"), ("joint", "adversary", "observation")):
        seen = single["next"][key]
        wanted = torch.where(alone[..., None, None], seen, seen.roll(-1, 1))
        assert torch.equal(data["next"][key], wanted)
    assert alone.any() and not alone.all() and done.any()
    experiment.close()


@pytest.mark.parametrize("config", [IsacConfig, MasacConfig])
def test_n_steps_end_with_an_agents_life_where_that_ends_its_return(config, small_experiment):
    """Rewards are all 1; agent 0 dies in its second step, environment 3 is cut after its fourth."""
    task = teams_task(max_steps=4, mortal=True)
    rewards, ends = {}, {}
    for masked in (True, False):
        experiment = small_experiment(config(n_steps=3, mask_dead_values=masked), task, gamma=1.0)
        batch = next(iter(experiment.collector))
        experiment._on_batch_collected(batch)
        batch["next", "red", "reward"].fill_(1.0)
        data = experiment.algorithm.process_batch("red", batch)["next", "red"][3]
        assert data["mask"][:, 0].tolist() == [False] * 6  # in each state that is reached
        rewards[masked] = data["reward"].squeeze(-1).T.tolist()
        ends[masked] = data["terminated"].squeeze(-1).T.tolist()
        experiment.close()
    whole = [3.0, 3.0, 2.0, 1.0, 2.0, 1.0]
    assert rewards == {True: [[2.0, 1.0, 1.0, 1.0, 2.0, 1.0], whole], False: [whole, whole]}
    assert ends == {True: [[True] * 6, [False] * 6], False: [[False] * 6] * 2}


def test_n_steps_are_bootstrapped_where_an_agent_was_only_cut_off(small_experiment):
    """The time limit clears all masks, as in TorchRL's PettingZoo environments; agent 0 has died before."""
    task = teams_task(max_steps=4, mortal=True)
    experiment = small_experiment(IsacConfig(n_steps=3, mask_dead_values=True), task)
    batch = next(iter(experiment.collector))
    experiment._on_batch_collected(batch)
    ends, alive = batch["next", "truncated"], batch["red", "mask"]
    assert ends[3].flatten().tolist() == [False, False, False, True, False, False]
    batch["next", "red", "mask"] = batch["next", "red", "mask"] & ~ends
    batch["next", "red", "truncated"] = (alive & ends).unsqueeze(-1)
    data = experiment.algorithm.process_batch("red", batch)["next", "red"][3]
    assert data["terminated"].squeeze(-1).T[:, :4].tolist() == [
        [True, True, True, True],
        [False] * 4,
    ]
    experiment.close()


def test_hasac_gives_every_agent_the_teams_signals(small_experiment):
    experiment = small_experiment(HasacConfig(n_steps=1), simple_tag())
    batch = next(iter(experiment.collector))
    experiment._on_batch_collected(batch)
    mean = batch["next", "adversary", "reward"].mean(-2, keepdim=True)
    data = experiment.algorithm.process_batch("adversary", batch)
    torch.testing.assert_close(data["next", "adversary", "reward"], mean.expand(-1, -1, 3, -1))
    experiment.close()


# ---------------------------------------------------------------------- optimisers
@pytest.mark.parametrize("config", [IsacConfig(), MasacConfig(fixed_alpha=True), HasacConfig()])
def test_every_network_is_moved_by_one_optimiser(config, small_experiment):
    experiment = small_experiment(config, simple_tag())
    for group, loss in experiment.losses.items():
        learned = {id(p) for p in loss.parameters() if p.requires_grad}
        optimised = [
            id(p)
            for optimiser in experiment.optimizers[group].values()
            for p in optimiser.param_groups[0]["params"]
        ]
        if isinstance(config, HasacConfig):
            optimised += [id(p) for p in loss.optimiser.parameters_moved()]
        assert sorted(optimised) == sorted(learned)
        assert set(experiment.optimizers[group]) <= set(loss.out_keys)
    experiment.close()


@pytest.mark.parametrize("by_norm", [True, False])
def test_hasacs_actors_take_the_experiments_optimiser_settings(by_norm, small_experiment):
    settings = {"lr": 0.02, "adam_eps": 1e-3, "clip_grad_norm": by_norm, "clip_grad_val": 0.7}
    experiment = small_experiment(HasacConfig(), simple_tag(), **settings)
    optimiser = experiment.losses["agent"].optimiser
    assert (optimiser.lr.item(), optimiser.eps) == (pytest.approx(0.02), 1e-3)
    assert optimiser.clip_norm == (0.7 if by_norm else None)
    assert optimiser.clip_value == (None if by_norm else 0.7)
    experiment.close()


@pytest.mark.parametrize(
    ("options", "target"),
    [
        ({}, {"hunter": 0.2 * math.log(3), "prey": -2.0}),
        (
            {"discrete_target_entropy_weight": 0.5, "target_entropy_scale": 3.0},
            {"hunter": 0.5 * math.log(3), "prey": -6.0},
        ),
        ({"target_entropy": 0.7}, {"hunter": 0.7, "prey": 0.7}),
    ],
)
def test_target_entropies_are_per_agent(options, target, small_experiment):
    experiment = small_experiment(MasacConfig(share_alpha=False, **options), hunt())
    for group, value in target.items():
        temperature = experiment.losses[group].temperature
        assert temperature.target_entropy == pytest.approx(value)
        assert len(temperature.log_alpha) == len(experiment.group_map[group])
    experiment.close()


# ------------------------------------------------------------------------ messages
@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (MasacConfig, {"critic_scope": "world"}, "critic_scope must be one of agent, group, env"),
        (HasacConfig, {"critic_scope": "agent"}, "critic_scope must be one of environment, group;"),
        (
            MasacConfig,
            {"actor_gradient": "none"},
            "actor_gradient must be one of own, current, all",
        ),
        (MasacConfig, {"entropy_bonus": "none"}, "entropy_bonus must be one of own, team; got"),
        (
            IsacConfig,
            {"loss_function": "l3"},
            "loss_function must be one of l2, l1, smooth_l1, hub",
        ),
        (IsacConfig, {"num_qvalue_nets": 0}, "num_qvalue_nets must be at least 1; got 0"),
        (IsacConfig, {"alpha_init": 0.0}, "alpha_init must be at least 1e-09; got 0"),
        (IsacConfig, {"min_alpha": 2.0}, r"min_alpha must be in \[0, 1\]; got 2"),
        (IsacConfig, {"max_alpha": 0.5}, "max_alpha must be at least 1; got 0.5"),
        (IsacConfig, {"n_steps": 0}, "n_steps must be at least 1; got 0"),
        (IsacConfig, {"value_norm": "popart"}, "value_norm must be one of none, running; got"),
        (MasacConfig, {"team_value": True}, "team_value needs actor_gradient=all and critic_scope"),
        (HasacConfig, {"team_reward": "max"}, "team_reward must be one of mean, sum; got 'max'"),
        (HasacConfig, {"mask_dead_values": True}, "mask_dead_values has no meaning here"),
    ],
)
def test_settings_out_of_range_are_refused(config, options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)


def test_defaults_are_benchmarls_where_it_has_them():
    theirs = TheirMasacConfig.get_from_yaml()
    for config in (MasacConfig(), IsacConfig()):
        names = ["num_qvalue_nets", "loss_function", "alpha_init", "min_alpha", "max_alpha"]
        names += ["fixed_alpha", "scale_mapping", "use_tanh_normal"]
        names += ["discrete_target_entropy_weight"]
        for name in names:
            assert getattr(config, name) == getattr(theirs, name), name
        assert not config.on_policy()
        assert config.supports_continuous_actions() and config.supports_discrete_actions()
    assert not IsacConfig.has_centralized_critic() and MasacConfig.has_centralized_critic()


def test_one_value_for_a_team_needs_continuous_actions(small_experiment):
    config = MasacConfig(team_value=True, actor_gradient="all")
    with pytest.raises(ValueError, match="needs continuous actions; those of 'red' are discrete"):
        small_experiment(config, teams_task(max_steps=4))
