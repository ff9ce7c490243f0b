"""One step of a VMAS environment as a pure graph of its tensors.

VMAS keeps the state of a simulation in attributes of many objects and changes them in place. Here the step is
run once with recorded tensors: what it reads becomes inputs, what it leaves behind outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from marl_td.tasks.adapters.slots import Path, Slot, find_numbers, find_objects, find_slots
from marl_td.tasks.adapters.tracing import (
    Assuming,
    Untraceable,
    cut,
    inputs_of,
    outputs_of,
    reached_inputs,
    trace,
)
from marl_td.tasks.layout import envs_last

ASSUMED = {
    "collides": True,  # it skips pairs that are apart in all copies; their forces are zero anyway
    "_set_action": False,  # whether an action is NaN or out of range
    "_check_discrete_action": True,
    "action_callback": True,  # whether a scripted action is in range
}
"""VMAS's questions about values whose answers change nothing for valid actions."""

CHECKED_STEPS = 12
CHECKED_RESETS = 8
TOLERANCE = 1e-4
"""Largest difference between graph and simulator, relative to values above 1."""


class Shown(NamedTuple):
    """What VMAS shows after a step; lists by agent."""

    observation: list[Tensor]
    reward: list[Tensor]
    info: list[dict[str, Tensor]]
    terminated: Tensor


class Simulation:
    """A VMAS environment and the places where it keeps its tensors.

    Args:
        env: VMAS's environment, fresh.
    """

    def __init__(self, env: Any) -> None:
        self.env = env
        own = type(env.scenario).__module__.partition(".")[0]
        self.packages = ("vmas", own)
        self.slots: dict[Path, Slot] = find_slots(env.scenario, self.packages)

    def read(self, paths: list[Path]) -> list[Tensor]:
        """The tensors at ``paths``."""
        values: list[Tensor] = [self.slots[path].get() for path in paths]
        return values

    def write(self, paths: list[Path], values: list[Tensor]) -> None:
        """Put tensors there."""
        for path, value in zip(paths, values, strict=True):
            self.slots[path].set(value)

    def python(self) -> dict[Path, Any]:
        """Its Python numbers, and which object refers to which; a graph cannot change them."""
        root = self.env.scenario
        return {**find_numbers(root, self.packages), **find_objects(root, self.packages)}

    def reset(self) -> None:
        """Fresh episodes in all copies."""
        self.env.reset(return_observations=False)

    def step(self, actions: list[Tensor]) -> Shown:
        """VMAS's own step, part by part, with actions ``[n_envs, d]`` of every agent."""
        env, scenario = self.env, self.env.scenario
        for agent, action in zip(env.agents, actions, strict=True):
            env._set_action(action, agent)
        for agent in env.world.agents:
            scenario.env_process_action(agent)
        scenario.pre_step()
        env.world.step()
        scenario.post_step()
        return self.show(with_reward=True)

    def show(self, with_reward: bool = False) -> Shown:
        """What the scenario shows, asked for in VMAS's order."""
        scenario, agents = self.env.scenario, self.env.agents
        rewards = [scenario.reward(agent).clone() for agent in agents] if with_reward else []
        observations = [scenario.observation(agent) for agent in agents]
        for agent, seen in zip(agents, observations, strict=True):
            if not isinstance(seen, Tensor) or seen.ndim != 2:
                raise Untraceable(f"the observation of agent '{agent.name}' is not a vector")
        observations = [seen.clone() for seen in observations]
        infos = [
            {
                name: value.to(torch.float32).reshape(len(value), -1).clone()
                for name, value in scenario.info(agent).items()
            }
            for agent in agents
        ]
        return Shown(observations, rewards, infos, scenario.done().to(torch.bool).clone())

    def random_actions(self) -> list[Tensor]:
        """Actions ``[n_envs, d]`` of every agent."""
        actions = [self.env.get_random_action(agent) for agent in self.env.agents]
        return [a if a.ndim == 2 else a.unsqueeze(-1) for a in actions]


class StepGraph:
    """The step of a VMAS environment as a function of the tensors that it needs.

    Args:
        build: makes fresh environments of the scenario by number of copies; their random streams are entered
            by themselves.
        n_envs: number of copies.

    Raises:
        Untraceable: if the step is not a pure function of tensors, or the graph does not do what VMAS does.
    """

    def __init__(self, build: Callable[[int], Any], n_envs: int) -> None:
        simulation = Simulation(build(n_envs))
        paths = _batched(simulation, Simulation(build(n_envs + 1)))
        _require_batched_changes(Simulation(build(n_envs)), paths)
        self._trace(simulation, paths)
        self._drop_constants(simulation)
        self._check(Simulation(build(n_envs)))

    def __call__(self, state: tuple[Tensor, ...], actions: list[Tensor]) -> tuple[Any, Shown]:
        """The tensors of the next state and what is shown of it, for those of :attr:`paths`."""
        values = dict(zip(self.paths, state, strict=True))
        inputs = [values.get(p, self._constants.get(p)) for p in self._inputs]
        outputs = self._graph(*inputs, *actions)
        n = len(self.paths)
        shown: Shown = tree_unflatten(list(outputs[n:]), self._shown)
        return outputs[:n], shown

    # ------------------------------------------------------------------ parts
    def _trace(self, simulation: Simulation, paths: list[Path]) -> None:
        """The graph, with the inputs that what is shown depends on, now or later."""
        before = simulation.read(paths)
        actions = simulation.random_actions()

        def program(*values: Tensor) -> list[Tensor]:
            simulation.write(paths, list(values[: len(paths)]))
            shown, self._shown = tree_flatten(simulation.step(list(values[len(paths) :])))
            return [*simulation.read(paths), *shown]

        with simulation.env.stream:
            graph = trace(program, [*before, *actions], ASSUMED)
        reached = reached_inputs(graph)
        n = len(paths)
        needed: set[int] = set()
        found = set().union(*reached[n:])
        while found - needed:
            needed |= found
            found = set().union(*(reached[i] for i in needed if i < n))
        kept = sorted(i for i in needed if i < n)
        self._inputs = [paths[i] for i in kept]
        shown = range(n, len(reached))
        action_inputs = range(n, n + len(actions))
        self._graph = cut(graph, [*kept, *action_inputs], [*kept, *shown])

    def _drop_constants(self, simulation: Simulation) -> None:
        """What neither a step nor a reset changes is not state."""
        placeholders, outputs = inputs_of(self._graph), outputs_of(self._graph)
        first = [value.clone() for value in self._fresh(simulation)]
        second = self._fresh(simulation)
        fixed = {
            path: envs_last(first[i])
            for i, path in enumerate(self._inputs)
            if outputs[i] is placeholders[i] and torch.equal(first[i], second[i])
        }
        kept = [i for i, path in enumerate(self._inputs) if path not in fixed]
        shown = range(len(self._inputs), len(outputs))
        self._graph = cut(self._graph, list(range(len(placeholders))), [*kept, *shown])
        self._constants: dict[Path, Tensor] = fixed
        self.paths = [self._inputs[i] for i in kept]

    def _fresh(self, simulation: Simulation) -> list[Tensor]:
        simulation.reset()
        return simulation.read(self._inputs)

    @torch.no_grad()
    def _check(self, simulation: Simulation) -> None:
        """Run VMAS and the graph side by side."""
        stream = simulation.env.stream
        for number in range(CHECKED_STEPS):
            state = tuple(value.clone() for value in simulation.read(self.paths))
            actions = simulation.random_actions()
            with stream, Assuming(ASSUMED):
                torch.default_generator.manual_seed(number)
                shown = simulation.step([action.clone() for action in actions])
                expected = [*simulation.read(self.paths), *tree_flatten(shown)[0]]
                torch.default_generator.manual_seed(number)
                after, seen = self(state, actions)
            for value, right in zip([*after, *tree_flatten(seen)[0]], expected, strict=True):
                if not torch.allclose(
                    value.double(), right.double(), TOLERANCE, TOLERANCE, equal_nan=True
                ):
                    worst = (value.double() - right.double()).abs().max().item()
                    raise Untraceable(
                        f"its graph differs from the scenario by {worst:.2g} in step {number}"
                    )


def _batched(simulation: Simulation, larger: Simulation) -> list[Path]:
    """Where there are tensors with one row per copy: those that are larger with more copies."""
    return [
        path
        for path, slot in simulation.slots.items()
        if path in larger.slots and larger.slots[path].get().shape != slot.get().shape
    ]


def _require_batched_changes(simulation: Simulation, paths: list[Path]) -> None:
    """Steps and resets may change the tensors at ``paths`` only: a graph cannot change anything else."""
    shared = [path for path in simulation.slots if path not in set(paths)]

    def rest() -> dict[Path, Any]:
        tensors = {path: simulation.slots[path].get().tolist() for path in shared}
        return {**simulation.python(), **tensors}

    def step() -> None:
        with simulation.env.stream:
            simulation.step(simulation.random_actions())

    step()  # the first makes what it needs
    for what, change in [("step", step), *[("reset", simulation.reset)] * CHECKED_RESETS]:
        before = rest()
        change()
        after = rest()
        changed = [path for path, value in before.items() if after.get(path, value) != value]
        if changed:
            name = ".".join(changed[0])
            raise Untraceable(f"a {what} changes '{name}', which all copies share")
