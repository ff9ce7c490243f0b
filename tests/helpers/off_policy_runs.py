"""What the tests of the deterministic and soft actor-critics run, and look at."""

from __future__ import annotations

from benchmarl.environments import VmasTask
from discrete_teams import teams_task
from toy_tasks import Hunt, HuntParams

from marl_td.benchmarl_tasks import FunctionTask
from marl_td.tasks.vector_env import VectorEnv


def simple_tag():
    """One runner against three chasers, continuous actions, no global state."""
    task = VmasTask.SIMPLE_TAG.get_from_yaml()
    task.config["max_steps"] = 4
    return task


def discrete_teams():
    """Two teams with masks and a global state."""
    return teams_task(max_steps=4)


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
