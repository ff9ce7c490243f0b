"""ISAC: soft actor-critic where every agent's critics see what the agent itself sees and does.

Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications", https://arxiv.org/abs/1812.05905, by
every agent for itself. The page ``docs/algorithms/isac.md`` says more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from marl_td import critics, policies
from marl_td.algorithms.base import MarlTdAlgorithm
from marl_td.algorithms.sac_family import SacConfig, SacFamily


class Isac(SacFamily):
    """ISAC on every group of agents; see :class:`IsacConfig`."""

    @property
    def scope(self) -> str:
        """The agent itself."""
        return "agent"

    def action_value(self, group: str) -> Any:
        """Critic of the own action, or one with a value for each of the own actions."""
        continuous = self.is_continuous(group)
        return critics.action_value(
            self,
            group,
            scope="agent",
            share_params=self.config.share_param_critic,
            reads_actions=continuous,
            n_values=None if continuous else policies.n_actions(self, group),
        )


@dataclass
class IsacConfig(SacConfig):
    """Hyperparameters of ISAC."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Isac
    CENTRAL_CRITIC: ClassVar[bool] = False

    share_param_critic: bool = True
    """One critic for all agents of a group, or one each."""
