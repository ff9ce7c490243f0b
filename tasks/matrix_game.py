"""One-step matrix games: every agent picks an action, the payoff table pays the team.

Description:
    The smallest cooperative problem. ``payoff`` is nested lists with one dimension per agent; the
    entry at the joint action is everybody's reward. The default is the game of QTRAN (Son et al.
    2019, https://arxiv.org/abs/1905.05408, Table 1), on which additive and monotone value
    factorisations fail.

Action space: discrete, ``payoff.shape[i]`` actions (all agents must have the same number).
Observation space: a one-hot agent index, ``[n_agents, n_agents]``.
Global state: the constant 1, ``[1]``.
Reward: the payoff at the joint action, the same for all agents.
Start: a single state.
End: terminates after one step, or after ``repeats`` steps (EPyMARL repeats its games 25 times).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from marl_td.tasks.base import (
    Discrete,
    Groups,
    GroupSpec,
    Noise,
    Optimum,
    Step,
    Task,
    TaskParams,
    require,
)

QTRAN_PAYOFF = [[8.0, -12.0, -12.0], [-12.0, 0.0, 0.0], [-12.0, 0.0, 0.0]]


@dataclass
class MatrixGameParams(TaskParams):
    """Parameters of a matrix game."""

    payoff: list[Any] = field(default_factory=lambda: [list(row) for row in QTRAN_PAYOFF])
    """Team reward of every joint action, nested lists ``[n_actions] * n_agents``."""
    max_steps: int = 1
    """Time limit in steps, at least ``repeats``."""
    repeats: int = 1
    """Number of times the same game is played in one episode."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.repeats >= 1, f"repeats must be at least 1; got {self.repeats}.")
        self.max_steps = max(self.max_steps, self.repeats)
        payoff_tensor(self.payoff)


def payoff_tensor(payoff: list[Any]) -> Tensor:
    """Payoff table as a float tensor ``[n_actions] * n_agents``.

    Raises:
        ValueError: if it is not rectangular, holds a non-finite number, or agents differ in their
            number of actions.
    """
    try:
        table = torch.tensor(payoff, dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "payoff must be nested lists of numbers of equal lengths, one level per agent; "
            f"{error}."
        ) from error
    require(
        table.ndim >= 1 and table.numel() > 0 and len(set(table.shape)) == 1,
        f"payoff must give every agent the same number of actions; got shape {tuple(table.shape)}.",
    )
    require(bool(table.isfinite().all()), "payoff must hold finite numbers only.")
    return table


class MatrixGameState(NamedTuple):
    """Number of games played so far, ``[n_envs]`` int64."""

    played: Tensor


class MatrixGame(Task[MatrixGameParams, MatrixGameState]):
    """See the module's docstring."""

    name = "matrix_game"
    Params: ClassVar[type[TaskParams]] = MatrixGameParams
    has_continuous_actions = False

    def __init__(
        self,
        params: MatrixGameParams,
        continuous: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(params, continuous, device)
        self.payoff = payoff_tensor(params.payoff).to(self.device)
        self.n_agents = self.payoff.ndim
        self.n_actions = self.payoff.shape[0]
        self._identity = torch.eye(self.n_agents, device=self.device)

    @property
    def groups(self) -> dict[str, GroupSpec]:
        """One group, ``"agents"``."""
        return {"agents": GroupSpec(self.n_agents, self.n_agents, Discrete(self.n_actions))}

    @property
    def d_state(self) -> int:
        """The state is the constant 1."""
        return 1

    def reset(self, n_envs: int, noise: Noise) -> MatrixGameState:
        """No game has been played."""
        return MatrixGameState(torch.zeros(n_envs, dtype=torch.long, device=self.device))

    def step(self, state: MatrixGameState, action: Groups, noise: Noise) -> Step[MatrixGameState]:
        """Play the game once."""
        index = joint_index(action["agents"], self.n_actions)
        reward = self.payoff.flatten()[index]
        played = state.played + 1
        return Step(
            MatrixGameState(played),
            {"agents": reward.unsqueeze(-1).expand(-1, self.n_agents)},
            played >= self.params.repeats,
            {},
        )

    def observe(self, state: MatrixGameState) -> Groups:
        """Each agent's one-hot index."""
        n_envs = state.played.shape[0]
        return {"agents": self._identity.expand(n_envs, -1, -1)}

    def team_state(self, state: MatrixGameState) -> Tensor:
        """The constant 1."""
        return torch.ones((state.played.shape[0], 1), device=self.device)

    def optimum(self) -> Optimum:
        """The largest payoff, in every game."""
        best = float(self.payoff.max()) * self.params.repeats
        return Optimum(best, "exact", "largest entry of the payoff table, played every time")


def joint_index(action: Tensor, n_actions: int) -> Tensor:
    """Row-major index ``[*B]`` of the joint action ``[*B, n_agents]`` (agent 1 slowest)."""
    n_agents = action.shape[-1]
    powers = n_actions ** torch.arange(n_agents - 1, -1, -1, device=action.device)
    return (action * powers).sum(-1)
