"""Multi-agent path finding: everybody to an own goal, on a map with obstacles, without collisions.

Description:
    The task of pogema (Skrynnik et al. 2024, "POGEMA: A Benchmark Platform for Cooperative Multi-Agent
    Pathfinding", https://arxiv.org/abs/2407.14931) with its collision rule ``soft``, step by step: agents on
    a board with obstacles move in the same moment, one cell each, see
    :func:`~marl_td.tasks.grid.moves.move_together`. Mode ``finish``: who arrives leaves the board;
    ``nothing``: the task is solved when all stand on their goals at once; ``restart``: who arrives gets a new
    goal. ``reward="primal"`` gives the costs of PRIMAL (Sartoretti et al. 2019,
    https://arxiv.org/abs/1809.03531).

Action space: discrete: 0 stay, 1 up, 2 down, 3 left, 4 right. Mask: no moves into obstacles; agents that
    have left can only stay. A move that another agent prevents is available and fails.

Observation space (per agent, float32): views of ``(2 * sight + 1) ** 2`` cells with the agent in the middle,
    row by row; zeros for agents that have left:

    ============  =====  ==================================================================
    columns       width  content
    ============  =====  ==================================================================
    obstacles     view   1 for obstacles and the cells next to the board
    agents        view   1 for cells with an agent, itself included
    goal          view   1 where the own goal is, on the edge of the view if it is outside
    first         view   1 for others that would get a cell that both want: those of lower index
    second        view   1 for others that would not
    down          view   which way others have to go: 1 down, -1 up
    right         view   likewise: 1 right, -1 left
    up to right   4      1 if the move leads closer to the goal, -1 farther, 0 not possible
    distance      1      shortest way to the goal in steps / (rows + columns)
    waited        1      steps since a goal was reached / 10, at most 1
    ============  =====  ==================================================================

    All after ``goal`` only with ``guide``.

Global state: obstacles, agents and goals of the agents on the board, ``[3 * rows * columns]``, 0 or 1.
Reward: ``pogema``: 1 to an agent that arrives; mode ``nothing``: 1 to all when all stand. ``primal`` (mode
    ``nothing``): 0 for reaching the goal or staying there, -0.5 for staying elsewhere, -0.3 for a move, -2
    for a move that fails, and 20 to all when all stand; minus ``blocking_cost`` times the number of others
    in sight that are kept from their goals by who stays on its own, see
    :func:`~marl_td.tasks.mapf.blocking.blocked_by`.
Start: on a random one of the maps; starts and goals are different cells, those of an agent hang together.
    ``dead_agents`` are not on the board at all.
End: ``finish`` terminates when all have left, ``nothing`` when all stand; truncated after ``max_steps``.
Score: sum of shortest ways / sum of costs; the cost of an agent is the number of steps until it reached its
    goal for the last time, or until the end. ``restart``: shortest ways of the goals reached / steps.
"""

from __future__ import annotations

from typing import Any, ClassVar

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
from marl_td.tasks.grid import MOVE_NAMES, move_together
from marl_td.tasks.grid.traffic import N_PLANES
from marl_td.tasks.mapf.blocking import blocked_by
from marl_td.tasks.mapf.maps import make_maps
from marl_td.tasks.mapf.params import MapfParams
from marl_td.tasks.mapf.tables import MapTables
from marl_td.tasks.mapf.views import MapfState, distance, guide, view

GROUP = "agents"
STAY, UP, DOWN, LEFT, RIGHT = range(5)
N_ACTIONS = 5
MOVE_COST, IDLE_COST, COLLISION_COST, SOLVED = -0.3, -0.5, -2.0, 20.0
"""PRIMAL's rewards."""


class Mapf(Task[MapfParams, MapfState]):
    """See the module's docstring."""

    name = "mapf"
    Params: ClassVar[type[TaskParams]] = MapfParams
    has_continuous_actions = False
    unit = "shortest ways / steps taken"
    info_keys = ("arrivals", "solved", "cost", "shortest", "conflicts")
    draws_starts_slowly = True
    levels: ClassVar[dict[str, dict[str, Any]]] = {
        "easy": {"n_agents": 4, "density": 0.1},
        "medium": {},
        "hard": {"n_agents": 32, "grid_size": 20, "density": 0.3, "max_steps": 128},
    }

    def __init__(
        self, params: MapfParams, continuous: bool = False, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(params, continuous, device)
        self.tables = MapTables(make_maps(params), params.sight, self.device)
        self.board = self.tables.board
        still = torch.zeros(1, dtype=torch.long, device=self.device)
        self.step_of = torch.cat([still, self.board.directions])
        """How far each action leads, ``[n_actions]``."""
        self.n_dead = dead_count(params.dead_agents, params.n_agents)

    # ------------------------------------------------------------------ shape
    @property
    def groups(self) -> dict[str, GroupSpec]:
        p = self.params
        d_obs = 3 * self.board.window.numel()
        if p.guide:
            d_obs += N_PLANES * self.board.window.numel() + 6
        info = {"position": 2, "goal": 2, "map": 1, "waited": 1}
        spec = GroupSpec(
            p.n_agents, d_obs, Discrete(N_ACTIONS, MOVE_NAMES), masked=True, mortal=True, info=info
        )
        return {GROUP: spec}

    @property
    def d_state(self) -> int:
        return 3 * self.tables.n_cells

    @property
    def usual_episode(self) -> int:
        return self.params.max_steps if self.params.mode == "restart" else super().usual_episode

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        """``map``, ``start`` and ``goal`` as numbers; uniform who is ``dead``, ``unheard``."""
        n = self.params.n_agents
        widths = {"map": 1, "place": self.tables.n_cells, "dead": n * (self.n_dead > 0)}
        noise = self._draw(n_envs, widths, generator)
        noise["map"] = (noise["map"][:, 0] * self.tables.n_maps).long()
        start, goal = self.tables.places(noise["map"], noise.pop("place"), n)
        return noise | {"start": start, "goal": goal}

    def draw_step(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers in [0, 1): ``goal`` ``[n_envs, n_agents]`` (restart only), ``unheard``."""
        widths = {"goal": self.params.n_agents * (self.params.mode == "restart")}
        return self._draw(n_envs, widths, generator)

    def _draw(self, n_envs: int, widths: dict[str, int], generator: torch.Generator) -> Noise:
        p = self.params
        view = self.board.window.numel() * (p.message_dropout > 0.0)
        widths = {**widths, "unheard": p.n_agents * view}
        whole = torch.empty((n_envs, sum(widths.values())), device=self.device)
        parts = whole.uniform_(generator=generator).split(list(widths.values()), 1)
        noise = dict(zip(widths, parts, strict=True))
        return noise | {"unheard": noise["unheard"].unflatten(1, (p.n_agents, view))}

    def reset(self, n_envs: int, noise: Noise) -> MapfState:
        p = self.params
        maps, start, goal = noise["map"], noise["start"], noise["goal"]
        cell = self.board.inside[start]
        if self.n_dead:
            cell = torch.where(alive_agents(noise["dead"], self.n_dead), cell, self.board.nowhere)
        way = self.tables.steps(maps, goal, start)
        zero = torch.zeros_like(goal)
        unheard = noise["unheard"] < p.message_dropout
        return MapfState(maps, cell, goal, way, zero, zero, torch.zeros_like(maps), unheard)

    def step(self, state: MapfState, action: Groups, noise: Noise) -> Step[MapfState]:
        p, board = self.params, self.board
        chosen = action[GROUP]
        here = state.cell != board.nowhere
        target = torch.where(here, state.cell + self.step_of[chosen], state.cell)
        open_ = ~self.tables.blocked(state.map, target)
        cell = move_together(board, state.cell, target, open_)
        failed = (target != state.cell) & (cell == state.cell)
        was_on = here & self._stands(state.cell, state.goal)
        on = here & self._stands(cell, state.goal)
        time, waited = state.time + 1, torch.where(on, 0, state.waited + 1)
        goal, way, stood = state.goal, state.way, state.stood
        cost, arrived, short = here.long(), on.long(), torch.zeros_like(way)
        over = torch.zeros_like(here[:, 0])
        if p.mode == "restart":
            short = torch.where(on, way, 0)
            new = self.tables.other(state.map, goal, noise["goal"])
            way = torch.where(on, self.tables.steps(state.map, new, goal), way)
            goal = torch.where(on, new, goal)
        else:
            begins = here & (state.time == 0).unsqueeze(-1)
            short = torch.where(begins, way.clamp(max=p.max_steps), 0)
        if p.mode == "finish":
            cell = torch.where(on, board.nowhere, cell)
            over = (cell == board.nowhere).all(-1)
        if p.mode == "nothing":
            over = (on | ~here).all(-1)
            cost = torch.where(on, ~was_on, here * (1 + stood))
            stood = torch.where(on & was_on, stood + 1, 0)
            arrived = on.long() - was_on.long()
        counted = {"arrivals": arrived, "cost": cost, "shortest": short, "conflicts": failed}
        info = {name: value.sum(-1).float() for name, value in counted.items()}
        info["solved"] = over.float()
        state = MapfState(
            state.map, cell, goal, way, waited, stood, time, noise["unheard"] < p.message_dropout
        )
        reward = self._reward(state, chosen, on, failed, over)
        return Step(state, {GROUP: reward}, over, info)

    def _reward(
        self, state: MapfState, chosen: Tensor, on: Tensor, failed: Tensor, over: Tensor
    ) -> Tensor:
        """Rewards for a step that led to ``state``."""
        p, here = self.params, state.cell != self.board.nowhere
        if p.reward == "pogema":
            return (here & over.unsqueeze(-1) if p.mode == "nothing" else on).float()
        cost = torch.where(chosen == STAY, IDLE_COST, MOVE_COST)
        cost = torch.where(on, 0.0, cost)
        cost = torch.where(failed, COLLISION_COST, cost)
        if p.blocking_cost > 0.0:
            free = ~self.board.without_margin(self.tables.wall[state.map])
            stays, reach = on & (chosen == STAY), self.tables.longest
            blocked = blocked_by(self.board, free, state.cell, state.goal, stays, reach)
            cost = cost - p.blocking_cost * blocked
        return torch.where(here, cost + SOLVED * over.unsqueeze(-1), 0.0)

    def _stands(self, cell: Tensor, goal: Tensor) -> Tensor:
        return cell == self.board.inside[goal]

    # ---------------------------------------------------------------- sensing
    def observe(self, state: MapfState) -> Groups:
        here = state.cell != self.board.nowhere
        dropout = self.params.message_dropout > 0.0
        numbers: list[Tensor] = []
        planes = view(self.tables, state, dropout)
        if self.params.guide:
            others, numbers = guide(self.tables, state, dropout)
            planes += others
        seen = torch.cat([torch.stack(planes, 2).flatten(2), *numbers], -1)
        return {GROUP: torch.where(here.unsqueeze(-1), seen, 0.0)}

    def distance(self, state: MapfState) -> Tensor:
        """Shortest ways to the goals, ``[n_envs, n_agents]``; 0 for those who have left."""
        return distance(self.tables, state)

    def team_state(self, state: MapfState) -> Tensor:
        board = self.board
        here = state.cell != board.nowhere
        goal = torch.where(here, board.inside[state.goal], board.nowhere)
        planes = self.tables.wall[state.map], board.taken(state.cell), board.taken(goal)
        return torch.cat([board.without_margin(plane).float() for plane in planes], -1)

    def action_mask(self, state: MapfState) -> Groups:
        open_ = ~self.tables.blocked(state.map, self.board.around(state.cell))
        return {GROUP: torch.cat([torch.ones_like(open_[..., :1]), open_], -1)}

    def alive(self, state: MapfState) -> Groups:
        return {GROUP: state.cell != self.board.nowhere}

    def agent_info(self, state: MapfState) -> dict[str, Groups]:
        """Row and column of agents (-1 for those who have left) and goals, the map, and the waiting."""
        here = (state.cell != self.board.nowhere).unsqueeze(-1)
        place = torch.stack(self.board.place(state.cell), -1)
        goal = torch.stack(self.board.place(self.board.inside[state.goal]), -1)
        which = state.map[:, None, None].expand(-1, self.params.n_agents, 1)
        info = {
            "position": torch.where(here, place, -1),
            "goal": goal,
            "map": which,
            "waited": state.waited.unsqueeze(-1),
        }
        return {name: {GROUP: value.float()} for name, value in info.items()}

    # ---------------------------------------------------------------- judging
    def score(self, totals: dict[str, Tensor]) -> Tensor:
        return totals["shortest"] / totals["cost"]

    def baselines(self) -> dict[str, Policy]:
        from marl_td.tasks.mapf.policies import rules

        return rules(self.tables, self.params.mode)

    def optimum(self) -> Optimum:
        from marl_td.tasks.mapf.bound import bound

        return bound(self)

    def episode_series(self, state: MapfState) -> dict[str, Tensor]:
        return {"steps to the goal": self.distance(state).float()}

    def render(self, state: MapfState, index: int = 0) -> np.ndarray[Any, Any]:
        from marl_td.tasks.mapf.render import draw

        return draw(self, state, index)
