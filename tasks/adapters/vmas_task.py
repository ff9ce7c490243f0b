"""A VMAS scenario as a batched task: pure functions that compile, with VMAS's own numbers."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import torch
from torch import Tensor
from torchrl.data import Bounded

from marl_td.tasks.adapters.random_stream import RandomStream
from marl_td.tasks.adapters.vmas_step import Shown, Simulation, StepGraph
from marl_td.tasks.base import Box, Discrete, Groups, GroupSpec, Noise, Step, Task, TaskParams
from marl_td.tasks.layout import envs_last

NO_LIMIT = 2**62
USUAL_STEPS = 16


class VmasTask(Task[TaskParams, Any]):
    """The scenario of a :class:`~marl_td.tasks.adapters.vmas.VmasScenarioEnv` as a batched task.

    Its state are the simulator's tensors that a step reads, and what the scenario shows of them. Fresh states
    are drawn by VMAS itself, in a world that has as many copies as are wanted; this is the noise of a reset.

    Two agents that are apart in every copy are skipped by VMAS before it looks closer. Here they never are:
    where a scenario punishes nearness (``navigation``, below 5 mm), VMAS forgets it unless the two touch in
    some copy, so that its rewards depend on the number of copies.

    Args:
        env: the environment; it is left as it is.

    Raises:
        Untraceable: if the scenario's step is not a pure function of tensors (``discovery`` tries until
            a place is free).
    """

    name = "vmas"
    Params = TaskParams
    draws_starts_slowly = True

    def __init__(self, env: Any) -> None:
        simulator = env._env
        limit = NO_LIMIT if simulator.max_steps is None else simulator.max_steps
        super().__init__(TaskParams(limit), simulator.continuous_actions, simulator.device)
        self._build = simulator.rebuild
        self._draws: dict[int, Simulation] = {}
        seats = {agent.name: i for i, agent in enumerate(simulator.agents)}
        self._seats = {
            group: [seats[name] for name in names] for group, names in env.group_map.items()
        }
        self._step = StepGraph(self._build, simulator.num_envs)
        one = Simulation(self._build(1))
        with one.env.stream:
            start = one.show()
        self._groups = {group: self._spec(env, group, start) for group in env.group_map}
        self._fields = [f"slot_{i}" for i in range(len(self._step.paths))]
        shown = list(self._shown_fields(start))
        self._state = namedtuple("VmasState", [*self._fields, *shown])  # type: ignore[misc]

    @property
    def groups(self) -> dict[str, GroupSpec]:
        """The scenario's groups."""
        return self._groups

    @property
    def usual_episode(self) -> int:
        """VMAS does not say when its scenarios may end."""
        return min(USUAL_STEPS, self.params.max_steps)

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Fresh states of ``n_envs`` copies."""
        if n_envs not in self._draws:
            self._draws[n_envs] = Simulation(self._build(n_envs))
        simulation = self._draws[n_envs]
        stream: RandomStream = simulation.env.stream
        device = generator.device
        stream.seed(int(torch.randint(2**62, (), generator=generator, device=device)))
        with stream:
            simulation.reset()
            values = [value.clone() for value in simulation.read(self._step.paths)]
            shown = self._shown_fields(simulation.show())
        return {**dict(zip(self._fields, values, strict=True)), **shown}

    def reset(self, n_envs: int, noise: Noise) -> Any:
        """The fresh states."""
        return self._state(**{name: envs_last(value) for name, value in noise.items()})

    def step(self, state: Any, action: Groups, noise: Noise) -> Step[Any]:
        """One step of the scenario; its own random numbers come from torch's global stream."""
        by_seat: dict[int, Tensor] = {}
        for group, seats in self._seats.items():
            given = action[group]
            for i, seat in enumerate(seats):
                one = given[:, i]
                by_seat[seat] = one if one.ndim == 2 else one.unsqueeze(-1)
        actions = [by_seat[seat] for seat in range(len(by_seat))]
        values, shown = self._step(state[: len(self._fields)], actions)
        reward = {
            group: torch.stack([shown.reward[seat].float().flatten() for seat in seats], 1)
            for group, seats in self._seats.items()
        }
        after = self._state(*values, **self._shown_fields(shown))
        return Step(after, reward, shown.terminated, {})

    def observe(self, state: Any) -> Groups:
        """The scenario's observations."""
        return {group: getattr(state, f"observation_{i}") for i, group in enumerate(self._groups)}

    def agent_info(self, state: Any) -> dict[str, Groups]:
        """The scenario's info."""
        return {
            name: {
                group: getattr(state, f"info_{i}_{j}")
                for i, (group, spec) in enumerate(self._groups.items())
                for j, own in enumerate(spec.info)
                if own == name
            }
            for name in dict.fromkeys(name for spec in self._groups.values() for name in spec.info)
        }

    # ------------------------------------------------------------------ parts
    def _shown_fields(self, shown: Shown) -> dict[str, Tensor]:
        """Observations and infos of the groups, ``[n_envs, n_agents, d]``."""
        out = {}
        for i, seats in enumerate(self._seats.values()):
            seen = [shown.observation[seat] for seat in seats]
            out[f"observation_{i}"] = torch.stack(seen, 1)
            for j, name in enumerate(shown.info[seats[0]]):
                infos = [shown.info[seat][name] for seat in seats]
                out[f"info_{i}_{j}"] = torch.stack(infos, 1)
        return out

    def _spec(self, env: Any, group: str, start: Shown) -> GroupSpec:
        seats = self._seats[group]
        spec = env.full_action_spec_unbatched[group, "action"]
        action: Box | Discrete
        if isinstance(spec, Bounded):
            low, high = spec.space.low[0].tolist(), spec.space.high[0].tolist()
            action = Box(tuple(low), tuple(high))
        else:
            action = Discrete(int(spec.space.n))
        return GroupSpec(
            n_agents=len(seats),
            d_obs=start.observation[seats[0]].shape[-1],
            action=action,
            info={name: value.shape[-1] for name, value in start.info[seats[0]].items()},
        )
