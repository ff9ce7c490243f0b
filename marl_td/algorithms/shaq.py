"""SHAQ: Q-learning on the agents' shares of the team's value, after Shapley.

Wang et al. 2022, "SHAQ: Incorporating Shapley Value Theory into Multi-Agent Q-Learning",
https://arxiv.org/abs/2105.15013. ``docs/algorithms/shaq.md`` says what differs from the reference code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tensordict.nn import TensorDictModuleBase

from marl_td.algorithms.base import MarlTdAlgorithm, check_range
from marl_td.algorithms.q_mixing_family import QMixingFamily, StateMixingConfig
from marl_td.losses.q_mixing import QMixingLoss
from marl_td.models.mixers import ShapleyMixer, SumMixer
from marl_td.models.team import Team, TeamNetworks


class Shaq(QMixingFamily):
    """SHAQ on one group of agents; see :class:`ShaqConfig` for its settings."""


@dataclass
class ShaqConfig(StateMixingConfig):
    """Hyperparameters of SHAQ."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Shaq

    n_orders: int = 10
    """Orders of joining that alpha is averaged over, >= 1: M. All of them where there are no more."""
    mixing_embed_dim: int = 32
    """Units of the network F that makes alpha, >= 1."""
    hypernet_embed: int = 64
    """Width of the hidden layers of its hypernetworks, >= 1."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_range("n_orders", self.n_orders, 1)
        check_range("mixing_embed_dim", self.mixing_embed_dim, 1)
        check_range("hypernet_embed", self.hypernet_embed, 1)

    def mixer(self, team: Team) -> ShapleyMixer:
        """The mixer of the prediction."""
        return ShapleyMixer(
            team.n_agents,
            team.d_state,
            n_orders=self.n_orders,
            d_embed=self.mixing_embed_dim,
            d_hypernet=self.hypernet_embed,
            state_norm=self.state_norm,
            local_key=team.key("chosen_action_value"),
            best_key=team.key("greedy_action_value"),
            state_key=team.state_key,
            alive_key=team.alive_key,
        )

    def build_loss(
        self, network: TensorDictModuleBase, networks: TeamNetworks, **options: Any
    ) -> QMixingLoss:
        """The loss, whose targets are plain sums."""
        team = networks.team
        total = SumMixer(team.n_agents, local_key=team.key("chosen_action_value"))
        mixer = networks.central(self.mixer(team))
        return QMixingLoss(network, mixer, target_mixer=total, **options)
