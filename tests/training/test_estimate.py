"""The compiled advantage estimate adds what the loss's own adds."""

from __future__ import annotations

import pytest
import torch
from benchmarl_runs import IGNORED, STATEFUL, small_run
from discrete_teams import teams_task

from marl_td.algorithms.maddpg import MaddpgConfig
from marl_td.algorithms.mappo import MappoConfig
from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.models.compiling import CompileWarning
from marl_td.signals import agent_signals
from marl_td.training.estimate import CompiledEstimate, compile_estimate

pytestmark = IGNORED

DISCOUNTS = {"gamma": 0.9, "lmbda": 0.8}
ESTIMATES = ("state_value", "old_value", "advantage", "value_target")


def collected(folder, algorithm, **settings):
    """An experiment, and a batch ``[n_envs, T]`` of it with episodes that end inside."""
    experiment = small_run(folder, algorithm, MarlTdTask.TWO_STEP.get_from_yaml(), **settings)
    batch = next(iter(experiment.collector))
    experiment._on_batch_collected(batch)
    assert batch["next", "done"].any() and not batch["next", "done"].all()
    return experiment, agent_signals(batch, "agents")


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "algorithm",
    [MappoConfig(value_norm="popart"), MappoConfig(critic_scope="agent", advantage_norm="agent")],
    ids=["popart", "own critics"],
)
def test_the_compiled_estimate_equals_the_losss(algorithm, backend, tmp_path):
    experiment, batch = collected(tmp_path, algorithm)
    loss = experiment.losses["agents"]
    compiled = CompiledEstimate(loss, **DISCOUNTS, backend=backend)
    for _ in range(2):
        expected = loss.estimate(batch.clone(), **DISCOUNTS)
        found = compiled(batch.clone())
        assert set(found.keys(True, True)) == set(expected.keys(True, True))
        for name in ESTIMATES:
            one, two = found["agents", name], expected["agents", name]
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
        with torch.no_grad():  # the second round's graph sees what training has changed
            for parameter in loss.critic.parameters():
                parameter.mul_(1.5)
        loss.value_norm.update(expected["agents", "value_target"].squeeze(-1))
    assert compiled.compile_seconds > 0.0


def test_the_compiled_estimate_ends_a_return_with_the_agents_life(tmp_path):
    task = teams_task(blue=0, mortal=True)
    experiment = small_run(tmp_path, MappoConfig(mask_dead_values=True), task)
    batch = next(iter(experiment.collector))
    assert not batch["next", "red", "mask"].all()
    loss, batch = experiment.losses["red"], agent_signals(batch, "red")
    expected = loss.estimate(batch.clone(), **DISCOUNTS)
    found = CompiledEstimate(loss, **DISCOUNTS, backend="aot_eager")(batch.clone())
    for name in ESTIMATES:
        torch.testing.assert_close(found["red", name], expected["red", name], rtol=1e-4, atol=1e-5)
    loss.mask_dead_values = False
    other = loss.estimate(batch.clone(), **DISCOUNTS)["red", "value_target"]
    assert (other != expected["red", "value_target"]).any()


def test_the_algorithm_uses_it(tmp_path):
    experiment, batch = collected(tmp_path, MappoConfig())
    expected = experiment.algorithm.prepare_batch("agents", batch.clone())
    calls = []

    def estimate(data):
        calls.append(data.batch_size)
        return experiment.losses["agents"].estimate(data, **experiment.algorithm.discounts)

    experiment.algorithm.estimators["agents"] = estimate
    found = experiment.algorithm.prepare_batch("agents", batch.clone())
    assert calls == [batch.batch_size]
    assert (found["agents", "advantage"] == expected["agents", "advantage"]).all()


def test_recurrent_critics_and_other_algorithms_are_left_alone(tmp_path):
    (tmp_path / "mappo").mkdir()
    (tmp_path / "maddpg").mkdir()
    recurrent, _ = collected(tmp_path / "mappo", MappoConfig(), model=STATEFUL)
    with pytest.warns(CompileWarning, match="advantage estimate is not compiled: the critic is r"):
        compile_estimate(recurrent.algorithm, "agents")
    assert recurrent.algorithm.estimators == {}
    other, _ = collected(tmp_path / "maddpg", MaddpgConfig())
    compile_estimate(other.algorithm, "agents")
    assert not hasattr(other.algorithm, "estimators")
