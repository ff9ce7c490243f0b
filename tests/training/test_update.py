"""Compiled optimiser steps: their Adam, what is compiled and what is not, whole runs."""

from __future__ import annotations

import copy

import pytest
import torch
from benchmarl.experiment import Callback
from benchmarl_runs import IGNORED, STATEFUL, small_run
from discrete_teams import teams_task
from short_runs import short_experiment
from update_runs import SETTINGS, both, filled, tensors, update_of

from marl_td.algorithms.happo import HappoConfig
from marl_td.algorithms.hatrpo import HatrpoConfig
from marl_td.algorithms.maddpg import MaddpgConfig
from marl_td.algorithms.mappo import MappoConfig
from marl_td.algorithms.matd3 import Matd3Config
from marl_td.algorithms.qmix import QmixConfig
from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.collect.collector import CompiledCollector
from marl_td.models.compiling import CompileWarning, NotCompilable
from marl_td.training.adam import AdamStep
from marl_td.training.update import Clip, CompiledUpdate, compiled_update

pytestmark = IGNORED


def test_networks_of_other_groups_are_compiled_too(tmp_path):
    task = teams_task(masked=False, has_state=False)
    experiment = small_run(tmp_path, MaddpgConfig(), task, **SETTINGS)
    batch = next(iter(experiment.collector))
    experiment._on_batch_collected(batch)
    for group in experiment.group_map:
        data = experiment.algorithm.process_batch(group, batch.clone())
        experiment.replay_buffers[group].extend(data.reshape(-1))
    assert len(experiment.group_map) == 2
    for group in experiment.group_map:
        update = CompiledUpdate(
            experiment.losses[group],
            experiment.optimizers[group],
            experiment.target_updaters[group],
            experiment.replay_buffers[group],
            clip=Clip(None, by_norm=False),
            device="cpu",
            backend="aot_eager",
        )
        assert update.run(3)["loss_actor"].isfinite().all()


def test_adam_is_torchs_adam():
    generator = torch.Generator().manual_seed(3)
    ours = torch.nn.Parameter(torch.randn(4, 3, generator=generator))
    theirs = torch.nn.Parameter(ours.detach().clone())
    optimisers = [torch.optim.Adam([p], lr=0.1, betas=(0.8, 0.9), eps=1e-3) for p in (ours, theirs)]
    step = AdamStep(optimisers[0], "cpu")
    for round_ in range(3):
        gradients = torch.randn(4, 4, 3, generator=generator)
        for optimiser in optimisers:
            optimiser.param_groups[0]["lr"] = 0.1 / (1 + round_)
        step.begin()
        for gradient in gradients:
            with torch.no_grad():
                step([gradient])
            theirs.grad = gradient
            optimisers[1].step()
        step.end()
        torch.testing.assert_close(ours, theirs)
    mine, his = (o.state_dict()["state"][0] for o in optimisers)
    assert mine["step"] == his["step"] == 12
    torch.testing.assert_close(mine["exp_avg_sq"], his["exp_avg_sq"])


def test_a_loaded_optimiser_state_is_taken_up():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimiser = torch.optim.Adam([parameter], lr=0.1)
    step = AdamStep(optimiser, "cpu")
    saved = copy.deepcopy(optimiser.state_dict())
    saved["state"][0]["step"] = torch.tensor(5.0)
    saved["state"][0]["exp_avg"] = torch.full((2,), 3.0)
    optimiser.load_state_dict(saved)
    step.begin()
    assert step.count == 5
    assert (step.means[0] == 3.0).all()


def test_what_cannot_be_compiled_is_named(tmp_path):
    parameter = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(NotCompilable, match="the optimiser is a SGD, not a plain Adam"):
        AdamStep(torch.optim.SGD([parameter], lr=0.1), "cpu")
    with pytest.raises(NotCompilable, match="Adam has the options weight_decay, amsgrad"):
        AdamStep(torch.optim.Adam([parameter], weight_decay=0.1, amsgrad=True), "cpu")
    experiment = filled(tmp_path, QmixConfig(), off_policy_use_prioritized_replay_buffer=False)

    class Looking(Callback):
        def on_train_step(self, batch, group):
            return None

    experiment.callbacks = [Looking()]
    with pytest.warns(
        CompileWarning, match="update is not compiled: Looking looks at every minibatch"
    ):
        assert compiled_update(experiment, "agents") is None
    experiment.callbacks = []
    experiment.losses["agents"] = torch.nn.Identity()
    with pytest.warns(CompileWarning, match="the loss is Identity, not one of marl_td"):
        assert compiled_update(experiment, "agents") is None


def test_an_update_with_a_line_search_is_not_a_graph(tmp_path):
    experiment = filled(tmp_path, HatrpoConfig())
    with pytest.warns(CompileWarning, match="HATRPOLoss changes the policy by itself, with a line"):
        assert compiled_update(experiment, "agents") is None


def test_waiting_agents_keep_their_adam_in_a_graph(tmp_path):
    """One agent after the other, from a state that was loaded: each has made its own number of steps."""
    experiment = filled(tmp_path, HappoConfig(), on_policy_n_minibatch_iters=4)
    optimiser = experiment.optimizers["agents"]["loss_objective"]
    loss = experiment.losses["agents"]
    for _ in range(3):
        experiment._optimizer_loop("agents")
    optimiser.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    first, second = loss.turns.order.tolist()
    update = update_of(experiment)
    update.run(4)
    states = [optimiser.state[rows[0]] for rows in loss.rows.rows]
    assert [int(states[agent]["step"]) for agent in (first, second)] == [4, 3]
    kept = states[first]["exp_avg"].clone()
    update.run(1)
    assert torch.equal(states[first]["exp_avg"], kept)
    assert int(states[second]["step"]) == 4


def test_long_sequences_are_not_written_out_in_a_graph(tmp_path):
    experiment = filled(
        tmp_path, MappoConfig(), model=STATEFUL, on_policy_collected_frames_per_batch=4 * 40
    )
    with pytest.warns(CompileWarning, match="its sequences have 40 steps; set algorithm.chunk_le"):
        assert compiled_update(experiment, "agents") is None


def test_too_few_steps_for_one_episode_say_so(tmp_path):
    frames = {"off_policy_collected_frames_per_batch": 12, "off_policy_n_envs_per_worker": 4}
    recall = MarlTdTask.RECALL.get_from_yaml()
    experiment = filled(tmp_path, QmixConfig(), recall, model=STATEFUL, **frames)
    with pytest.raises(RuntimeError, match="no whole episode to learn from yet: 4 environments"):
        update_of(experiment).run(1)


@pytest.mark.slow
def test_a_compiled_run_trains_and_saves(tmp_path):
    experiment = short_experiment(tmp_path / "run", "experiment.compile=on")
    experiment.run()
    assert isinstance(experiment.collector, CompiledCollector)
    assert experiment._compiled_updates["agents"] is not None
    assert (tmp_path / "run" / "policy").is_dir()


def test_auto_leaves_short_runs_alone(tmp_path):
    experiment = short_experiment(tmp_path / "run")
    experiment.run()
    assert not isinstance(experiment.collector, CompiledCollector)
    assert experiment._compiled_updates == {"agents": None}


@pytest.mark.slow
def test_another_compiled_update_goes_on_in_the_middle_of_a_period(tmp_path):
    """MATD3 moves its actor at every second step; three steps are done, and the next one moves it."""
    ours, theirs = both(tmp_path, Matd3Config(), task=MarlTdTask.SIMPLE_SPREAD.get_from_yaml())
    first = update_of(ours)
    first.run(3)
    theirs.losses["agents"].load_state_dict(ours.losses["agents"].state_dict())
    for name, optimiser in theirs.optimizers["agents"].items():
        optimiser.load_state_dict(copy.deepcopy(ours.optimizers["agents"][name].state_dict()))
    theirs.target_updaters["agents"].n_steps = ours.target_updaters["agents"].n_steps
    second = update_of(theirs)
    second.restore(first.snapshot())
    found = []
    for update in (first, second):
        torch.manual_seed(4)
        found.append(update.run(1))
    assert torch.equal(found[0]["grad_norm_loss_actor"], found[1]["grad_norm_loss_actor"])
    for key, value in tensors(ours).items():
        assert torch.equal(value, tensors(theirs)[key]), key


def test_an_update_that_is_compiled_only_now_goes_on_in_the_middle_of_a_period(tmp_path):
    """One step of MATD3 was made without: the next one moves the actor, and the targets."""
    experiment = filled(tmp_path, Matd3Config(policy_freq=2))
    loss = experiment.losses["agents"]
    networks = (loss.actor, loss.target_critic)
    experiment._optimizer_loop("agents")
    before = [next(network.parameters()).clone() for network in networks]
    update_of(experiment).run(1)
    after = [next(network.parameters()) for network in networks]
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [False, False]
