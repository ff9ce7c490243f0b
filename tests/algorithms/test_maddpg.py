"""MADDPG inside unchanged BenchMARL: specs to networks, all kinds of tasks, checkpoints, messages."""

import pytest
import torch
from benchmarl.experiment import Experiment
from benchmarl.models.gru import GruConfig
from discrete_teams import teams_task
from off_policy_runs import data_of, discrete_teams, hunt, simple_tag, snapshot

from marl_td import critics
from marl_td.algorithms.maddpg import Maddpg, MaddpgConfig
from marl_td.models.gru import StatefulGruConfig


# -------------------------------------------------------------------------- it runs
@pytest.mark.parametrize(
    ("task", "options", "share_policy"),
    [
        (simple_tag, {}, True),
        (simple_tag, {"share_param_critic": True, "actor_gradient": "all"}, False),
        (simple_tag, {"critic_scope": "agent"}, True),
        (hunt, {}, False),
        (hunt, {"critic_scope": "group", "state_and_observations": True}, True),
        (lambda: teams_task(max_steps=4, has_state=False), {}, True),
        (lambda: teams_task(max_steps=4, blue=0), {"share_param_critic": True}, False),
    ],
    ids=[
        "two teams",
        "two teams, shared critic, all actions",
        "independent critics",
        "mixed actions, masks, deaths, state",
        "group critics with state and observations",
        "discrete teams",
        "one discrete team, shared critic",
    ],
)
def test_two_iterations(task, options, share_policy, small_experiment):
    config = MaddpgConfig(**options)
    experiment = small_experiment(config, task(), share_policy_params=share_policy, polyak_tau=0.5)
    before = snapshot(experiment)
    experiment.run()
    for group, values in snapshot(experiment).items():
        moved = [not torch.equal(a, b) for a, b in zip(values, before[group], strict=True)]
        assert all(moved), f"{moved.count(False)} parameters of '{group}' never moved"
        assert all(value.isfinite().all() for value in values)


def benchmarls_gru():
    config = GruConfig.get_from_yaml()
    config.hidden_size = 8
    config.mlp_num_cells = [8]
    return config


def our_gru():
    return StatefulGruConfig(hidden_size=8, encoder_cells=[8])


# BenchMARL puts the transforms of a recurrent model around an environment that has some.
@pytest.mark.filterwarnings("ignore:The default behavior of TransformedEnv:FutureWarning")
@pytest.mark.parametrize("task", [simple_tag, discrete_teams])
@pytest.mark.parametrize("model", [benchmarls_gru, our_gru])
def test_recurrent_actors_and_critics_learn_from_sequences(task, model, small_experiment):
    experiment = small_experiment(MaddpgConfig(), task(), model=model(), critic_model=model())
    before = snapshot(experiment)
    experiment.run()
    for group, values in snapshot(experiment).items():
        assert any(not torch.equal(a, b) for a, b in zip(values, before[group], strict=True))
        assert experiment.replay_buffers[group].sample().batch_size == (2, 6)


def test_a_reloaded_experiment_has_the_same_networks_targets_and_noise(small_experiment, tmp_path):
    experiment = small_experiment(
        MaddpgConfig(), simple_tag(), checkpoint_at_end=True, exploration_anneal_frames=500
    )
    experiment.run()
    (checkpoint,) = tmp_path.rglob("checkpoint_*.pt")
    again = Experiment.reload_from_file(str(checkpoint))
    for group in experiment.losses:
        first, second = experiment.losses[group].state_dict(), again.losses[group].state_dict()
        assert first.keys() == second.keys()
        tensors = [key for key in first if isinstance(first[key], torch.Tensor)]
        assert all(torch.equal(first[key], second[key]) for key in tensors)
        sigma = experiment.group_policies[group][-1].sigma
        assert 0.5 < sigma < experiment.config.exploration_eps_init
        assert again.group_policies[group][-1].sigma == sigma
        rows = again.losses[group]
        assert torch.equal(
            next(rows._frozen_critic.module.parameters()), next(rows.critic.parameters())
        )
    # The losses of both groups still look at one another's target actors.
    chaser, runner = again.losses["adversary"], again.losses["agent"]
    assert chaser._actors["agent"] is runner.target_actor
    assert runner._actors["adversary"] is chaser.target_actor
    again.close()


# ------------------------------------------------------------------ who sees what
def q_of(experiment, group, batch):
    loss = experiment.losses[group]
    return loss._action_value(loss.critic, batch, loss._rows(loss._taken(batch)))


def test_a_good_agents_critic_sees_what_adversaries_see_and_do(small_experiment):
    experiment = small_experiment(MaddpgConfig(), simple_tag())
    batch = data_of(experiment, "agent")
    before = q_of(experiment, "agent", batch)
    for entry in ("action", "observation"):
        changed = batch.clone()
        changed["joint", "adversary", entry][..., 1, :] += 0.5
        assert (q_of(experiment, "agent", changed) != before).all()
    experiment.close()


def test_a_group_critic_sees_no_other_group(small_experiment):
    config = MaddpgConfig(critic_scope="group")
    experiment = small_experiment(config, simple_tag())
    assert "joint" not in data_of(experiment, "agent").keys()
    assert not any("adversary" in key for key in experiment.losses["agent"].critic.in_keys)
    experiment.close()


@pytest.mark.parametrize("share", [True, False])
def test_shared_critics_tell_agents_apart_and_unshared_ones_are_separate(share, small_experiment):
    config = MaddpgConfig(share_param_critic=share)
    experiment = small_experiment(config, simple_tag())
    batch = data_of(experiment, "adversary")
    value = q_of(experiment, "adversary", batch)
    assert (value[..., 0] != value[..., 1]).all()
    one_agent = (value[..., 0].sum(), list(experiment.losses["adversary"].critic.parameters()))
    grads = torch.autograd.grad(*one_agent)
    assert any(not grad[1].any() for grad in grads if grad.shape[0] == 3) is not share
    experiment.close()


@pytest.mark.parametrize(
    ("options", "width"),
    [
        # 3 hunters (4 observations, 3 actions) and the prey (2 observations, 2 actions); state of 4.
        ({}, 4 + 3 * 3 + 2),
        ({"state_and_observations": True}, 4 + 3 * 4 + 2 + 3 * 3 + 2),
        ({"share_param_critic": True}, 4 + 3 * 3 + 2 + 3),
        ({"critic_scope": "group"}, 4 + 3 * 3),
        ({"critic_scope": "agent"}, 4 + 3),
    ],
)
def test_width_of_what_a_critic_reads(options, width, small_experiment):
    experiment = small_experiment(MaddpgConfig(**options), hunt())
    first = next(iter(experiment.losses["hunter"].critic.parameters()))
    assert first.shape[-1] == width
    experiment.close()


def test_replay_holds_what_the_loss_reads_and_not_what_it_computes(small_experiment):
    experiment = small_experiment(MaddpgConfig(), hunt())
    for group, made in (("hunter", "logits"), ("prey", "parameter")):
        batch = data_of(experiment, group)
        assert made not in batch[group].keys()
        experiment.losses[group](batch.reshape(-1))
        assert batch["next", group, "reward"].shape == batch["next", group, "terminated"].shape
    experiment.close()


def test_optimisers_hold_every_network_of_their_loss_once(small_experiment):
    experiment = small_experiment(MaddpgConfig(), simple_tag())
    for group, loss in experiment.losses.items():
        learned = {id(p) for p in loss.parameters() if p.requires_grad}
        optimised = [
            id(p)
            for optimiser in experiment.optimizers[group].values()
            for p in optimiser.param_groups[0]["params"]
        ]
        assert sorted(optimised) == sorted(learned)
        assert set(experiment.optimizers[group]) <= set(loss.out_keys)
    experiment.close()


def test_exploration_follows_the_experiments_epsilon(small_experiment):
    settings = {"exploration_eps_init": 0.8, "exploration_eps_end": 0.2}
    config = MaddpgConfig(exploration_sigma=0.5)
    experiment = small_experiment(config, simple_tag(), **settings)
    noise = experiment.group_policies["agent"][-1]
    assert noise.sigma.item() == pytest.approx(0.4)
    noise.step(10**6)
    assert noise.sigma.item() == pytest.approx(0.1)
    experiment.close()


# ------------------------------------------------------------------------ messages
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"critic_scope": "world"},
            "critic_scope must be one of agent, group, environment; got 'world'",
        ),
        ({"actor_gradient": "none"}, "actor_gradient must be one of own, all; got 'none'"),
        ({"loss_function": "l3"}, "loss_function must be one of l2, l1, smooth_l1; got 'l3'"),
        ({"gumbel_temperature": 0.0}, r"gumbel_temperature must be at least 0.001; got 0"),
        ({"regularisation_coef": -1.0}, "regularisation_coef must be at least 0; got -1"),
        ({"exploration_sigma": -0.1}, "exploration_sigma must be at least 0; got -0.1"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MaddpgConfig(**options)


def test_an_unknown_scope_is_refused_by_the_builder():
    with pytest.raises(ValueError, match="critic scope must be one of agent, group, environment"):
        critics.action_value(None, "agents", scope="world")


def test_defaults_are_the_papers():
    config = MaddpgConfig()
    assert (config.critic_scope, config.actor_gradient) == ("environment", "own")
    assert config.share_param_critic is False
    assert issubclass(config.associated_class(), Maddpg)
    assert not config.on_policy()
    assert config.supports_continuous_actions()
    assert config.supports_discrete_actions()
