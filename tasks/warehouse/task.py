"""Robots fetch goods from shelves and deliver them, order after order, through aisles one cell wide.

Description:
    Lifelong pickup and delivery (Ma et al. 2017, "Lifelong Multi-Agent Path Finding for Online Pickup and
    Delivery Tasks", https://arxiv.org/abs/1705.10868): there is always another order, so throughput is
    limited by the robots alone. Every robot has one order at a time: it goes to the cell where it is picked
    and then to the station where it is delivered, and gets the next one, drawn uniformly.
    Everybody moves in the same moment, see :func:`~marl_td.tasks.grid.moves.move_together`; of several who
    want the same cell the one who has waited longest gets it.

Action space: discrete: 0 stay, 1 up, 2 down, 3 left, 4 right. Mask: no moves into shelves. A move that
    another robot prevents is available and fails.

Observation space (per robot, float32): views of ``(2 * sight + 1) ** 2`` cells with the robot in the middle,
    row by row; zeros for dead robots:

    ============  =====  ====================================================================
    columns       width  content
    ============  =====  ====================================================================
    walls         view   1 for shelves and the world outside
    first         view   1 for other robots that would get a cell that both want
    second        view   1 for other robots that would not
    down          view   which way others have to go: 1 down, -1 up
    right         view   likewise: 1 right, -1 left
    up to right   4      1 if the move leads closer to the own goal, -1 farther, 0 not possible
    distance      1      shortest way to the goal in steps / (rows + columns)
    loaded        1      1 on the way to the station
    waited        1      steps since a goal was reached / 10, at most 1
    stood         1      steps since the last move / 5, at most 1
    ============  =====  ====================================================================

Global state: robots, loaded robots and goals in each of 8 x 8 regions, relative to an even spread, ``[192]``;
    its width does not grow with the number of robots.
Reward: 1 for a delivery (``reward="team"``: to all, divided by their number), minus ``blocked_cost`` for a
    move that fails, plus ``shaping`` times (steps to the goal before - ``discount`` * after).
Start: robots on different random cells, with orders to pick. ``dead_agents`` are not on the floor at all.
End: never terminates; truncated after ``max_steps``.
Score: deliveries per step, of all robots together.
"""

from __future__ import annotations

import functools
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
from marl_td.tasks.warehouse.floor import REGIONS, Floor, WarehouseState
from marl_td.tasks.warehouse.layout import make_layout
from marl_td.tasks.warehouse.params import WarehouseParams

GROUP = "agents"
STAY, UP, DOWN, LEFT, RIGHT = range(5)
N_ACTIONS = 5


class Warehouse(Task[WarehouseParams, WarehouseState]):
    """See the module's docstring."""

    name = "warehouse"
    Params: ClassVar[type[TaskParams]] = WarehouseParams
    has_continuous_actions = False
    terminates = False
    unit = "deliveries per step"
    info_keys = ("deliveries", "pickups", "blocked")
    draws_starts_slowly = True
    levels: ClassVar[dict[str, dict[str, Any]]] = {
        "easy": {"n_agents": 10, "density": 0.05},
        "medium": {},
        "hard": {"n_agents": 50, "density": 0.2},
    }
    slow_baselines: ClassVar[dict[str, int]] = {"pibt": 64, "token_passing": 64}

    def __init__(
        self, params: WarehouseParams, continuous: bool = False, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(params, continuous, device)
        self.floor = Floor(make_layout(params), params.sight, self.device)
        self.board = self.floor.board
        still = torch.zeros(1, dtype=torch.long, device=self.device)
        self.step_of = torch.cat([still, self.board.directions])
        """How far each action leads, ``[n_actions]``."""
        self.n_dead = dead_count(params.dead_agents, params.n_agents)

    # ------------------------------------------------------------------ shape
    @property
    def groups(self) -> dict[str, GroupSpec]:
        n, d_obs = self.params.n_agents, 5 * self.board.window.numel() + 8
        info = {"position": 2, "goal": 1, "waited": 1}
        mortal = self.n_dead > 0
        return {GROUP: GroupSpec(n, d_obs, Discrete(N_ACTIONS, MOVE_NAMES), True, mortal, info)}

    @property
    def d_state(self) -> int:
        return 3 * REGIONS**2

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        """``cell``: different numbers of free cells; uniform ``dead`` robots, and what a step draws."""
        n = self.params.n_agents
        widths = {"place": len(self.floor.cells), "dead": n * (self.n_dead > 0)}
        noise = self._draw(n_envs, widths, generator)
        return noise | {"cell": noise.pop("place").topk(n, largest=False).indices}

    def draw_step(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers in [0, 1): ``pick`` and ``drop`` ``[n_envs, n_agents]``, ``unheard``."""
        return self._draw(n_envs, {}, generator)

    def _draw(self, n_envs: int, widths: dict[str, int], generator: torch.Generator) -> Noise:
        n, view = self.params.n_agents, self.board.window.numel()
        view *= self.params.message_dropout > 0.0
        widths = {**widths, "pick": n, "drop": n, "unheard": n * view}
        whole = torch.empty((n_envs, sum(widths.values())), device=self.device)
        parts = whole.uniform_(generator=generator).split(list(widths.values()), 1)
        noise = dict(zip(widths, parts, strict=True))
        return noise | {"unheard": noise["unheard"].unflatten(1, (n, view))}

    def _orders(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """Where new orders are picked and delivered."""
        floor = self.floor
        pick, drop = noise["pick"] * floor.n_picks, noise["drop"] * floor.n_drops
        return pick.long().clamp(max=floor.n_picks - 1), drop.long().clamp(max=floor.n_drops - 1)

    def reset(self, n_envs: int, noise: Noise) -> WarehouseState:
        cell = self.floor.cells[noise["cell"]]
        if self.n_dead:
            cell = torch.where(alive_agents(noise["dead"], self.n_dead), cell, self.board.nowhere)
        pick, drop = self._orders(noise)
        zero = torch.zeros_like(pick)
        unheard = noise["unheard"] < self.params.message_dropout
        return WarehouseState(cell, pick, drop, zero.bool(), zero, zero, unheard)

    def step(self, state: WarehouseState, action: Groups, noise: Noise) -> Step[WarehouseState]:
        p, floor, board = self.params, self.floor, self.board
        here, goal = floor.here(state), floor.goal(state)
        target = torch.where(here, state.cell + self.step_of[action[GROUP]], state.cell)
        cell = move_together(board, state.cell, target, ~floor.wall[target], floor.turn(state))
        failed = (target != state.cell) & (cell == state.cell)

        there = here & (cell == floor.goals[goal])
        delivered, picked = there & state.loaded, there & ~state.loaded
        pick, drop = self._orders(noise)
        new = WarehouseState(
            cell,
            torch.where(delivered, pick, state.pick),
            torch.where(delivered, drop, state.drop),
            torch.where(there, picked, state.loaded),
            torch.where(there, 0, state.waited + 1),
            torch.where(cell == state.cell, state.stood + 1, 0),
            noise["unheard"] < p.message_dropout,
        )
        counted = {"deliveries": delivered, "pickups": picked, "blocked": failed}
        info = {name: value.sum(-1).float() for name, value in counted.items()}
        reward = delivered.float()
        if p.reward == "team":
            reward = (info["deliveries"] / p.n_agents).unsqueeze(-1) * here
        reward = reward - p.blocked_cost * failed
        if p.shaping > 0.0:
            ways = (floor.distance(goal, at) for at in (state.cell, cell))
            before, after = (torch.where(here, way, 0) for way in ways)
            reward = reward + p.shaping * (before - p.discount * after)
        never = torch.zeros_like(here[:, 0])
        return Step(new, {GROUP: reward}, never, info)

    # ---------------------------------------------------------------- sensing
    def observe(self, state: WarehouseState) -> Groups:
        dropout = self.params.message_dropout > 0.0
        return {GROUP: self.floor.observe(state, dropout, self.n_dead > 0)}

    def team_state(self, state: WarehouseState) -> Tensor:
        return self.floor.crowds(state)

    def action_mask(self, state: WarehouseState) -> Groups:
        open_ = ~self.floor.wall[self.board.around(state.cell)]
        return {GROUP: torch.cat([torch.ones_like(open_[..., :1]), open_], -1)}

    def alive(self, state: WarehouseState) -> Groups:
        return {GROUP: self.floor.here(state)} if self.n_dead else {}

    def agent_info(self, state: WarehouseState) -> dict[str, Groups]:
        """Row and column of the robots (-1 if dead), which goal they go to, and how long they have waited."""
        place = torch.stack(self.board.place(state.cell), -1)
        info = {
            "position": torch.where(self.floor.here(state).unsqueeze(-1), place, -1),
            "goal": self.floor.goal(state).unsqueeze(-1),
            "waited": state.waited.unsqueeze(-1),
        }
        return {name: {GROUP: value.float()} for name, value in info.items()}

    # ---------------------------------------------------------------- judging
    def score(self, totals: dict[str, Tensor]) -> Tensor:
        return totals["deliveries"] / totals["steps"]

    def baselines(self) -> dict[str, Policy]:
        from marl_td.tasks.grid.policies import baselines
        from marl_td.tasks.grid.space_time import as_bits
        from marl_td.tasks.grid.token_passing import TokenPassing
        from marl_td.tasks.warehouse.policies import situation, step_costs

        rules = baselines(self.board, functools.partial(step_costs, self.floor))
        free = ~self.floor.wall[self.board.inside].unflatten(0, self.board.shape)
        where = functools.partial(situation, self.floor)
        bits = [as_bits(free.cpu().numpy())]
        token_passing = TokenPassing(bits, self.board.shape[1] + 1, where, rules["pibt"])
        return rules | {"token_passing": token_passing}

    def optimum(self) -> Optimum:
        from marl_td.tasks.warehouse.bound import bound

        return bound(self.params)

    def episode_series(self, state: WarehouseState) -> dict[str, Tensor]:
        here = self.floor.here(state)
        loaded = (state.loaded & here).sum(-1, keepdim=True).float()
        stuck = ((state.waited > sum(self.board.shape)) & here).sum(-1, keepdim=True).float()
        return {"loaded robots": loaded, "robots on the way for longer than any way": stuck}

    def render(self, state: WarehouseState, index: int = 0) -> np.ndarray[Any, Any]:
        from marl_td.tasks.warehouse.render import draw

        return draw(self, state, index)
