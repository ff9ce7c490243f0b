"""ISAC, MASAC and HASAC inside unchanged BenchMARL: specs to networks, all kinds of tasks, checkpoints."""

import pytest
import torch
from benchmarl.environments import VmasTask
from benchmarl_runs import IGNORED, STATEFUL, THEIR_GRU
from discrete_teams import teams_task
from toy_tasks import Hunt, HuntParams

from marl_td.algorithms.hasac import HasacConfig
from marl_td.algorithms.isac import IsacConfig
from marl_td.algorithms.masac import MasacConfig
from marl_td.benchmarl_tasks import FunctionTask
from marl_td.tasks.vector_env import VectorEnv

pytestmark = IGNORED


def simple_tag():
    """One runner against three chasers, continuous actions, no global state."""
    task = VmasTask.SIMPLE_TAG.get_from_yaml()
    task.config["max_steps"] = 4
    return task


def make_hunt(n_envs, continuous, seed, device):
    return VectorEnv(Hunt(HuntParams(max_steps=4), continuous, device), n_envs, seed)


def hunt():
    """Discrete, masked, mortal hunters; a continuous prey; a global state."""
    return FunctionTask("hunt", make_hunt, max_steps=4)


def data_of(experiment, group):
    """A batch as this group's replay holds it."""
    batch = next(iter(experiment.collector))
    for callback in experiment.callbacks:
        callback.on_batch_collected(batch)
    batch = batch.exclude(*experiment._get_excluded_keys(group))
    return experiment.algorithm.process_batch(group, batch)


def snapshot(experiment):
    return {g: [p.clone() for p in loss.parameters()] for g, loss in experiment.losses.items()}


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
@pytest.mark.parametrize("model", [STATEFUL, THEIR_GRU])
def test_recurrent_networks_learn_from_sequences(config, task, model, small_experiment):
    experiment = small_experiment(config(), task(), model=model, critic_model=model)
    before = snapshot(experiment)
    experiment.run()
    for group, values in snapshot(experiment).items():
        assert any(not torch.equal(a, b) for a, b in zip(values, before[group], strict=True))
        assert experiment.replay_buffers[group].sample().batch_size == (2, 6)
