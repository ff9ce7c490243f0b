"""CW-QMIX and OW-QMIX: QMIX with errors weighted towards the joint actions that matter.

Rashid et al. 2020, "Weighted QMIX: Expanding Monotonic Value Function Factorisation for Deep Multi-Agent
Reinforcement Learning", https://arxiv.org/abs/2006.10800. ``docs/algorithms/cw_qmix.md`` and ``ow_qmix.md``
say what differs from the reference code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tensordict.nn import TensorDictModuleBase

from marl_td.algorithms.base import MarlTdAlgorithm, check_range
from marl_td.algorithms.q_mixing_family import QMixingFamily
from marl_td.algorithms.qmix import MonotonicConfig
from marl_td.losses.weighted_q_mixing import WeightedQMixingLoss
from marl_td.models.mixers import CentralMixer
from marl_td.models.team import TeamNetworks


@dataclass
class WeightedQmixConfig(MonotonicConfig):
    """Hyperparameters of both."""

    WEIGHTING: ClassVar[Literal["central", "optimistic"]]

    alpha: float = 0.1
    """Weight of the joint actions that matter less, in [0, 1]: alpha. 1 is QMIX with Q*'s targets."""
    central_hidden_dim: int = 256
    """Width of the hidden layers of the unrestricted mixer, >= 1."""
    central_layers: int = 3
    """Hidden layers of the unrestricted mixer, >= 1."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_range("alpha", self.alpha, 0.0, 1.0)
        check_range("central_hidden_dim", self.central_hidden_dim, 1)
        check_range("central_layers", self.central_layers, 1)

    def build_loss(
        self, network: TensorDictModuleBase, networks: TeamNetworks, **options: Any
    ) -> WeightedQMixingLoss:
        """The loss, with agents' networks of its own for the unrestricted value."""
        team = networks.team
        central_mixer = CentralMixer(
            team.n_agents,
            team.d_state,
            d_hidden=self.central_hidden_dim,
            n_hidden=self.central_layers,
            state_norm=self.state_norm,
            local_key=team.key("chosen_action_value"),
            state_key=team.state_key,
        )
        return WeightedQMixingLoss(
            network,
            networks.central(self.mixer(team)),
            networks.agents("action_value", team.n_actions),
            networks.central(central_mixer),
            weighting=self.WEIGHTING,
            alpha=self.alpha,
            **options,
        )


class CwQmix(QMixingFamily):
    """Centrally weighted QMIX on one group of agents; see :class:`CwQmixConfig` for its settings."""


@dataclass
class CwQmixConfig(WeightedQmixConfig):
    """Hyperparameters of CW-QMIX: QMIX that weights errors less unless the action may be the best."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = CwQmix
    WEIGHTING: ClassVar[Literal["central", "optimistic"]] = "central"


class OwQmix(QMixingFamily):
    """Optimistically weighted QMIX on one group of agents; see :class:`OwQmixConfig`."""


@dataclass
class OwQmixConfig(WeightedQmixConfig):
    """Hyperparameters of OW-QMIX: QMIX that weights errors less where the value is overestimated."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = OwQmix
    WEIGHTING: ClassVar[Literal["central", "optimistic"]] = "optimistic"
