"""ROMA: QMIX with agents that act by roles, which are learned to be identifiable and specialised.

Wang et al. 2020, "ROMA: Multi-Agent Reinforcement Learning with Emergent Roles",
https://arxiv.org/abs/2003.08039. ``docs/algorithms/roma.md`` says what differs from the paper and from the
authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tensordict.nn import TensorDictModuleBase, TensorDictSequential

from marl_td.algorithms.base import MarlTdAlgorithm, check_range
from marl_td.algorithms.q_mixing_family import QMixingFamily
from marl_td.algorithms.qmix import MonotonicConfig
from marl_td.losses.roma import RomaLoss
from marl_td.models.roles import Dissimilarity, RoleEncoder, RoleHead, RolePosterior
from marl_td.models.team import Team, TeamNetworks


class Roma(QMixingFamily):
    """ROMA on one group of agents; see :class:`RomaConfig` for its settings."""


@dataclass
class RomaConfig(MonotonicConfig):
    """Hyperparameters of ROMA."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Roma

    kl_coef: float = 1e-4
    """Weight of the roles' identifiability, >= 0: lambda_I."""
    dis_coef: float = 1e-3
    """Weight of the roles' specialisation, >= 0: lambda_D."""
    entropy_coef: float = 0.0
    """Weight of the roles' entropy, >= 0: above 0 roles become more certain (1e-4 in the authors' code)."""
    bound: float = 1.0
    """What a pair's likeness of roles and dissimilarity of trajectories together need not exceed: U."""
    scale_pairs: bool = True
    """Move both to [0, 1] over a step's pairs before they meet U (authors' code), or leave them in nats."""
    role_dim: int = 3
    """Width of a role, >= 1."""
    role_hidden_dim: int = 16
    """Width of the hidden layers of all role networks, >= 1."""
    role_var_floor: float = 0.002
    """Smallest variance of a role, >= 1e-06."""
    trajectory_dim: int = 64
    """Width of what the model says of an agent's history, which the role's layer reads, >= 1."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_range("kl_coef", self.kl_coef, 0.0)
        check_range("dis_coef", self.dis_coef, 0.0)
        check_range("entropy_coef", self.entropy_coef, 0.0)
        check_range("bound", self.bound, 0.0)
        check_range("role_dim", self.role_dim, 1)
        check_range("role_hidden_dim", self.role_hidden_dim, 1)
        check_range("role_var_floor", self.role_var_floor, 1e-6)
        check_range("trajectory_dim", self.trajectory_dim, 1)

    def value_network(self, networks: TeamNetworks, name: str, width: int) -> TensorDictModuleBase:
        """The model's features, each agent's role, and a last layer that is made from it."""
        team, sizes = networks.team, self._sizes(networks.team)
        encoder = RoleEncoder(team.d_agent, self.role_dim, var_floor=self.role_var_floor, **sizes)
        head = RoleHead(self.trajectory_dim, width, self.role_dim, out_key=team.key(name), **sizes)
        trajectory = networks.agents("trajectory", self.trajectory_dim)
        return TensorDictSequential(trajectory, networks.central(encoder), head)

    def build_loss(
        self, network: TensorDictModuleBase, networks: TeamNetworks, **options: Any
    ) -> RomaLoss:
        """The loss, with what tells roles from trajectories and trajectories from each other."""
        team = networks.team
        posterior = RolePosterior(
            self.trajectory_dim,
            team.d_agent,
            self.role_dim,
            var_floor=self.role_var_floor,
            **self._sizes(team),
        )
        dissimilarity = Dissimilarity(
            self.trajectory_dim, d_hidden=self.role_hidden_dim, group=team.group
        )
        return RomaLoss(
            network,
            networks.central(self.mixer(team)),
            posterior,
            dissimilarity,
            d_role=self.role_dim,
            kl_coeff=self.kl_coef,
            dis_coeff=self.dis_coef,
            entropy_coeff=self.entropy_coef,
            bound=self.bound,
            scaled=self.scale_pairs,
            **options,
        )

    def _sizes(self, team: Team) -> dict[str, Any]:
        """What all role networks of a team's agents have in common."""
        n_groups = 1 if team.shared else team.n_agents
        return {"n_groups": n_groups, "d_hidden": self.role_hidden_dim, "group": team.group}
