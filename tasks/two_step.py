"""The two-step game of QMIX: a choice now decides which payoff table is played next.

Description:
    Rashid et al. 2018, section 5.1 (https://arxiv.org/abs/1803.11485). In state 1, agent 1 picks by
    its action which table is played next, 2A (action 0) or 2B (action 1); agent 2's action has no
    effect. Table 2A always pays 7; table 2B pays 8, but only if both agents take action 1. An
    additive factorisation (VDN) cannot represent 2B and settles for 7; a monotone one (QMIX) finds
    8.

Action space: discrete, 2 actions per agent.
Observation space: one-hot state ``[3]`` (1, 2A, 2B), followed by the one-hot agent index ``[2]`` if
    ``agent_id``.
Global state: one-hot state ``[3]``.
Reward: 0 in the first step, the table's entry at the joint action (agent 1 the row) in the second;
    the same for both agents.
Start: state 1.
End: terminates after the second step.
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
from marl_td.tasks.matrix_game import joint_index, payoff_tensor
from marl_td.tasks.order import one_hot


@dataclass
class TwoStepParams(TaskParams):
    """Parameters of the two-step game."""

    payoff_2a: list[Any] = field(default_factory=lambda: [[7.0, 7.0], [7.0, 7.0]])
    """Team reward of every joint action in table 2A, 2 x 2, agent 1 picks the row."""
    payoff_2b: list[Any] = field(default_factory=lambda: [[0.0, 1.0], [1.0, 8.0]])
    """Team reward of every joint action in table 2B, 2 x 2, agent 1 picks the row."""
    max_steps: int = 2
    """Time limit in steps, at least 2."""
    agent_id: bool = True
    """Whether an agent's observation ends with its one-hot index (needed with shared networks)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.max_steps = max(self.max_steps, 2)
        for name in ("payoff_2a", "payoff_2b"):
            shape = tuple(payoff_tensor(getattr(self, name)).shape)
            require(shape == (2, 2), f"{name} must be a 2 x 2 table; got shape {shape}.")


class TwoStepState(NamedTuple):
    """Which state the game is in (0: 1, 1: 2A, 2: 2B), ``[n_envs]`` int64."""

    where: Tensor


class TwoStep(Task[TwoStepParams, TwoStepState]):
    """See the module's docstring."""

    name = "two_step"
    Params: ClassVar[type[TaskParams]] = TwoStepParams
    has_continuous_actions = False

    def __init__(
        self,
        params: TwoStepParams,
        continuous: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(params, continuous, device)
        tables = [payoff_tensor(table) for table in (params.payoff_2a, params.payoff_2b)]
        rows = [torch.zeros(4), *(table.flatten() for table in tables)]
        self._reward = torch.stack(rows).to(self.device)  # [state, joint action]
        self._identity = torch.eye(2, device=self.device)

    @property
    def groups(self) -> dict[str, GroupSpec]:
        """One group of two, ``"agents"``."""
        return {"agents": GroupSpec(2, 5 if self.params.agent_id else 3, Discrete(2))}

    @property
    def d_state(self) -> int:
        """The one-hot state."""
        return 3

    def reset(self, n_envs: int, noise: Noise) -> TwoStepState:
        """State 1 everywhere."""
        return TwoStepState(torch.zeros(n_envs, dtype=torch.long, device=self.device))

    def step(self, state: TwoStepState, action: Groups, noise: Noise) -> Step[TwoStepState]:
        """Agent 1's choice in state 1, a table's payoff after it."""
        chosen = action["agents"]
        first = state.where == 0
        reward = self._reward[state.where, joint_index(chosen, 2)]
        where = torch.where(first, 1 + chosen[:, 0], state.where)
        return Step(TwoStepState(where), {"agents": reward.unsqueeze(-1).expand(-1, 2)}, ~first, {})

    def observe(self, state: TwoStepState) -> Groups:
        """The one-hot state, and who is asking."""
        seen = self.team_state(state).unsqueeze(1).expand(-1, 2, -1)
        if not self.params.agent_id:
            return {"agents": seen}
        index = self._identity.expand(seen.shape[0], -1, -1)
        return {"agents": torch.cat([seen, index], -1)}

    def team_state(self, state: TwoStepState) -> Tensor:
        """The one-hot state ``[n_envs, 3]``."""
        return one_hot(state.where, 3)

    def optimum(self) -> Optimum:
        """The better table's largest payoff."""
        best = float(self._reward[1:].max())
        return Optimum(best, "exact", "largest entry of both payoff tables")
