"""QTRAN-base and QTRAN-alt: agents' values tied to an unrestricted joint value at its best joint action.

Son et al. 2019, "QTRAN: Learning to Factorize with Transformation for Cooperative Multi-Agent Reinforcement
Learning", https://arxiv.org/abs/1905.05408. ``docs/algorithms/qtran_base.md`` and ``qtran_alt.md`` say what
differs from the reference code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tensordict.nn import TensorDictModuleBase

from marl_td.algorithms.base import MarlTdAlgorithm, check_range
from marl_td.algorithms.q_mixing_family import QMixingFamily, StateMixingConfig
from marl_td.losses.qtran import QtranLoss
from marl_td.models.joint_value import CounterfactualValue, JointActionValue, state_value
from marl_td.models.team import TeamNetworks


@dataclass
class QtranConfig(StateMixingConfig):
    """Hyperparameters of both."""

    COUNTERFACTUAL: ClassVar[bool]

    opt_coef: float = 1.0
    """Weight of the squared gap at the greedy joint action, >= 0: lambda_opt."""
    nopt_coef: float = 1.0
    """Weight of the gaps below 0 at other joint actions, >= 0: lambda_nopt (1 authors, 0.1 PyMARL)."""
    feature_dim: int = 64
    """Width of what the joint value knows of each agent, >= 1."""
    hidden_dim: int = 64
    """Width of the hidden layers of joint and state value, >= 1."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_range("opt_coef", self.opt_coef, 0.0)
        check_range("nopt_coef", self.nopt_coef, 0.0)
        check_range("feature_dim", self.feature_dim, 1)
        check_range("hidden_dim", self.hidden_dim, 1)

    def build_loss(
        self, network: TensorDictModuleBase, networks: TeamNetworks, **options: Any
    ) -> QtranLoss:
        """The loss, with a joint value that has agents' networks of its own."""
        team = networks.team
        sizes: dict[str, Any] = {"d_hidden": self.hidden_dim, "state_norm": self.state_norm}
        joint = JointActionValue(
            team.n_actions,
            team.d_state,
            self.feature_dim,
            feature_key=team.key("joint_feature"),
            action_key=team.key("joint_action"),
            state_key=team.state_key,
            **sizes,
        )
        counterfactual = None
        if self.COUNTERFACTUAL:
            values = CounterfactualValue(joint, team.key("counterfactual_value"))
            counterfactual = networks.central(values)
        return QtranLoss(
            network,
            networks.agents("joint_feature", self.feature_dim),
            networks.central(joint),
            networks.central(state_value(team.d_state, state_key=team.state_key, **sizes)),
            counterfactual=counterfactual,
            opt_coeff=self.opt_coef,
            nopt_coeff=self.nopt_coef,
            **options,
        )


class QtranBase(QMixingFamily):
    """QTRAN-base on one group of agents; see :class:`QtranBaseConfig` for its settings."""


@dataclass
class QtranBaseConfig(QtranConfig):
    """Hyperparameters of QTRAN-base: agents' values tied to a joint value at the actions taken."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = QtranBase
    COUNTERFACTUAL: ClassVar[bool] = False


class QtranAlt(QMixingFamily):
    """QTRAN-alt on one group of agents; see :class:`QtranAltConfig` for its settings."""


@dataclass
class QtranAltConfig(QtranConfig):
    """Hyperparameters of QTRAN-alt: agents' values tied to a joint value, over one agent's actions."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = QtranAlt
    COUNTERFACTUAL: ClassVar[bool] = True
