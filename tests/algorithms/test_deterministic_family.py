"""IDDPG, MATD3, FACMAC and MADDPG's settings in unchanged BenchMARL: they run, and see what they should."""

import pytest
import torch
from benchmarl.experiment import Experiment
from benchmarl_runs import IGNORED, STATEFUL, THEIR_GRU, Metrics
from discrete_teams import teams_task
from off_policy_runs import data_of, hunt, simple_tag, snapshot
from torchrl.envs import TransformedEnv
from toy_tasks import Hunt, HuntParams

from marl_td.algorithms.facmac import FacmacConfig
from marl_td.algorithms.iddpg import IddpgConfig
from marl_td.algorithms.maddpg import MaddpgConfig
from marl_td.algorithms.matd3 import Matd3Config
from marl_td.collect.collector import CompiledCollector
from marl_td.collect.sub_policy import DrawSubPolicy
from marl_td.tasks.vector_env import VectorEnv

pytestmark = IGNORED

KINDS = {
    "iddpg": IddpgConfig,
    "matd3": Matd3Config,
    "facmac": FacmacConfig,
    "one value": lambda **options: MaddpgConfig(team_value=True, actor_gradient="all", **options),
    "matd3, one value": lambda **options: Matd3Config(
        team_value=True, actor_gradient="all", **options
    ),
    "expected": lambda **options: MaddpgConfig(discrete_gradient="expected", **options),
    "ensembles": lambda **options: MaddpgConfig(ensemble_size=2, **options),
    "inference": lambda **options: MaddpgConfig(infer_policies=True, **options),
}
MANY = {"off_policy_n_optimizer_steps": 6, "off_policy_train_batch_size": 24, "polyak_tau": 0.5}


def discrete_teams():
    """Two teams with masks and without a global state."""
    return teams_task(max_steps=4, has_state=False)


# ----------------------------------------------------------------------------- they run
@pytest.mark.filterwarnings("ignore:algorithm.discrete_gradient=expected has no effect")
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("task", [simple_tag, hunt, discrete_teams])
def test_two_iterations_move_every_network(name, task, small_experiment):
    """Competing groups; continuous, discrete and mixed actions; masks, deaths, with and without a state."""
    share = {"share_param_critic": task is hunt}
    settings = {"share_policy_params": task is hunt, **MANY}
    experiment = small_experiment(KINDS[name](**share), task(), **settings)
    before = snapshot(experiment)
    experiment.run()
    for group, values in snapshot(experiment).items():
        names = [key for key, _ in experiment.losses[group].named_parameters()]
        still = [
            key
            for key, a, b in zip(names, values, before[group], strict=True)
            if torch.equal(a, b) and not is_about_itself(experiment, group, key)
        ]
        assert not still, f"never moved in '{group}': {still}"
        assert all(value.isfinite().all() for value in values)


def is_about_itself(experiment, group, key):
    """Whether a parameter is of what the only agent of a group believes of itself: nothing learns it."""
    position = list(experiment.group_map).index(group)
    return f"beliefs.{position}." in key and len(experiment.group_map[group]) == 1


@pytest.mark.parametrize("model", [STATEFUL, pytest.param(THEIR_GRU, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", KINDS)
def test_recurrent_networks_learn_from_sequences(name, model, small_experiment):
    experiment = small_experiment(
        KINDS[name](), discrete_teams(), model=model, critic_model=model, **MANY
    )
    before = snapshot(experiment)
    experiment.run()
    for group, values in snapshot(experiment).items():
        assert any(not torch.equal(a, b) for a, b in zip(values, before[group], strict=True))
        assert all(value.isfinite().all() for value in values)


@pytest.mark.parametrize("mixer", ["qmix", "free", "sum"])
def test_facmac_mixes_with(mixer, small_experiment):
    state_norm = "none" if mixer == "sum" else "layer"  # a sum reads no state
    config = FacmacConfig(mixer_type=mixer, critic_scope="group", state_norm=state_norm)
    experiment = small_experiment(config, discrete_teams())
    seen = Metrics()
    experiment.callbacks.append(seen)
    experiment.run()
    assert {group for group, _ in seen.seen} == {"red", "blue"}
    assert all(metrics["loss_actor"].isfinite().all() for _, metrics in seen.seen)


# --------------------------------------------------------------------------- delayed steps
def test_matd3s_actor_rests_between_its_steps(small_experiment):
    """No momentum, no count of steps: an optimiser that is not due does nothing, and targets wait too."""
    config = Matd3Config(policy_freq=3)
    experiment = small_experiment(config, discrete_teams(), polyak_tau=0.5)
    for group in experiment.group_map:
        batch = data_of(experiment, group)
        experiment.replay_buffers[group].extend(batch.reshape(-1))
    group = "red"
    loss = experiment.losses[group]
    moved = []
    for _ in range(7):
        before = [
            next(m.parameters()).clone() for m in (loss.actor, loss.target_critic, loss.critic)
        ]
        experiment._optimizer_loop(group)
        after = [next(m.parameters()) for m in (loss.actor, loss.target_critic, loss.critic)]
        moved.append([not torch.equal(a, b) for a, b in zip(before, after, strict=True)])
    rest, due = [False, False, True], [True, True, True]
    assert moved == [rest, rest, due, rest, rest, due, rest]
    steps = {
        name: next(iter(optimiser.state.values()))["step"].item()
        for name, optimiser in experiment.optimizers[group].items()
    }
    assert steps == {"loss_actor": 2, "loss_value": 7}
    experiment.close()


def test_a_reloaded_matd3_goes_on_in_the_same_place_of_the_period(small_experiment, tmp_path):
    """In unchanged BenchMARL: three updates are made, the actor and its targets are due in the fourth."""
    settings = {"off_policy_n_optimizer_steps": 3, "max_n_iters": 1, "checkpoint_at_end": True}
    experiment = small_experiment(Matd3Config(policy_freq=2), discrete_teams(), **settings)
    experiment.run()
    (checkpoint,) = tmp_path.rglob("checkpoint_*.pt")
    again = Experiment.reload_from_file(str(checkpoint))
    for group, loss in again.losses.items():
        networks = (loss.actor, loss.target_critic, loss.critic)
        moved = []
        for _ in range(2):
            before = [next(network.parameters()).clone() for network in networks]
            again._optimizer_loop(group)
            after = [next(network.parameters()) for network in networks]
            moved.append([not torch.equal(a, b) for a, b in zip(before, after, strict=True)])
        assert moved == [[True, True, True], [False, False, True]]
    again.close()


def test_without_a_delay_no_hook_is_set(small_experiment):
    experiment = small_experiment(Matd3Config(policy_freq=1), discrete_teams())
    assert experiment.losses["red"].delays == {}
    for optimiser in experiment.optimizers["red"].values():
        assert not optimiser._optimizer_step_pre_hooks
    experiment.close()


# ------------------------------------------------------------------------------- ensembles
def test_sub_policies_are_drawn_per_episode_and_kept_with_the_data(small_experiment):
    experiment = small_experiment(
        MaddpgConfig(ensemble_size=3), discrete_teams(), off_policy_collected_frames_per_batch=320
    )
    batch = next(iter(experiment.collector))
    index, following = batch["red", "sub_policy"], batch["next", "red", "sub_policy"]
    assert torch.equal(index, following)
    new = torch.cat([torch.ones_like(batch["done"][:, :1]), batch["next", "done"][:, :-1]], 1)
    goes_on = ~new.squeeze(-1)[:, 1:]
    assert torch.equal(index[:, 1:][goes_on], index[:, :-1][goes_on])
    begun = index[new.squeeze(-1)].flatten()
    share = begun.bincount(minlength=3) / begun.numel()
    assert share.shape == (3,) and (share - 1 / 3).abs().max() < 0.2
    assert (index[..., 0] != index[..., 1]).any()  # each agent draws by itself
    experiment.close()


def test_others_sub_policies_stand_in_every_groups_data(small_experiment):
    experiment = small_experiment(MaddpgConfig(ensemble_size=2), discrete_teams())
    batch = data_of(experiment, "red")
    for where in (batch, batch["next"]):
        seen = where["joint", "blue", "observation"]
        assert where["joint", "blue", "sub_policy"].shape == seen.shape[:-1]
    experiment.losses["red"](batch.reshape(-1))
    experiment.close()


@pytest.mark.slow
def test_the_compiled_rollout_draws_sub_policies_too():
    env = VectorEnv(Hunt(HuntParams(max_steps=4)), 6)
    env = TransformedEnv(env, DrawSubPolicy({"hunter": 3}))

    def policy(data):
        data["hunter", "action"] = data["hunter", "sub_policy"]
        data["prey", "action"] = torch.zeros_like(data["prey", "observation"])
        return data

    collector = CompiledCollector(env, policy, frames_per_batch=6 * 40, backend="eager")
    batch = collector.rollout()
    index = batch["hunter", "sub_policy"]
    assert torch.equal(index, batch["next", "hunter", "sub_policy"])
    ended = batch["next", "done"].squeeze(-1)[:, :-1]
    assert torch.equal(index[:, 1:][~ended], index[:, :-1][~ended])
    assert set(index.flatten().tolist()) == {0, 1, 2}
    assert (index[:, 1:][ended] != index[:, :-1][ended]).any()


# -------------------------------------------------------------------------------- inference
def test_a_groups_beliefs_are_of_all_agents_in_scope(small_experiment):
    experiment = small_experiment(MaddpgConfig(infer_policies=True), hunt())
    loss = experiment.losses["prey"]
    assert [beliefs.group for beliefs in loss.beliefs] == ["hunter", "prey"]
    batch = data_of(experiment, "prey")
    assert loss.beliefs[0](batch["joint"]).shape == (*batch.shape, 1, 3, 3)
    # Whoever is dead among the hunters teaches the prey nothing.
    assert batch["joint", "hunter", "mask"].dtype == torch.bool
    flat = batch.reshape(-1)
    before = loss(flat.clone())["loss_inference"]
    dead = ~flat["joint", "hunter", "mask"]
    if dead.any():
        flat["joint", "hunter", "action"][dead] = 0
        assert loss(flat)["loss_inference"] == before
    experiment.close()


# ------------------------------------------------------------------------------ who sees what
def test_iddpgs_critics_see_their_own_agent_only(small_experiment):
    experiment = small_experiment(IddpgConfig(), hunt())
    assert "joint" not in data_of(experiment, "prey").keys()
    first = next(iter(experiment.losses["hunter"].critic.parameters()))
    assert first.shape[-1] == 4 + 3
    assert IddpgConfig.has_independent_critic() and not IddpgConfig.has_centralized_critic()
    experiment.close()


# ---------------------------------------------------------------------------------- messages
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Matd3Config(target_noise=-1.0), "target_noise must be at least 0; got -1"),
        (lambda: Matd3Config(target_noise_clip=-1.0), "target_noise_clip must be at least 0"),
        (lambda: Matd3Config(policy_freq=0), "policy_freq must be at least 1; got 0"),
        (lambda: FacmacConfig(mixer_type="vdn"), "mixer_type must be one of qmix, free, sum"),
        (lambda: FacmacConfig(critic_scope="agent"), "critic_scope must be one of environment"),
        (lambda: FacmacConfig(team_reward="max"), "team_reward must be one of mean, sum"),
        (lambda: FacmacConfig(hypernet_layers=3), r"hypernet_layers must be in \[1, 2\]; got 3"),
        (
            lambda: MaddpgConfig(team_value=True),
            "team_value needs actor_gradient=all and critic_scope=environment or group.*; got own",
        ),
        (
            lambda: Matd3Config(team_value=True, actor_gradient="all", critic_scope="agent"),
            "team_value needs actor_gradient=all .* got all and agent",
        ),
        (lambda: MaddpgConfig(ensemble_size=0), "ensemble_size must be at least 1; got 0"),
        (
            lambda: MaddpgConfig(ensemble_size=2, evaluation_sub_policy=2),
            r"evaluation_sub_policy must be in \[-1, 1\]; got 2",
        ),
        (
            lambda: MaddpgConfig(infer_policies=True, actor_gradient="all"),
            "infer_policies=true needs critics of more than one agent's action",
        ),
        (
            lambda: IddpgConfig(discrete_gradient="exact"),
            "discrete_gradient must be one of straight_through, expected; got 'exact'",
        ),
        (
            lambda: Matd3Config(discrete_gradient="expected", actor_gradient="all"),
            r"it needs actor_gradient=own \(got all\)",
        ),
        (
            lambda: MaddpgConfig(infer_policies=True, critic_scope="agent"),
            r"critic_scope=group or environment \(got agent\)",
        ),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_iddpg_with_one_agent_is_maddpg_with_one_agent(small_experiment, tmp_path):
    """Its own observation is everybody's: losses and gradients on the same batch are the same."""
    task = teams_task(red=1, blue=0, has_state=False)
    one, other = small_experiment(IddpgConfig(), task), small_experiment(MaddpgConfig(), task)
    batch = data_of(one, "red")
    losses = one.losses["red"], other.losses["red"]
    pairs = list(zip(losses[0].parameters(), losses[1].parameters(), strict=True))
    assert len(pairs) > 8
    with torch.no_grad():
        for mine, theirs in pairs:
            theirs.copy_(mine)
    found = []
    for loss in losses:
        torch.manual_seed(3)
        values = loss.compute(batch.clone())
        (values["loss_actor"] + values["loss_value"]).backward()
        found.append(values)
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name])
    trained = [(mine, theirs) for mine, theirs in pairs if mine.requires_grad]
    for mine, theirs in trained:
        torch.testing.assert_close(mine.grad, theirs.grad)
    assert all(mine.grad.any() for mine, _ in trained)
