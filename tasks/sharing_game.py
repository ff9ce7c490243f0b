"""The game that agents with one shared policy cannot win: half of them must do the opposite of the others.

Description:
    Kuba et al. 2022, proposition 1 (https://arxiv.org/abs/2109.11251). An even number n of agents that see
    the same choose 0 or 1 at once. The team is paid 1 if the first half of them agree on one action and the
    second half on the other, ``(0, .., 0, 1, .., 1)`` or ``(1, .., 1, 0, .., 0)``, else 0.

    Agents that share one policy all choose 0 with the same probability p. They are paid with probability
    ``2 p^(n/2) (1 - p)^(n/2)``, which is largest at p = 1/2: ``2 / 2^n``, no more than at random. Agents
    with a policy each can always be paid.

Action space: discrete, 2 actions.
Observation space: the constant 1, ``[1]``; the one-hot agent index ``[n_agents]`` with ``agent_id``, which
    lets shared networks tell agents apart again.
Global state: the constant 1, ``[1]``.
Reward: 0 or 1, the same for all agents.
Start: a single state.
End: terminates after one step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

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


@dataclass
class SharingGameParams(TaskParams):
    """Parameters of the sharing game."""

    max_steps: int = 1
    """Time limit in steps; the game ends after one anyway."""
    n_agents: int = 4
    """Number of agents, even and at least 2."""
    agent_id: bool = False
    """Whether an agent sees its one-hot index instead of the constant 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.n_agents >= 2 and self.n_agents % 2 == 0,
            f"n_agents must be even and at least 2; got {self.n_agents}.",
        )


class SharingGameState(NamedTuple):
    """Number of games played so far, ``[n_envs]`` int64."""

    played: Tensor


class SharingGame(Task[SharingGameParams, SharingGameState]):
    """See the module's docstring."""

    name = "sharing_game"
    Params: ClassVar[type[TaskParams]] = SharingGameParams
    has_continuous_actions = False

    @property
    def groups(self) -> dict[str, GroupSpec]:
        """One group, ``"agents"``."""
        n_agents = self.params.n_agents
        d_obs = n_agents if self.params.agent_id else 1
        return {"agents": GroupSpec(n_agents, d_obs, Discrete(2))}

    @property
    def d_state(self) -> int:
        """The state is the constant 1."""
        return 1

    def reset(self, n_envs: int, noise: Noise) -> SharingGameState:
        """No game has been played."""
        return SharingGameState(torch.zeros(n_envs, dtype=torch.long, device=self.device))

    def step(self, state: SharingGameState, action: Groups, noise: Noise) -> Step[SharingGameState]:
        """Play the game once."""
        chosen = action["agents"]
        paid = is_split(chosen).to(torch.float32)
        reward = paid.unsqueeze(-1).expand(chosen.shape)
        ended = torch.ones_like(state.played, dtype=torch.bool)
        return Step(SharingGameState(state.played + 1), {"agents": reward}, ended, {})

    def observe(self, state: SharingGameState) -> Groups:
        """The constant 1, or each agent's one-hot index."""
        n_agents = self.params.n_agents
        if self.params.agent_id:
            seen = torch.eye(n_agents, device=self.device)
        else:
            seen = torch.ones((n_agents, 1), device=self.device)
        return {"agents": seen.expand(state.played.shape[0], -1, -1)}

    def team_state(self, state: SharingGameState) -> Tensor:
        """The constant 1."""
        return torch.ones((state.played.shape[0], 1), device=self.device)

    def baselines(self) -> dict[str, Policy]:
        """``split``: the first half chooses 0, the second 1. The best shared policy is the random one."""
        return {"split": self._split}

    def _split(self, td: TensorDictBase) -> TensorDictBase:
        n_agents = self.params.n_agents
        action = (torch.arange(n_agents, device=self.device) >= n_agents // 2).long()
        return td.set(("agents", "action"), action.expand(*td.batch_size, n_agents))

    def optimum(self) -> Optimum:
        """Always paid."""
        return Optimum(1.0, "exact", "one half of the agents does what the other half does not")


def is_split(action: Tensor) -> Tensor:
    """Whether the halves of joint actions ``[*B, n_agents]`` agree in themselves and differ, ``[*B]``."""
    half = action.shape[-1] // 2
    first, second = action[..., :half], action[..., half:]
    agree = (first == first[..., :1]).all(-1) & (second == second[..., :1]).all(-1)
    return agree & (first[..., 0] != second[..., 0])


def shared_ceiling(n_agents: int) -> float:
    """The largest expected reward of agents that share one policy: ``2 / 2^n``."""
    return 2.0 / 2.0**n_agents


def expected_reward(probability: Tensor) -> Tensor:
    """Expected reward ``[*B]`` of agents that choose 0 with ``probability`` ``[*B, n_agents]`` each."""
    half = probability.shape[-1] // 2
    first, second = probability[..., :half], probability[..., half:]
    one = first.prod(-1) * (1.0 - second).prod(-1)
    return one + (1.0 - first).prod(-1) * second.prod(-1)
