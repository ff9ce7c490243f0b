"""Every value-based algorithm in unchanged BenchMARL: groups, masks, deaths, networks, exploration."""

import copy

import pytest
import torch
from benchmarl_runs import IGNORED, STATEFUL, Metrics
from discrete_teams import teams_task
from torchrl.envs.utils import ExplorationType, set_exploration_type

from marl_td.algorithms.q_family import QConfig
from marl_td.algorithms.q_mixing_family import StateMixingConfig
from marl_td.collect.window_replay import WindowReplayBuffer
from marl_td.models.exploration import Boltzmann
from marl_td.registry import ALGORITHMS, algorithm_config

pytestmark = IGNORED

NAMES = [name for name in ALGORITHMS if issubclass(algorithm_config(name), QConfig)]
OWN = {"share_policy_params": False}
TOLD = {"last_action": True, "agent_id": True}
WINDOWS = {"sequence": "window", "window_length": 2, "burn_in": 1}
CASES = {
    "single steps": (teams_task(masked=False), {"exploration": "boltzmann"}, {}),
    "masked, dead, per agent": (
        teams_task(mortal=True, has_state=False),
        {"dueling": True, **TOLD},
        OWN,
    ),
    "GRU, n steps": (teams_task(mortal=True, blue=0), {"n_steps": 2}, {"model": STATEFUL}),
    "GRU, windows": (teams_task(mortal=True, blue=0), {**WINDOWS, **TOLD}, {"model": STATEFUL}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_two_iterations_of_every_kind(name, case, small_experiment):
    """Each live parameter moves, each named loss and metric is there and finite, in every group."""
    task, options, settings = CASES[case]
    metrics = Metrics()
    experiment = small_experiment(
        algorithm_config(name)(**options), task, callbacks=[metrics], lr=1e-3, **settings
    )
    before = copy.deepcopy({g: loss.state_dict() for g, loss in experiment.losses.items()})
    experiment.run()
    for group, loss in experiment.losses.items():
        for name, parameter in loss.named_parameters():
            assert parameter.isfinite().all(), name
            if parameter.requires_grad:
                assert not torch.equal(parameter, before[group][name]), name
        sequences = isinstance(experiment.replay_buffers[group], WindowReplayBuffer)
        assert sequences is loss.sequences is ("model" in settings)
    assert {group for group, _ in metrics.seen} == set(experiment.group_map)
    for group, values in metrics.seen:
        loss = experiment.losses[group]
        names = {*loss.out_keys, *(f"grad_norm_{name}" for name in loss.networks())}
        assert set(values) == names
        assert all(value.isfinite().all() for value in values.values())


# ------------------------------------------------------------------ exploration
def test_boltzmann_explores_and_cools_down(small_experiment):
    config = algorithm_config("vdn")(
        exploration="boltzmann", temperature_init=4.0, temperature_end=1.0
    )
    experiment = small_experiment(
        config, teams_task(blue=0), exploration_anneal_frames=48, max_n_iters=1
    )
    explore = experiment.group_policies["red"][-1]
    assert type(explore) is Boltzmann
    experiment.run()  # 24 frames: half of the way, in factors
    assert explore.temperature.item() == pytest.approx(2.0, rel=1e-3)


def test_the_dueling_head_values_the_actions_that_are_chosen(small_experiment):
    experiment = small_experiment(
        algorithm_config("vdn")(dueling=True), teams_task(blue=0, has_state=False)
    )
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        data = experiment.policy(experiment.test_env.reset())
    raw, mask = data["red", "value_and_advantage"], data["red", "action_mask"]
    value = data["red", "action_value"]
    mean = torch.where(mask, value, 0.0).sum(-1) / mask.sum(-1)
    torch.testing.assert_close(mean, raw[..., 0])
    assert mask.gather(-1, data["red", "action"].unsqueeze(-1)).all()


# ---------------------------------------------------------------------- rewards
def test_independent_agents_keep_their_own_rewards(small_experiment):
    experiment = small_experiment(algorithm_config("iql")(), teams_task(blue=0))
    batch = next(iter(experiment.collector))
    own = torch.tensor([1.0, 0.0]).reshape(2, 1).expand(*batch.shape, 2, 1)
    batch["next", "red", "reward"] = own.clone()
    out = experiment.algorithm.process_batch("red", batch.clone())
    assert torch.equal(out["next", "red", "reward"], own)
    team = batch.exclude(("next", "red", "reward"))
    team["next", "reward"] = torch.full((*batch.shape, 1), 3.0)
    shared = experiment.algorithm.process_batch("red", team)
    assert (shared["next", "red", "reward"] == 3.0).all()
    experiment.close()


# --------------------------------------------------------------------- messages
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exploration": "ucb"}, "exploration must be one of epsilon_greedy, boltzmann; got 'ucb'"),
        ({"n_steps": 0}, "n_steps must be at least 1; got 0"),
        ({"n_steps": 3, "lmbda": 0.5}, "lmbda=0.5 and n_steps=3 are two ways"),
        ({"temperature_end": 0.0}, "temperature_end must be at least 1e-06"),
        ({"temperature_init": 0.01}, "temperature_init must be at least 0.05; got 0.01"),
    ],
)
def test_settings_out_of_range_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        algorithm_config(name)(**options)


@pytest.mark.parametrize("name", NAMES)
def test_who_sees_the_state_says_so(name):
    config = algorithm_config(name)
    assert config.has_centralized_critic() is issubclass(config, StateMixingConfig)
    assert (config.on_policy(), config.supports_continuous_actions()) == (False, False)
