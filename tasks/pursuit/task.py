"""Predators hunt prey on a grid, and can only catch together.

Description:
    Predator-prey with miscoordination penalty (mode ``relative_overgeneralisation``), after Boehmer et al.
    2020, "Deep Coordination Graphs", https://arxiv.org/abs/1910.00091, section 5.1: agents and prey on a
    board with walls around it, at most one in a cell. A prey is captured when two agents beside it (above,
    below, left or right) catch in the same step; then it leaves the board, and so do they. Catching alone
    costs ``penalty``. While the others explore, catching mostly costs, so that who averages over the others'
    actions learns never to catch (relative overgeneralisation).

Action space: discrete: 0 stay, 1 up, 2 down, 3 left, 4 right, 5 catch. Mask: no moves into walls, catch only
    beside a prey; agents that have left can only stay. A move into an agent or a prey is available and fails.

Observation space (per agent, float32): views of ``(2 * sight + 1) ** 2`` cells with the agent in the middle,
    row by row; zeros for agents that have left, or are dead:

    ===========  ============  =======================================
    columns      width         content, each 0 or 1
    ===========  ============  =======================================
    agents       view          cells with an agent, itself included; lost messages hide others
    prey         view          cells with a prey
    walls        view          cells outside the board, if ``see_walls``
    ===========  ============  =======================================

Global state: the whole board, agents and then prey, ``[2 * grid_size ** 2]``, each 0 or 1.
Reward (the team's, the same for every agent): ``capture_reward`` per prey captured, minus ``penalty`` per
    prey at which exactly one agent caught.
Step: agents move one after the other in a random order, each if its target is free at that moment. Then prey
    are judged in a random order, see :func:`~marl_td.tasks.pursuit.dynamics.catch`. Then those left walk to
    a random free cell beside them, see :func:`~marl_td.tasks.pursuit.dynamics.walk`.
Start: agents and prey on different cells, uniformly; dead agents are not on the board.
End: terminated when no prey is left, or fewer than two agents, who could not catch any more; truncated after
    ``max_steps``.
Info: ``captures`` and ``lone_catches``, per step; of every agent its ``position``, row and column.
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
from marl_td.tasks.grid import MOVE_NAMES, Board, move_in_turn, turns
from marl_td.tasks.pursuit import dynamics
from marl_td.tasks.pursuit.dynamics import CATCHERS
from marl_td.tasks.pursuit.params import PursuitParams

GROUP = "agents"
STAY, UP, DOWN, LEFT, RIGHT, CATCH = range(6)
N_ACTIONS = 6


class PursuitState(NamedTuple):
    """Cells of agents and prey on the :class:`~marl_td.tasks.grid.Board`, int64; ``nowhere`` if gone."""

    agent: Tensor
    """``[n_envs, n_agents]``."""
    prey: Tensor
    """``[n_envs, n_prey]``."""
    unheard: Tensor
    """Cells of the views in which no other agent is seen, bool ``[n_envs, n_agents, view]`` (0 wide without
    ``message_dropout``)."""


class Pursuit(Task[PursuitParams, PursuitState]):
    """See the module's docstring."""

    name = "pursuit"
    Params: ClassVar[type[TaskParams]] = PursuitParams
    has_continuous_actions = False
    info_keys = ("captures", "lone_catches")
    draws_starts_slowly = True
    levels: ClassVar[dict[str, dict[str, Any]]] = {
        "easy": {"grid_size": 5, "n_agents": 4, "n_prey": 4, "penalty": 0.0},
        "medium": {"grid_size": 5, "n_agents": 4, "n_prey": 4},
        "hard": {},
    }

    def __init__(
        self, params: PursuitParams, continuous: bool = False, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(params, continuous, device)
        self.board = Board(params.grid_size, params.sight, self.device)
        self.walls = self.board.wall.to(torch.int8).unsqueeze(0)
        """1 for walls, as they are seen, ``[1, board.n_cells]``."""
        self.n_dead = dead_count(params.dead_agents, params.n_agents)
        still = torch.zeros(1, dtype=torch.long, device=self.device)
        self.step_of = torch.cat([still, self.board.directions, still])
        """How far each action leads, ``[n_actions]``."""

    # ------------------------------------------------------------------ shape
    @property
    def groups(self) -> dict[str, GroupSpec]:
        p = self.params
        d_obs = self.board.window.numel() * (2 + p.see_walls)
        action = Discrete(N_ACTIONS, (*MOVE_NAMES, "catch"))
        info = {"position": 2}
        return {GROUP: GroupSpec(p.n_agents, d_obs, action, masked=True, mortal=True, info=info)}

    @property
    def d_state(self) -> int:
        return 2 * self.params.grid_size**2

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        """``cell``: different numbers of cells inside for agents and prey; uniform ``dead``, ``unheard``."""
        p = self.params
        widths = {
            "place": p.grid_size**2,
            "dead": p.n_agents * (self.n_dead > 0),
        }
        noise = self._uniform(n_envs, widths, generator)
        place = noise.pop("place")
        return noise | {"cell": place.topk(p.n_agents + p.n_prey, largest=False).indices}

    def draw_step(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers in [0, 1): turns of agents and prey, and the prey's ways and rests.

        ``agent_turn`` is ``[n_envs, n_agents]``, the others ``[n_envs, n_prey]``, ``unheard`` as above.
        """
        prey = dict.fromkeys(("prey_turn", "way", "rest"), self.params.n_prey)
        return self._uniform(n_envs, {"agent_turn": self.params.n_agents, **prey}, generator)

    def _uniform(
        self, n_envs: int, widths: dict[str, int], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """One call for all draws of a step, split by name; those of messages besides."""
        n = self.params.n_agents
        view = self.board.window.numel() * (self.params.message_dropout > 0.0)
        widths = {**widths, "unheard": n * view}
        size = (n_envs, sum(widths.values()))
        draws = torch.empty(size, device=self.device).uniform_(generator=generator)
        noise = dict(zip(widths, draws.split([*widths.values()], 1), strict=True))
        return noise | {"unheard": noise["unheard"].unflatten(1, (n, view))}

    def reset(self, n_envs: int, noise: Noise) -> PursuitState:
        n = self.params.n_agents
        cells = self.board.inside[noise["cell"]]
        agent, prey = cells[:, :n].contiguous(), cells[:, n:].contiguous()
        if self.n_dead > 0:
            agent = torch.where(alive_agents(noise["dead"], self.n_dead), agent, self.board.nowhere)
        return PursuitState(agent, prey, noise["unheard"] < self.params.message_dropout)

    def step(self, state: PursuitState, action: Groups, noise: Noise) -> Step[PursuitState]:
        p, board = self.params, self.board
        prey, turn = state.prey, turns(noise["prey_turn"])
        # Those who have left choose, too: nowhere there is nothing to enter or catch.
        chosen = action[GROUP]
        target = state.agent + self.step_of[chosen]
        open_ = ~board.wall[target] & (board.holders(prey, target) == p.n_prey)
        agent = move_in_turn(board, state.agent, target, turns(noise["agent_turn"]), open_)

        caught = dynamics.catch(board, agent, prey, chosen == CATCH, turn)
        agent = torch.where(caught.gone, board.nowhere, agent)
        prey = torch.where(caught.captured, board.nowhere, prey)

        stays = (prey == board.nowhere) | (noise["rest"] < p.prey_rest)
        prey = dynamics.walk(board, agent, prey, turn, noise["way"], stays)

        info = {
            "captures": caught.captured.sum(-1).float(),
            "lone_catches": caught.lone.sum(-1).float(),
        }
        reward = p.capture_reward * info["captures"] - p.penalty * info["lone_catches"]
        over = (prey == board.nowhere).all(-1) | ((agent != board.nowhere).sum(-1) < CATCHERS)
        team = {GROUP: reward.unsqueeze(-1).expand(-1, p.n_agents)}
        unheard = noise["unheard"] < p.message_dropout
        return Step(PursuitState(agent, prey, unheard), team, over, info)

    # ---------------------------------------------------------------- sensing
    def observe(self, state: PursuitState) -> Groups:
        board = self.board
        crowds = (state.agent, state.prey)
        agents, prey = (board.view(board.taken(cell), state.agent).float() for cell in crowds)
        if self.params.message_dropout > 0.0:
            heard = ~state.unheard | (board.window == 0)
            agents = agents * heard.reshape(agents.shape)
        planes = [agents, prey]
        if self.params.see_walls:
            planes.append(board.view(self.walls, state.agent).float())
        here = state.agent != board.nowhere
        return {GROUP: torch.stack(planes, 2).flatten(2) * here.unsqueeze(-1)}

    def team_state(self, state: PursuitState) -> Tensor:
        crowd = (state.agent, state.prey)
        planes = [self.board.without_margin(self.board.taken(cell)) for cell in crowd]
        return torch.cat([plane.float() for plane in planes], -1)

    def action_mask(self, state: PursuitState) -> Groups:
        board = self.board
        beside = board.around(state.agent)
        open_ = ~board.wall[beside]  # all walls around those who have left
        stay = torch.ones_like(open_[..., :1])
        held = board.holders(state.prey, beside) < self.params.n_prey
        prey = held.any(-1, keepdim=True)
        return {GROUP: torch.cat([stay, open_, prey], -1)}

    def alive(self, state: PursuitState) -> Groups:
        return {GROUP: state.agent != self.board.nowhere}

    def agent_info(self, state: PursuitState) -> dict[str, Groups]:
        """Row and column of every agent, -1 for those who have left."""
        place = torch.stack(self.board.place(state.agent), -1)
        here = (state.agent != self.board.nowhere).unsqueeze(-1)
        return {"position": {GROUP: torch.where(here, place, -1).float()}}

    # ---------------------------------------------------------------- judging
    def baselines(self) -> dict[str, Policy]:
        from marl_td.tasks.pursuit.policies import Hunter, Pack

        return {"hunter": Hunter(self.params), "pack": Pack(self.params)}

    def optimum(self) -> Optimum:
        """Every capture takes a prey and two agents away."""
        p = self.params
        most = min(p.n_prey, (p.n_agents - self.n_dead) // CATCHERS)
        how = f"{p.capture_reward:g} for each of at most {most} captures: each takes a prey and 2 agents"
        return Optimum(p.capture_reward * most, "upper", how)

    def episode_series(self, state: PursuitState) -> dict[str, Tensor]:
        crowd = (state.agent, state.prey)
        left = [(cell != self.board.nowhere).sum(-1) for cell in crowd]
        return {"agents and prey on the board": torch.stack(left, -1).float()}

    def render(self, state: PursuitState, index: int = 0) -> np.ndarray[Any, Any]:
        from marl_td.tasks.pursuit.render import draw

        crowd = (state.agent[index], state.prey[index])
        places = [torch.stack(self.board.place(cell), -1) for cell in crowd]
        on_board = [cell != self.board.nowhere for cell in crowd]
        return draw(self.params.grid_size, *places, *on_board)
