"""Policies and losses live on one device: nothing of them meets another, and none waits for the host.

On a GPU itself: `-m gpu`. Here, without one, see `tests/helpers/other_device.py`.
"""

import pytest
from algorithm_cases import algorithm_cases
from benchmarl.experiment import Experiment
from benchmarl_runs import IGNORED, STATEFUL
from discrete_teams import teams_task
from other_device import OTHER, strict

from marl_td.algorithms import checks
from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.registry import algorithm_config

pytestmark = IGNORED

CASES = algorithm_cases()
"""Recurrent networks where actions are discrete, others where they are continuous."""
ASKS_THE_HOST = ("hatrpo",)
"""Its line search tries steps until one is good enough."""


@pytest.fixture
def both(small_experiment, monkeypatch):
    """``both(name, continuous)``: an experiment here, and the same training elsewhere."""

    def build(name, continuous):
        task = MarlTdTask.SIMPLE_TAG.get_from_yaml() if continuous else teams_task(mortal=True)
        config = algorithm_config(name)()
        options = {
            "model": None if continuous else STATEFUL,
            "prefer_continuous_actions": continuous,
        }
        here = small_experiment(config, task, **options)
        # Theirs would copy weights, of which there are none elsewhere, to the environment's device.
        monkeypatch.setattr(Experiment, "_setup_collector", lambda self: None)
        return here, small_experiment(config, task, train_device=OTHER.type, **options)

    # One look at each batch on the host, and TorchRL's own at bounds, which graphs do not have.
    monkeypatch.setattr(checks, "check_finite", lambda batch: None)
    monkeypatch.setattr("torchrl.modules.distributions.continuous.is_compiling", lambda: True)
    return build


def collected(experiment):
    """A batch as the experiment's own loop would hand it to its groups."""
    batch = next(iter(experiment.collector))
    experiment._on_batch_collected(batch)
    return batch


@pytest.mark.parametrize(("name", "continuous"), CASES)
def test_nothing_meets_another_device(name, continuous, both):
    here, elsewhere = both(name, continuous)
    batch = collected(here)
    with strict():
        acted = elsewhere.algorithm.get_policy_for_collection()(batch[:, 0].to(OTHER))
        for group in here.group_map:
            assert acted[group, "action"].device == OTHER
    for group, loss in elsewhere.losses.items():
        data = batch.exclude(*here._get_excluded_keys(group)).to(OTHER)
        vars(loss)["rows"] = None  # which only BenchMARL's optimiser asks for on the host
        if name in ASKS_THE_HOST:
            loss.eval()
        with strict():
            data = elsewhere.algorithm.process_batch(group, data)
            out = loss(data if elsewhere.algorithm.has_rnn else data.reshape(-1))
            sum(out[key] for key in out.keys() if key.startswith("loss")).backward()
        for key, parameter in loss.named_parameters():
            assert parameter.device == OTHER, key
        assert any(parameter.grad is not None for parameter in loss.parameters())
        assert {value.device for value in out.values()} == {OTHER}
