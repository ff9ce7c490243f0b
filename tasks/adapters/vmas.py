"""VMAS scenarios (extra ``vmas``) with true time limits and a random stream per environment.

TorchRL's ``VmasEnv`` differs in two ways that change what is learned. It reports the time limit as
``terminated``, so values are not bootstrapped there. And VMAS keeps the state of its random numbers
in one list that all environments of a process share, so that an evaluation changes the start states
of training, and seeding one environment makes another repeat itself.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from inspect import getmodule, getsource, unwrap
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Categorical, Composite
from torchrl.envs.libs.vmas import VmasWrapper

from marl_td.tasks.adapters.extras import import_extra
from marl_td.tasks.adapters.grouping import Grouping, group_agents, require_same
from marl_td.tasks.adapters.random_stream import RandomStream
from marl_td.tasks.adapters.vmas_state import vmas_restore, vmas_snapshot
from marl_td.tasks.adapters.vmas_task import VmasTask
from marl_td.tasks.base import checked_n_envs, require
from marl_td.tasks.registry import suggest
from marl_td.tasks.specs import DONE_KEYS
from marl_td.tasks.vector_env import VectorEnv

vmas: Any = import_extra("vmas", extra="vmas")
Environment: Any = import_extra("vmas.simulator.environment", extra="vmas").Environment


def from_vmas(
    scenario: Any,
    *,
    n_envs: int,
    seed: int | None = 0,
    max_steps: int | None = None,
    continuous_actions: bool = True,
    groups: Grouping | None = None,
    device: torch.device | str = "cpu",
    **options: Any,
) -> VmasScenarioEnv:
    """A TorchRL environment over ``n_envs`` copies of a VMAS scenario.

    Keys are those of our tasks; the scenario's info is kept per agent, ``(group, "info", name)``.

    Args:
        scenario: name of a VMAS scenario, or an instance of your own ``BaseScenario``.
        n_envs: number of copies, advanced together.
        seed: seed of the environment's own random stream; None draws one.
        max_steps: time limit in steps; reaching it truncates. None: no limit.
        continuous_actions: forces, or discrete moves.
        groups: None groups agents by name, or all in ``"agents"`` where names give no groups (so
            ``simple_tag`` has ``"adversary"`` and ``"agent"``); ``"all"``, ``"each"``, or
            ``{group: [agents]}``.
        device: where the simulation runs.
        options: further arguments of the scenario (``n_agents=4``) or of VMAS's ``Environment``
            (``clamp_actions=True``).

    Raises:
        ImportError: if ``vmas`` is not installed.
        ValueError: for an unknown scenario, a limit below 1, or a group with differing spaces.
    """
    n_envs = checked_n_envs(n_envs)
    require(max_steps is None or max_steps >= 1, f"max_steps must be at least 1; got {max_steps}.")
    settings = {
        "device": torch.device(device),
        "max_steps": max_steps,
        "continuous_actions": continuous_actions,
        **options,
    }
    blank = _scenario(scenario) if isinstance(scenario, str) else scenario
    env = _simulator(copy.deepcopy(blank), n_envs, seed, settings)
    env.rebuild = lambda n: _simulator(copy.deepcopy(blank), n, 0, settings)
    return VmasScenarioEnv(env, groups)


def _simulator(
    scenario: Any, n_envs: int, seed: int | None, settings: dict[str, Any]
) -> IsolatedEnvironment:
    stream = RandomStream(seed, settings["device"], draws_from_torch_alone(type(scenario)))
    with stream:
        return IsolatedEnvironment(stream, scenario, num_envs=n_envs, **settings)


def _scenario(name: str) -> Any:
    """A new scenario by name, from its real module (VMAS itself loads it under an empty name)."""
    folders = {"": vmas.scenarios, "mpe.": vmas.mpe_scenarios, "debug.": vmas.debug_scenarios}
    for folder, names in folders.items():
        if name in names:
            return import_extra(f"vmas.scenarios.{folder}{name}", extra="vmas").Scenario()
    known = [name for names in folders.values() for name in names]
    raise ValueError(f"unknown VMAS scenario '{name}'. {suggest(name, known)}")


def draws_from_torch_alone(scenario: type) -> bool:
    """Whether it is one of VMAS's own scenarios whose text does not name NumPy's or Python's generators."""
    if not scenario.__module__.startswith("vmas.scenarios."):
        return False
    text = getsource(getmodule(scenario) or scenario)
    return not re.search(r"(np|numpy)\.random|(import|from) random|numpy import", text)


def _isolated(name: str) -> Callable[..., Any]:
    """VMAS's method without its swap of the shared random state, inside the environment's own."""
    plain = unwrap(getattr(Environment, name))

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self.stream:
            return plain(self, *args, **kwargs)

    method.__name__, method.__doc__ = name, plain.__doc__
    return method


class IsolatedEnvironment(Environment):
    """VMAS's environment with its own random stream; its ``done`` is true for real ends only.

    Args:
        stream: the random stream; to be entered while this is built.
        args: arguments of VMAS's ``Environment``, like ``kwargs``.

    Attributes:
        rebuild: makes the same environment with another number of copies; set by :func:`from_vmas`.
    """

    def __init__(self, stream: RandomStream, *args: Any, **kwargs: Any) -> None:
        self.stream = stream
        self.rebuild: Callable[[int], IsolatedEnvironment] | None = None
        self.truncated: Tensor | None = None
        unwrap(Environment.__init__)(self, *args, **kwargs)

    step = _isolated("step")
    reset = _isolated("reset")
    reset_at = _isolated("reset_at")
    get_from_scenario = _isolated("get_from_scenario")
    get_random_action = _isolated("get_random_action")
    done = _isolated("done")
    render = _isolated("render")

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Begin the environment's stream again."""
        self.stream.seed(seed)
        return [seed]

    def _done(self) -> Tensor:
        terminated: Tensor = self.scenario.done().clone()
        at_limit = torch.zeros_like(terminated)
        if self.max_steps is not None:
            at_limit = self.steps >= self.max_steps
        self.truncated = at_limit & ~terminated
        return terminated


class VmasScenarioEnv(VmasWrapper):
    """TorchRL's wrapper with ``truncated`` told from ``terminated``; built by :func:`from_vmas`."""

    def __init__(self, env: IsolatedEnvironment, groups: Grouping | None = None) -> None:
        names = [agent.name for agent in env.agents]
        default = self._get_default_group_map
        group_map = default(names) if groups is None else group_agents(names, groups)
        for group, agents in group_map.items():
            seats = [names.index(agent) for agent in agents]
            require_same("observation", group, agents, [env.observation_space[i] for i in seats])
            require_same("action", group, agents, [env.action_space[i] for i in seats])
        super().__init__(env=env, group_map=group_map)

    def _make_specs(self, env: IsolatedEnvironment) -> None:
        super()._make_specs(env)
        flag = Categorical(n=2, shape=torch.Size((1,)), dtype=torch.bool, device=self.device)
        self.full_done_spec_unbatched = Composite({key: flag.clone() for key in DONE_KEYS})

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        with self._env.stream:  # one swap for all the calls below
            return self._told_apart(super()._reset(tensordict, **kwargs))

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        with self._env.stream:
            return self._told_apart(super()._step(tensordict))

    def snapshot(self) -> dict[str, Any]:
        """Where the simulation and its random stream are, as tensors and numbers."""
        return {"simulation": vmas_snapshot(self._env), "stream": self._env.stream.snapshot()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`snapshot` gave; raises ``ValueError`` for another scenario's."""
        vmas_restore(self._env, state["simulation"])
        self._env.stream.restore(state["stream"])

    def as_batched_task(self) -> VectorEnv:
        """The same scenario as a task of pure functions, which can be compiled; a few seconds.

        Its random numbers are others than this environment's, and follow from them.

        Raises:
            Untraceable: if the scenario is not a pure function of tensors; the message says where.
        """
        with self._env.stream:
            seed = int(torch.randint(2**62, ()))
        return VectorEnv(VmasTask(self), self._env.num_envs, seed)

    def _told_apart(self, out: TensorDictBase) -> TensorDictBase:
        truncated = self._env.truncated.unsqueeze(-1)
        return out.update({"truncated": truncated, "done": out["terminated"] | truncated})
