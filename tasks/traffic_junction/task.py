"""Cars drive fixed routes over junctions; each sees little and decides to move or to wait.

Description:
    Traffic junction, the benchmark of learned communication: Sukhbaatar et al. 2016, "Learning Multiagent
    Communication with Backpropagation", https://arxiv.org/abs/1605.07736 (medium), and Singh et al. 2019,
    "Learning when to Communicate at Scale", https://arxiv.org/abs/1812.09755 (easy, medium, hard), whose
    code's rules these are. Cars arrive at random at the entries of the roads, follow a random route and
    leave the board at its end. Two cars on one cell have collided; both go on, but the episode has failed.

Action space: discrete: 0 gas (one cell on along the route), 1 brake (stay). Mask: agents without a car on the
    road can only brake, dead agents with one can only gas.

Observation space (per agent, float32), zeros for agents without a car on the road; one-hot columns first:

    ===========  ===============  ====================================================================
    columns      width            content
    ===========  ===============  ====================================================================
    cell         n_cells          which road cell it stands on
    entry        n_entries        where it entered
    choice       n_choices        which of the entry's routes it takes
    braked       1                whether it braked in the last step
    view         (2 vision+1)^2   cars on the cells around, itself included, row by row
    ===========  ===============  ====================================================================

Global state: cars on every road cell ``[n_cells]``; per agent: on the road, braked, works, steps since it
    entered over ``max_steps``, cells driven over the longest route, entry one-hot, choice one-hot.
Reward (per agent): ``-time_penalty`` times the steps since its car entered, and ``-collision_penalty`` while
    another car is on its cell; 0 without a car. With ``team_reward`` all get the mean.
Step: cars move, all at once; those at the end of their route leave. Then a car arrives at every entry with
    probability ``p_arrive``, entry by entry while an agent is free; a random free agent gets a random route
    of the entry. Then collisions count.
Start: an empty road.
End: never terminates; truncated after ``max_steps``.
Dead agents: nobody controls their cars, which drive on without ever braking. Lost messages: the cars on a
    cell of the view other than its own are missing, cell by cell.
Info, per step: ``collisions`` (cars that stand on a shared cell), ``entered``, ``completed``, ``brakes``
    (cars that stayed); of every agent its ``position`` (row, column), ``route``, ``place`` on it and
    ``wait``, the steps since it entered; -1 without a car.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from marl_td.tasks.base import (
    Discrete,
    Groups,
    GroupSpec,
    Noise,
    Optimum,
    Policy,
    Step,
    Task,
    TaskParams,
)
from marl_td.tasks.failures import alive_agents, dead_count
from marl_td.tasks.grid import look
from marl_td.tasks.order import one_hot
from marl_td.tasks.traffic_junction.dynamics import Tables, arrive, tables
from marl_td.tasks.traffic_junction.params import TrafficJunctionParams

GROUP = "agents"
GAS, BRAKE = 0, 1


class TrafficState(NamedTuple):
    """What every agent's car does; all ``[n_envs, n_agents]`` except ``hidden``.

    ==========  ==========  ==================================================================
    ``route``   int64       index of its route, over all entries
    ``place``   int64       cells driven, the index on the route
    ``driving``  bool       whether the agent has a car on the road
    ``wait``    float32     steps since the car entered
    ``braked``  bool        whether it braked in the last step
    ``works``   bool        whether the agent controls its car
    ``hidden``  bool        cells of the view whose cars are missing, ``[n_envs, n_agents, n_view]``; no
                            columns without ``message_dropout``
    ==========  ==========  ==================================================================
    """

    route: Tensor
    place: Tensor
    driving: Tensor
    wait: Tensor
    braked: Tensor
    works: Tensor
    hidden: Tensor


class TrafficJunction(Task[TrafficJunctionParams, TrafficState]):
    """See the module's docstring."""

    name = "traffic_junction"
    Params: ClassVar[type[TaskParams]] = TrafficJunctionParams
    terminates = False
    has_continuous_actions = False
    unit = "episodes without a collision (share)"
    agents_return = True
    info_keys = ("collisions", "entered", "completed", "brakes")
    levels: ClassVar[dict[str, dict[str, Any]]] = {
        "easy": {"layout": "easy", "size": 7, "n_agents": 5, "p_arrive": 0.3, "max_steps": 20},
        "medium": {},
        "hard": {"layout": "hard", "size": 18, "n_agents": 20, "p_arrive": 0.05, "max_steps": 80},
    }

    def __init__(
        self,
        params: TrafficJunctionParams,
        continuous: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(params, continuous, device)
        self.tables: Tables = tables(params, self.device)
        self.n_cells = int(self.tables.place.shape[0]) - 1
        self.n_entries, self.n_choices = self.tables.n_entries, self.tables.n_choices
        self.n_view = (2 * params.vision + 1) ** 2

    # ------------------------------------------------------------------ shape
    @property
    def groups(self) -> dict[str, GroupSpec]:
        d_obs = self.n_cells + self.n_entries + self.n_choices + 1 + self.n_view
        info = {"position": 2, "route": 1, "place": 1, "wait": 1}
        n = self.params.n_agents
        return {
            GROUP: GroupSpec(
                n, d_obs, Discrete(2, ("gas", "brake")), masked=True, mortal=True, info=info
            )
        }

    @property
    def d_state(self) -> int:
        return self.n_cells + self.params.n_agents * (5 + self.n_entries + self.n_choices)

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers in [0, 1): ``dead`` ``[n_envs, n_agents]``, the lowest draws are dead."""
        return {"dead": self._uniform((n_envs, self.params.n_agents), generator)}

    def draw_step(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers in [0, 1): arrivals, their routes, the agents that get them, what is hidden.

        ``arrive`` and ``choice`` are ``[n_envs, n_entries]``, ``agent`` is ``[n_envs, n_agents]`` (the lowest
        free ones get a car) and ``hide`` ``[n_envs, n_agents, n_view]``, or without columns.
        """
        e, n = self.n_entries, self.params.n_agents
        names = ("arrive", "choice", "agent")
        parts = self._uniform((n_envs, 2 * e + n), generator).split([e, e, n], 1)
        hide = self._uniform((n_envs, n, self._n_hidden), generator)
        return {**dict(zip(names, parts, strict=True)), "hide": hide}

    @property
    def _n_hidden(self) -> int:
        return self.n_view if self.params.message_dropout > 0 else 0

    def _uniform(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.empty(shape, device=self.device).uniform_(generator=generator)

    def reset(self, n_envs: int, noise: Noise) -> TrafficState:
        n_dead = dead_count(self.params.dead_agents, self.params.n_agents)
        works = alive_agents(noise["dead"], n_dead)
        none = torch.zeros_like(works)
        zero = torch.zeros_like(works, dtype=torch.long)
        hidden = none.unsqueeze(-1).expand(-1, -1, self._n_hidden).clone()
        return TrafficState(zero, zero.clone(), none, zero.float(), none.clone(), works, hidden)

    def step(self, state: TrafficState, action: Groups, noise: Noise) -> Step[TrafficState]:
        p, t = self.params, self.tables
        gas = (action[GROUP] == GAS) | ~state.works
        place = state.place + (state.driving & gas)
        gone = state.driving & (place >= t.length[state.route])
        driving = state.driving & ~gone
        braked = driving & ~gas
        old = state._replace(place=place, driving=driving, braked=braked, wait=state.wait + 1.0)
        new = arrive(p, t, old, self.taken(old)[:, t.entry] > 0, noise)
        new = new._replace(
            wait=torch.where(new.driving, new.wait, 0.0), hidden=noise["hide"] < p.message_dropout
        )
        crashed = self.crashed(new)
        reward = -p.time_penalty * new.wait - p.collision_penalty * crashed
        if p.team_reward:
            reward = reward.mean(-1, keepdim=True).expand_as(reward)
        info = {
            "collisions": crashed.sum(-1).float(),
            "entered": (new.driving & ~driving).sum(-1).float(),
            "completed": gone.sum(-1).float(),
            "brakes": braked.sum(-1).float(),
        }
        over = torch.zeros_like(crashed[:, 0])
        return Step(new, {GROUP: reward}, over, info)

    def cell(self, state: TrafficState) -> Tensor:
        """Index of the road cell of every car, ``[n_envs, n_agents]``; ``n_cells`` without one."""
        on = self.tables.path[state.route, state.place]
        return torch.where(state.driving, on, self.n_cells)

    def taken(self, state: TrafficState) -> Tensor:
        """Number of cars on each road cell, ``[n_envs, n_cells + 1]`` int64; 0 in the last column."""
        count = state.place.new_zeros((state.place.shape[0], self.n_cells + 1))
        return count.scatter_add(1, self.cell(state), state.driving.long())

    def crashed(self, state: TrafficState) -> Tensor:
        """Cars that share their cell, ``[n_envs, n_agents]`` bool."""
        return state.driving & (look(self.taken(state), self.cell(state)) > 1)

    # ---------------------------------------------------------------- sensing
    def observe(self, state: TrafficState) -> Groups:
        cell, taken = self.cell(state), self.taken(state)
        view = look(taken, self.tables.window[cell]).float()
        if self.params.message_dropout > 0:
            others = torch.arange(self.n_view, device=view.device) != self.n_view // 2
            view = torch.where(state.hidden & others, 0.0, view)
        parts = [
            one_hot(cell, self.n_cells),
            *self._route(state),
            state.braked.unsqueeze(-1).float(),
            view,
        ]
        return {GROUP: torch.cat(parts, -1) * state.driving.unsqueeze(-1)}

    def _route(self, state: TrafficState) -> list[Tensor]:
        """Entry and choice of every agent, one-hot."""
        entry, choice = state.route // self.n_choices, state.route % self.n_choices
        return [one_hot(entry, self.n_entries), one_hot(choice, self.n_choices)]

    def team_state(self, state: TrafficState) -> Tensor:
        scale = 1.0 / (self.tables.path.shape[1] - 1)
        on = state.driving.unsqueeze(-1)
        numbers = [state.driving, state.braked, state.works]
        cars = [
            *(number.unsqueeze(-1).float() for number in numbers),
            state.wait.unsqueeze(-1) / self.params.max_steps,
            (state.place.unsqueeze(-1) * on).float() * scale,
            *(part * on for part in self._route(state)),
        ]
        return torch.cat([self.taken(state)[:, :-1].float(), torch.cat(cars, -1).flatten(1)], -1)

    def action_mask(self, state: TrafficState) -> Groups:
        return {GROUP: torch.stack([state.driving, ~state.driving | state.works], -1)}

    def alive(self, state: TrafficState) -> Groups:
        """Agents that control a car."""
        return {GROUP: state.driving & state.works}

    def agent_info(self, state: TrafficState) -> dict[str, Groups]:
        found = {
            "position": self.tables.place[self.cell(state)],
            "route": state.route.unsqueeze(-1),
            "place": state.place.unsqueeze(-1),
            "wait": state.wait.unsqueeze(-1),
        }
        on = state.driving.unsqueeze(-1)
        return {name: {GROUP: torch.where(on, value, -1).float()} for name, value in found.items()}

    # ---------------------------------------------------------------- judging
    def score(self, totals: dict[str, Tensor]) -> Tensor:
        """1 for an episode without a collision, else 0."""
        return (totals["collisions"] == 0).float()

    def baselines(self) -> dict[str, Policy]:
        from marl_td.tasks.traffic_junction.policies import AlwaysGas, RightOfWay

        return {"always_gas": AlwaysGas(), "right_of_way": RightOfWay(self)}

    def optimum(self) -> Optimum:
        from marl_td.tasks.traffic_junction.optimum import optimum

        return optimum(self.params)

    def episode_series(self, state: TrafficState) -> dict[str, Tensor]:
        numbers = [state.driving.sum(-1), state.braked.sum(-1), self.crashed(state).sum(-1)]
        return {"cars on the road, braking, in collision": torch.stack(numbers, -1).float()}

    def render(self, state: TrafficState, index: int = 0) -> np.ndarray[Any, Any]:
        from marl_td.tasks.traffic_junction.render import draw

        return draw(self, state, index)
