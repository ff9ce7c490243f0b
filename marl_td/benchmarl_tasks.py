"""Our tasks as BenchMARL tasks: ``task=marl_td/retail``, or ``MarlTdTask.RETAIL.get_task()``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from benchmarl.environments.common import Task, TaskClass
from torchrl.data import Composite
from torchrl.envs import EnvBase

from marl_td.tasks.base import TaskParams
from marl_td.tasks.registry import make_env, task_class


def params_class(name: str) -> type[TaskParams]:
    """The parameter dataclass of the task ``name``."""
    return task_class(name.lower()).Params


class MarlTdTaskClass(TaskClass):
    """A batched task of this package inside BenchMARL."""

    def get_env_fun(
        self, num_envs: int, continuous_actions: bool, seed: int | None, device: Any
    ) -> Callable[[], EnvBase]:
        """A function that makes the vectorised environment."""
        config = copy.deepcopy(self.config)
        name = self.name.lower()
        return lambda: make_env(
            name, num_envs, seed=seed, continuous=continuous_actions, device=device, **config
        )

    def supports_continuous_actions(self) -> bool:
        """Whether the task has continuous actions."""
        return task_class(self.name.lower()).has_continuous_actions

    def supports_discrete_actions(self) -> bool:
        """Whether the task has discrete actions."""
        return task_class(self.name.lower()).has_discrete_actions

    def max_steps(self, env: EnvBase) -> int:
        """The task's time limit."""
        return int(self.config["max_steps"])

    def has_render(self, env: EnvBase) -> bool:
        """Every task has an ``rgb_array`` renderer."""
        return True

    def group_map(self, env: EnvBase) -> dict[str, list[str]]:
        """Groups and their agents."""
        return env.group_map

    def state_spec(self, env: EnvBase) -> Composite | None:
        """The global state, where the task has one."""
        spec = env.full_observation_spec_unbatched
        return Composite({"state": spec["state"].clone()}) if "state" in spec.keys() else None

    def action_mask_spec(self, env: EnvBase) -> Composite | None:
        """The groups' action masks, where there are any."""
        return _select(env.full_observation_spec_unbatched, self.group_map(env), "action_mask")

    def observation_spec(self, env: EnvBase) -> Composite:
        """The groups' observations."""
        spec = _select(env.full_observation_spec_unbatched, self.group_map(env), "observation")
        assert spec is not None
        return spec

    def info_spec(self, env: EnvBase) -> Composite | None:
        """Our raw quantities are team quantities at the root; BenchMARL's per-group info is unused."""
        return None

    def action_spec(self, env: EnvBase) -> Composite:
        """The groups' actions."""
        return env.full_action_spec_unbatched

    @staticmethod
    def env_name() -> str:
        """Prefix of our registry names."""
        return "marl_td"


def _select(spec: Composite, groups: dict[str, list[str]], key: str) -> Composite | None:
    """The entry ``key`` of every group that has it, or None if none has."""
    found = {
        group: Composite({key: spec[group, key].clone()}, shape=(len(agents),))
        for group, agents in groups.items()
        if key in spec[group].keys()
    }
    return Composite(found) if found else None


class MarlTdTask(Task):
    """Enumerates our tasks for BenchMARL."""

    MATRIX_GAME = None
    TWO_STEP = None
    RETAIL = None
    BANKING = None

    @staticmethod
    def associated_class() -> type[TaskClass]:
        """The class that makes the environments."""
        return MarlTdTaskClass

    def get_from_yaml(self, path: str | None = None) -> TaskClass:
        """The task with its default parameters, or with those of the YAML file at ``path``."""
        params = params_class(self.name)
        if path is None:
            return self.get_task(asdict(params()))
        from benchmarl.utils import _read_yaml_config

        return self.get_task(asdict(params(**_read_yaml_config(path))))
