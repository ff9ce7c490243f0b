"""Our tasks, adapted environments and your own as BenchMARL tasks.

* ``task=marl_td/retail`` or ``MarlTdTask.RETAIL.get_task()``: a batched task of this package;
* ``task=marl_td/mpe task.scenario=simple_spread_v3``: an adapted environment;
* ``task=marl_td/pettingzoo task.env=my_env:make``: a PettingZoo environment of yours;
* ``FunctionTask("mine", make_env, max_steps=50)``: any TorchRL environment, from a function of yours;
* ``task=acme/line``: a task that :func:`marl_td.extend.register_task` added.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from typing import Any

from benchmarl.environments.common import Task, TaskClass
from torchrl.data import Composite
from torchrl.envs import EnvBase, RewardSum, Transform

from marl_td.tasks.adapters.by_name import ADAPTED, action_kinds, adapted_env
from marl_td.tasks.base import Task as BatchedTask
from marl_td.tasks.base import TaskParams
from marl_td.tasks.registry import TASKS, make_env, task_class
from marl_td.tasks.vector_env import batched_task

PYTHON_COPIES = 16
"""Copies of a PettingZoo environment that an evaluation runs side by side at most."""
OWN_NAMESPACE = "own"
"""First part of the registry name of a task that was given none."""
NOT_OBSERVED = ("action_mask", "mask", "info")
"""Entries of a group beside its observation; networks do not read them as features."""


class SpecTask(TaskClass):
    """A BenchMARL task whose specs are read off an environment that follows ``docs/shapes.md``."""

    max_copies: int | None = None
    """How many copies an evaluation runs side by side at most; None for its own limit."""

    def max_steps(self, env: EnvBase) -> int:
        """The time limit."""
        return int(self.config["max_steps"])

    def has_render(self, env: EnvBase) -> bool:
        """Whether evaluation can draw the environment."""
        return True

    def group_map(self, env: EnvBase) -> dict[str, list[str]]:
        """Groups and their agents."""
        return env.group_map

    def state_spec(self, env: EnvBase) -> Composite | None:
        """The global state, where the environment has one."""
        spec = env.full_observation_spec_unbatched
        return Composite({"state": spec["state"].clone()}) if "state" in spec.keys() else None

    def action_mask_spec(self, env: EnvBase) -> Composite | None:
        """The groups' action masks, where there are any."""
        masks = {}
        for group in self.group_map(env):
            spec = env.full_observation_spec_unbatched[group]
            if "action_mask" in spec.keys():
                masks[group] = Composite(
                    {"action_mask": spec["action_mask"].clone()}, shape=spec.shape
                )
        return Composite(masks) if masks else None

    def observation_spec(self, env: EnvBase) -> Composite:
        """The groups' observations."""
        observations = {}
        for group in self.group_map(env):
            spec = env.full_observation_spec_unbatched[group]
            entries = {key: spec[key].clone() for key in spec.keys() if key not in NOT_OBSERVED}
            observations[group] = Composite(entries, shape=spec.shape)
        return Composite(observations)

    def info_spec(self, env: EnvBase) -> Composite | None:
        """Our raw quantities are team quantities at the root; BenchMARL's per-group info is unused."""
        return None

    def action_spec(self, env: EnvBase) -> Composite:
        """The groups' actions."""
        return env.full_action_spec_unbatched

    def get_reward_sum_transform(self, env: EnvBase) -> Transform:
        """Sums every reward of an episode; one reset key per reward, which BenchMARL's lacks for the root."""
        return RewardSum(in_keys=env.reward_keys, reset_keys=["_reset"] * len(env.reward_keys))

    @staticmethod
    def env_name() -> str:
        """Prefix of our registry names."""
        return "marl_td"


class MarlTdTaskClass(SpecTask):
    """A task of this package's tables inside BenchMARL."""

    @property
    def _key(self) -> str:
        return self.name.lower()

    def get_env_fun(
        self, num_envs: int, continuous_actions: bool, seed: int | None, device: Any
    ) -> Callable[[], EnvBase]:
        """A function that makes the vectorised environment."""
        config = copy.deepcopy(self.config)
        build = make_env if self._key in TASKS else adapted_env
        return lambda: build(
            self._key, num_envs, seed=seed, continuous=continuous_actions, device=device, **config
        )

    def max_steps(self, env: EnvBase) -> int:
        """The time limit of the task itself, which may be above the one in the settings."""
        task = batched_task(env)
        return super().max_steps(env) if task is None else int(task.params.max_steps)

    def supports_continuous_actions(self) -> bool:
        """Whether the task has continuous actions."""
        if self._key in TASKS:
            return task_class(self._key).has_continuous_actions
        return "continuous" in self._action_kinds

    def supports_discrete_actions(self) -> bool:
        """Whether the task has discrete actions."""
        if self._key in TASKS:
            return task_class(self._key).has_discrete_actions
        return "discrete" in self._action_kinds

    @property
    def needed_actions(self) -> frozenset[str]:
        """Kinds of action that an algorithm must be able to learn, because some agent has no other."""
        return self._action_kinds if self._key == "pettingzoo" and self.config else frozenset()

    @cached_property
    def _action_kinds(self) -> frozenset[str]:
        return action_kinds(self._key, self.config)

    @property
    def max_copies(self) -> int | None:  # type: ignore[override]
        """Environments that advance one by one gain nothing from many copies, which take memory."""
        return PYTHON_COPIES if self._key == "pettingzoo" else None

    def has_render(self, env: EnvBase) -> bool:
        """Whether the task draws itself."""
        if self._key in TASKS:
            return task_class(self._key).render is not BatchedTask.render
        return getattr(env, "render_mode", None) == "rgb_array"


class FunctionTask(SpecTask):
    """Your own environment inside BenchMARL.

    Runs on it can be evaluated and resumed where it is registered (:func:`marl_td.extend.register_task`).

    Args:
        name: how runs are labelled, such as ``"arena"`` or ``"acme/arena"``.
        make_env: ``make_env(num_envs, continuous_actions, seed, device) -> EnvBase`` with batch size
            ``[num_envs]``, such as a call of an adapter of :mod:`marl_td.tasks.adapters`. It must be a
            function of a module (not a lambda) if BenchMARL is to save the experiment. One that has a further
            argument ``max_steps`` is given the time limit, so that ``task.max_steps=N`` changes it.
        max_steps: time limit of an evaluation episode.
        continuous: whether continuous actions are offered.
        discrete: whether discrete actions are offered.
    """

    def __init__(
        self,
        name: str,
        make_env: Callable[..., EnvBase],
        *,
        max_steps: int,
        continuous: bool = True,
        discrete: bool = False,
    ) -> None:
        namespace, _, leaf = name.rpartition("/")
        super().__init__(leaf, {"max_steps": max_steps})
        self.namespace = namespace or OWN_NAMESPACE
        self.make_env = make_env
        self.continuous = continuous
        self.discrete = discrete

    def env_name(self) -> str:  # type: ignore[override]
        """First part of its registry name; it is not ours, whatever it is called."""
        return self.namespace

    def get_env_fun(
        self, num_envs: int, continuous_actions: bool, seed: int | None, device: Any
    ) -> Callable[[], EnvBase]:
        """A function that makes the vectorised environment."""
        options = {}
        bound = getattr(self.make_env, "keywords", {})  # of a functools.partial
        if "max_steps" in inspect.signature(self.make_env).parameters and "max_steps" not in bound:
            options["max_steps"] = int(self.config["max_steps"])
        return lambda: self.make_env(num_envs, continuous_actions, seed, device, **options)

    def supports_continuous_actions(self) -> bool:
        """As given."""
        return self.continuous

    def supports_discrete_actions(self) -> bool:
        """As given."""
        return self.discrete

    def has_render(self, env: EnvBase) -> bool:
        """Drawing is left to the environment's own tools."""
        return False


class MarlTdTask(Task):
    """Enumerates our tasks for BenchMARL."""

    MATRIX_GAME = None
    SHARING_GAME = None
    TWO_STEP = None
    LEVERS = None
    RECALL = None
    RETAIL = None
    BANKING = None
    SIMPLE_SPREAD = None
    SIMPLE_SPEAKER_LISTENER = None
    SIMPLE_TAG = None
    SIMPLE_ADVERSARY = None
    PURSUIT = None
    PREDATOR_PREY = None
    INTERSECTION = None
    TRAFFIC_JUNCTION = None
    PONG = None
    PRICING = None
    MAPF = None
    WAREHOUSE = None
    MARKET_MAKING = None
    ENERGY_GRID = None
    DRONES = None
    MPE = None
    VMAS = None
    PETTINGZOO = None

    @staticmethod
    def associated_class() -> type[TaskClass]:
        """The class that makes the environments."""
        return MarlTdTaskClass

    @property
    def params(self) -> type[TaskParams]:
        """The dataclass of its parameters."""
        key = self.name.lower()
        return ADAPTED[key] if key in ADAPTED else task_class(key).Params

    def get_from_yaml(self, path: str | None = None) -> TaskClass:
        """The task with its default parameters, or with those of the YAML file at ``path``."""
        return self.get_task(asdict(from_yaml(self.params, path)))


def from_yaml(params: type[Any], path: str | None) -> Any:
    """The defaults of a dataclass, or what the YAML file at ``path`` sets of it."""
    if path is None:
        return params()
    from benchmarl.utils import _read_yaml_config

    return params(**_read_yaml_config(path))
