"""Predator-prey: predators surround one prey on a grid; the game is solved exactly.

Description:
    The pursuit domain of Benda, Jagannathan & Dodhiawala (1986; survey: Stone & Veloso 2000,
    https://doi.org/10.1023/A:1008942012299), with capture by nearness: everybody moves at once, and the prey
    is caught when every (living) predator is within ``capture_distance`` of it. Cells can be shared. Modes:
    ``seed`` (an open board), ``fast_prey`` (the prey moves twice in a step), ``obstacles`` (closed cells).
    The hunt in which two must *catch* together is :class:`~marl_td.tasks.pursuit.Pursuit`.

Action space:
    Discrete: 0 stay, 1 up, 2 down, 3 left, 4 right. A fast prey's actions are pairs, ``5 * first + second``.
    Moves into walls and closed cells are masked, and stay if taken all the same.

Observation space (float32; cells as shares of ``grid_size - 1``):

    ====================================  ======  ====================================================
    entry                                 width   predators / a learned prey
    ====================================  ======  ====================================================
    own row and column                    2       both
    way to each other predator, seen      3 each  both; next predator first; (0, 0, 0) if not seen, dead,
                                                  or (between predators) the message was lost
    way to the prey, seen                 3       predators
    closed above, below, left, right      4       both, in mode ``obstacles``
    ====================================  ======  ====================================================

Global state: row and column of all predators and of the prey, and which predators live.
Reward: predators ``capture_reward`` at the capture, and ``-step_cost`` in every step; a learned prey
    ``survival_reward`` in every step, ``-capture_reward`` at the capture, or minus the predators' mean
    (``zero_sum``).
Start: everybody on an open cell of their own, uniformly.
End: terminates with the capture; truncated after ``max_steps``.
Score: steps to the capture, ``max_steps`` without one; lower is better.
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
from marl_td.tasks.grid import MOVE_NAMES
from marl_td.tasks.predator_prey.board import N_MOVES, Board, build
from marl_td.tasks.predator_prey.optimum import best_play
from marl_td.tasks.predator_prey.params import PredatorPreyParams

PREDATOR, PREY = "predator", "prey"


class PredatorPreyState(NamedTuple):
    """Cells are numbers of open cells, int64."""

    predator: Tensor
    """``[n_envs, n_agents]``."""
    prey: Tensor
    """``[n_envs]``."""
    alive: Tensor
    """Living predators, bool ``[n_envs, n_agents]``."""
    heard: Tensor
    """Whether the message of each next predator arrived, bool ``[n_envs, n_agents, n_agents - 1]``."""


class PredatorPrey(Task[PredatorPreyParams, PredatorPreyState]):
    """See the module's docstring."""

    name = "predator_prey"
    Params: ClassVar[type[TaskParams]] = PredatorPreyParams
    has_continuous_actions = False
    unit = "steps to the capture"
    higher_is_better = False
    info_keys = ("captures",)
    draws_starts_slowly = True
    levels: ClassVar[dict[str, dict[str, Any]]] = {
        "easy": {"grid_size": 6, "prey": "random"},
        "medium": {},
        "hard": {"mode": "obstacles", "prey": "total", "sight": 4},
    }

    def __init__(
        self,
        params: PredatorPreyParams,
        continuous: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(params, continuous, device)
        self.board: Board = build(params, self.device)
        self.n_dead = dead_count(params.dead_agents, params.n_agents)
        n = params.n_agents
        index = torch.arange(n, device=self.device).unsqueeze(-1)
        self._others = (index + torch.arange(1, n, device=self.device)) % n

    # ------------------------------------------------------------------ shape
    @property
    def learned_prey(self) -> bool:
        """Whether the prey is an agent."""
        return self.params.prey == "learned"

    @property
    def groups(self) -> dict[str, GroupSpec]:
        n = self.params.n_agents
        walls = 4 * (self.params.mode == "obstacles")
        info = {"position": 2}
        hunters = GroupSpec(
            n, 2 + 3 * n + walls, Discrete(N_MOVES, MOVE_NAMES), True, self.n_dead > 0, info
        )
        if not self.learned_prey:
            return {PREDATOR: hunters}
        pairs = tuple(f"{one}, {two}" for one in MOVE_NAMES for two in MOVE_NAMES)
        names = pairs if self.params.mode == "fast_prey" else MOVE_NAMES
        action = Discrete(self.board.after.shape[1], names)
        return {
            PREDATOR: hunters,
            PREY: GroupSpec(1, 2 + 3 * n + walls, action, masked=True, info=info),
        }

    @property
    def d_state(self) -> int:
        return 3 * self.params.n_agents + 2

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        """``cell``: different open cells of predators and prey; uniform numbers ``dies``, ``heard``."""
        n = self.params.n_agents
        place = self._uniform((n_envs, self.board.n_cells), generator)
        cell = place.topk(n + 1, largest=False).indices
        noise = {"cell": cell, "heard": self._uniform((n_envs, n, n - 1), generator)}
        return noise | {"dies": self._uniform((n_envs, n), generator)}

    def draw_step(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers: ``way`` ``[n_envs]`` of a prey that walks at random, and ``heard``."""
        n = self.params.n_agents
        way = self._uniform((n_envs,), generator)
        return {"way": way, "heard": self._uniform((n_envs, n, n - 1), generator)}

    def _uniform(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.empty(shape, device=self.device).uniform_(generator=generator)

    def reset(self, n_envs: int, noise: Noise) -> PredatorPreyState:
        n = self.params.n_agents
        cells = noise["cell"]
        alive = alive_agents(noise["dies"], self.n_dead)
        heard = noise["heard"] >= self.params.message_dropout
        return PredatorPreyState(cells[:, :n].contiguous(), cells[:, n].contiguous(), alive, heard)

    def step(
        self, state: PredatorPreyState, action: Groups, noise: Noise
    ) -> Step[PredatorPreyState]:
        p, board = self.params, self.board
        moved = board.next[state.predator, action[PREDATOR]]
        predator = torch.where(state.alive, moved, state.predator)
        chosen = action[PREY][:, 0] if self.learned_prey else self.flight(state, noise["way"])
        prey = board.after[state.prey, chosen]
        near = board.near[predator, prey.unsqueeze(-1)]
        caught = (near | ~state.alive).all(-1)

        won = caught.float()
        gain = p.capture_reward * won - p.step_cost
        reward = {PREDATOR: gain.unsqueeze(-1) * state.alive.float()}
        if self.learned_prey:
            loss = -gain if p.zero_sum else p.survival_reward * (1 - won) - p.capture_reward * won
            reward[PREY] = loss.unsqueeze(-1)
        heard = noise["heard"] >= p.message_dropout
        return Step(
            PredatorPreyState(predator, prey, state.alive, heard), reward, caught, {"captures": won}
        )

    def flight(self, state: PredatorPreyState, way: Tensor) -> Tensor:
        """What a prey that is not learned does, ``[n_envs]``: the first of its best actions.

        ``way`` is uniform in [0, 1), for a prey that walks at random.
        """
        n_actions = self.board.after.shape[1]
        if self.params.prey == "random":
            return (way * n_actions).long().clamp_max(n_actions - 1)
        after = self.board.after[state.prey]  # [n_envs, n_actions]
        far = self.board.square[after.unsqueeze(-1), state.predator.unsqueeze(1)]
        alive = state.alive.unsqueeze(1)
        if self.params.prey == "total":
            return torch.where(alive, far, 0).sum(-1).argmax(-1)
        return torch.where(alive, far, self.board.n_cells**2).amin(-1).argmax(-1)

    # ---------------------------------------------------------------- sensing
    def observe(self, state: PredatorPreyState) -> Groups:
        place = self._share(state.predator)  # [n_envs, n_agents, 2]
        prey = self._share(state.prey).unsqueeze(1)
        others = place[:, self._others]
        seen = state.heard & state.alive[:, self._others]
        to_others = self._way(place.unsqueeze(2), others, seen)
        to_prey = self._way(place, prey.expand_as(place), torch.ones_like(state.alive))
        found = [place, to_others.flatten(2), to_prey]
        out = {PREDATOR: torch.cat([*found, *self._walls(state.predator)], -1)}
        if self.learned_prey:
            to_all = self._way(prey, place, state.alive).flatten(1).unsqueeze(1)
            walls = self._walls(state.prey.unsqueeze(1))
            out[PREY] = torch.cat([prey, to_all, *walls], -1)
        return out

    def _share(self, cell: Tensor) -> Tensor:
        """Row and column as shares of the board's side, ``[*cell.shape, 2]``."""
        return self.board.place[cell].float() / (self.params.grid_size - 1)

    def _way(self, here: Tensor, there: Tensor, seen: Tensor) -> Tensor:
        """Way and whether it is seen, ``[*B, 3]``, for places ``[*B, 2]``; zeros if it is not."""
        way = there - here
        if self.params.sight is not None:
            reach = (self.params.sight + 0.5) / (self.params.grid_size - 1)
            seen = seen & (way.abs().amax(-1) <= reach)
        shown = seen.unsqueeze(-1).to(way.dtype)
        return torch.cat([way * shown, shown], -1)

    def _walls(self, cell: Tensor) -> list[Tensor]:
        """Which moves lead nowhere, ``[*B, 4]``, in mode obstacles."""
        if self.params.mode != "obstacles":
            return []
        return [(self.board.next[cell][..., 1:] == cell.unsqueeze(-1)).float()]

    def team_state(self, state: PredatorPreyState) -> Tensor:
        places = torch.cat([self._share(state.predator).flatten(1), self._share(state.prey)], -1)
        return torch.cat([places, state.alive.float()], -1)

    def action_mask(self, state: PredatorPreyState) -> Groups:
        leads = self.board.next[state.predator]
        moves = (leads != state.predator.unsqueeze(-1)) & state.alive.unsqueeze(-1)
        stay = torch.ones_like(moves[..., :1])
        mask = {PREDATOR: torch.cat([stay, moves[..., 1:]], -1)}
        if self.learned_prey:
            free = self.board.after[state.prey] != state.prey.unsqueeze(-1)
            free = torch.cat([torch.ones_like(free[:, :1]), free[:, 1:]], -1)
            mask[PREY] = free.unsqueeze(1)
        return mask

    def alive(self, state: PredatorPreyState) -> Groups:
        return {PREDATOR: state.alive} if self.n_dead > 0 else {}

    def agent_info(self, state: PredatorPreyState) -> dict[str, Groups]:
        """Row and column of everybody."""
        found = {PREDATOR: self.board.place[state.predator].float()}
        if self.learned_prey:
            found[PREY] = self.board.place[state.prey].float().unsqueeze(1)
        return {"position": found}

    # ---------------------------------------------------------------- judging
    def score(self, totals: dict[str, Tensor]) -> Tensor:
        return totals["steps"]

    def baselines(self) -> dict[str, Policy]:
        from marl_td.tasks.predator_prey.policies import Chase

        return {
            "straight": Chase(self, straight=True),
            "shortest_path": Chase(self, straight=False),
        }

    def optimum(self) -> Optimum | None:
        """Best play, from :mod:`~marl_td.tasks.predator_prey.exact`; None where the game is too large."""
        return best_play(self.params, self.params.n_agents - self.n_dead)

    def episode_series(self, state: PredatorPreyState) -> dict[str, Tensor]:
        way = self.board.square[state.predator, state.prey.unsqueeze(-1)]
        return {"distance to the prey, cells": way.float().sqrt()}

    def render(self, state: PredatorPreyState, index: int = 0) -> np.ndarray[Any, Any]:
        from marl_td.tasks.predator_prey.render import draw

        return draw(self.board, state, index)
