"""The lever game: strangers must each pull a different lever.

Description:
    Sukhbaatar et al. 2016, "Learning Multiagent Communication with Backpropagation",
    https://arxiv.org/abs/1605.07736, section 4.1. Of a pool of agents m are drawn at random; each pulls
    one of m levers, all at once, and the team is paid by the number of different levers. An agent knows
    its own number in the pool and nothing else. Without communication a lever can at best be assigned
    to every number, which is hardly better than chance; agents that hear each other's numbers can
    pull the lever of their rank among them, and get everything.

    Agents must share one policy that does not know their place among those drawn: with a network for
    each place (or with its index as an input) there is nothing to solve.

Action space: discrete, the m = ``n_agents`` levers.
Observation space (per agent, float32), N = ``pool``; numbers are written in ``id_code``: ``one_hot`` (N
    columns), ``bits`` (binary, from 1, the lowest bit first), ``number`` (one column, 1/N to 1):

    =========  =====================  ==========================================================
    columns    width                  content
    =========  =====================  ==========================================================
    own        code                   own number
    others     N, or (m - 1) code     with ``see_others``: the others' numbers; one_hot: all of them in
                                      one row of N; else one after the other, from the next on, cyclic;
                                      zeros for those not heard
    =========  =====================  ==========================================================

Global state: all numbers: a row of N with ones (one_hot), or one code after the other.
Reward (the team's): share of the levers that is pulled, in [0, 1]; with ``count_from_one`` (distinct - 1) /
    (m - 1), as the authors' code has it. Dead agents pull nothing.
Start: agents drawn uniformly, without repetition.
End: terminates after one step.
Info: ``distinct``, levers pulled. Of every agent: its number ``id`` and its ``rank`` among the living ones
    drawn, which is the answer that supervised training takes as its target.
Score: share of the levers that is pulled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from tensordict import TensorDictBase
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
    require,
)
from marl_td.tasks.failures import FailureParams, alive_agents, dead_count
from marl_td.tasks.levers.chances import random_share, silent_share

GROUP = "agents"
CODES = ("one_hot", "bits", "number")


@dataclass
class LeversParams(FailureParams):
    """Parameters of the lever game; the defaults are those of Sukhbaatar et al. (2016)."""

    max_steps: int = 1
    """Time limit in steps; the game ends after one anyway."""
    n_agents: int = 5
    """Number of agents drawn and of levers, m, at least 2."""
    pool: int = 500
    """Number of agents to draw from, N, at least ``n_agents``."""
    id_code: str = "one_hot"
    """How numbers are written: one_hot (``pool`` columns), bits (binary) or number (one column)."""
    see_others: bool = False
    """Whether agents see the others' numbers, as if these had been sent; ``message_dropout`` loses them."""
    count_from_one: bool = False
    """Whether the reward is (distinct - 1) / (m - 1) instead of distinct / m."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.n_agents >= 2, f"n_agents must be at least 2; got {self.n_agents}.")
        require(
            self.pool >= self.n_agents,
            f"pool must be at least n_agents = {self.n_agents}; got {self.pool}.",
        )
        known = self.id_code in CODES
        require(known, f"id_code must be one of {', '.join(CODES)}; got '{self.id_code}'.")


class LeversState(NamedTuple):
    """Who was drawn and what was pulled, ``[n_envs, ...]``."""

    id: Tensor
    """Numbers of the agents, ``0 .. pool - 1``, ``[n_envs, n_agents]`` int64."""
    alive: Tensor
    """Agents that can pull, ``[n_envs, n_agents]`` bool."""
    heard: Tensor
    """Whether the agent (first) gets the number of each other one (second), ``[n_envs, m, m - 1]``."""
    pulled: Tensor
    """Levers pulled, -1 if none, ``[n_envs, n_agents]`` int64."""


class Levers(Task[LeversParams, LeversState]):
    """See the module's docstring."""

    name = "levers"
    Params: ClassVar[type[TaskParams]] = LeversParams
    has_continuous_actions = False
    unit: ClassVar[str] = "share of levers"
    info_keys: ClassVar[tuple[str, ...]] = ("distinct",)
    levels: ClassVar[dict[str, dict[str, Any]]] = {
        "easy": {"n_agents": 3, "pool": 12},
        "medium": {},
        "hard": {"n_agents": 10},
    }

    def __init__(
        self, params: LeversParams, continuous: bool = False, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(params, continuous, device)
        place = torch.arange(params.n_agents, device=self.device)
        self.others = (place.unsqueeze(-1) + place[1:]) % params.n_agents
        """The others from each one's point of view, ``[n_agents, n_agents - 1]``."""
        self.lever = place
        widths = {"one_hot": params.pool, "bits": params.pool.bit_length(), "number": 1}
        self.width = widths[params.id_code]
        """Columns of a number's code."""
        self.n_dead = dead_count(params.dead_agents, params.n_agents)

    # ------------------------------------------------------------------ shape
    @property
    def groups(self) -> dict[str, GroupSpec]:
        m = self.params.n_agents
        rows = 1 if self.params.id_code == "one_hot" else m - 1
        d_obs = self.width * (1 + rows * self.params.see_others)
        info = {"id": 1, "rank": 1}
        pull = Discrete(m, tuple(f"lever {i}" for i in range(m)))
        return {GROUP: GroupSpec(m, d_obs, pull, mortal=self.n_dead > 0, info=info)}

    @property
    def d_state(self) -> int:
        rows = 1 if self.params.id_code == "one_hot" else self.params.n_agents
        return self.width * rows

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers in [0, 1): ``draw`` ``[n_envs, pool]``, ``dead`` and ``lost``."""
        m = self.params.n_agents
        sizes = {"draw": (self.params.pool,), "dead": (m,), "lost": (m, m - 1)}
        return {
            name: torch.rand((n_envs, *size), generator=generator, device=self.device)
            for name, size in sizes.items()
        }

    def reset(self, n_envs: int, noise: Noise) -> LeversState:
        drawn = noise["draw"].topk(self.params.n_agents, dim=-1).indices
        alive = alive_agents(noise["dead"], self.n_dead)
        heard = (noise["lost"] >= self.params.message_dropout) & alive[:, self.others]
        return LeversState(drawn, alive, heard, torch.full_like(drawn, -1))

    def step(self, state: LeversState, action: Groups, noise: Noise) -> Step[LeversState]:
        m = self.params.n_agents
        pulled = torch.where(state.alive, action[GROUP], -1)
        distinct = (pulled.unsqueeze(-1) == self.lever).any(1).sum(-1).float()
        paid = (distinct - 1.0) / (m - 1) if self.params.count_from_one else distinct / m
        ended = torch.ones_like(distinct, dtype=torch.bool)
        reward = {GROUP: paid.unsqueeze(-1).expand(-1, m)}
        return Step(state._replace(pulled=pulled), reward, ended, {"distinct": distinct})

    # ---------------------------------------------------------------- sensing
    def encode(self, number: Tensor) -> Tensor:
        """Codes ``[*B, width]`` float32 of numbers ``[*B]`` in ``0 .. pool - 1``; no code is all zeros."""
        code, pool = self.params.id_code, self.params.pool
        if code == "number":
            return ((number + 1.0) / pool).unsqueeze(-1)
        column = torch.arange(self.width, device=number.device)
        number = number.unsqueeze(-1)
        return (((number + 1) >> column & 1) if code == "bits" else number == column).float()

    def observe(self, state: LeversState) -> Groups:
        own = self.encode(state.id)
        if not self.params.see_others:
            return {GROUP: own}
        number, heard = state.id[:, self.others], state.heard.float()
        if self.params.id_code == "one_hot":
            return {
                GROUP: torch.cat([own, torch.zeros_like(own).scatter_add(-1, number, heard)], -1)
            }
        others = (self.encode(number) * heard.unsqueeze(-1)).flatten(2)
        return {GROUP: torch.cat([own, others], -1)}

    def team_state(self, state: LeversState) -> Tensor:
        code = self.encode(state.id)
        return code.sum(1) if self.params.id_code == "one_hot" else code.flatten(1)

    def alive(self, state: LeversState) -> Groups:
        return {GROUP: state.alive} if self.n_dead else {}

    def rank(self, state: LeversState) -> Tensor:
        """How many living agents drawn have a lower number, ``[n_envs, n_agents]`` int64.

        Different for all living ones: the lever that each of them would pull if they agreed on that.
        """
        lower = state.id[:, self.others] < state.id.unsqueeze(-1)
        return (lower & state.alive[:, self.others]).sum(-1)

    def agent_info(self, state: LeversState) -> dict[str, Groups]:
        rows = {"id": state.id, "rank": self.rank(state)}
        return {name: {GROUP: row.unsqueeze(-1).float()} for name, row in rows.items()}

    # ---------------------------------------------------------------- judging
    def score(self, totals: dict[str, Tensor]) -> Tensor:
        """Share of the levers that is pulled, whatever the reward counts."""
        return totals["distinct"] / self.params.n_agents

    def chances(self) -> dict[str, float]:
        """Expected scores in closed form: of pulling at ``random``, and the ``best_silent``."""
        m = self.params.n_agents
        n_alive = m - self.n_dead
        best = silent_share(m, n_alive, self.params.pool)
        return {"random": random_share(m, n_alive), "best_silent": best}

    def baselines(self) -> dict[str, Policy]:
        """``partition``, the best without communication: number modulo m; ``rank``, the best with it."""
        return {"partition": self._partition, "rank": self._rank}

    def _partition(self, td: TensorDictBase) -> TensorDictBase:
        number = td.get((GROUP, "info", "id")).squeeze(-1).long()
        return td.set((GROUP, "action"), number % self.params.n_agents)

    def _rank(self, td: TensorDictBase) -> TensorDictBase:
        rank = td.get((GROUP, "info", "rank")).squeeze(-1).long()
        return td.set((GROUP, "action"), rank.clamp(max=self.params.n_agents - 1))

    def optimum(self) -> Optimum:
        """Every living agent pulls another lever: what agents can do that know each other's numbers.

        Lost messages (``message_dropout``) make it a bound.
        """
        m = self.params.n_agents
        kind: Literal["exact", "upper"] = "upper" if self.params.message_dropout else "exact"
        silent = self.chances()["best_silent"]
        how = f"everybody pulls the lever of its rank; without communication at most {silent:.4f}"
        return Optimum((m - self.n_dead) / m, kind, how)

    def episode_series(self, state: LeversState) -> dict[str, Tensor]:
        return {"lever pulled": state.pulled.float()}

    def render(self, state: LeversState, index: int = 0) -> np.ndarray[Any, Any]:
        from marl_td.tasks.levers.render import draw

        return draw(state, index)
