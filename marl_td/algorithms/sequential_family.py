"""What HAPPO and HATRPO share: one network per agent, and one agent's update after the other's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tensordict.nn import ProbabilisticTensorDictModule

from marl_td import critics
from marl_td.algorithms.base import check_choice
from marl_td.algorithms.ppo_family import CentralValueConfig, PpoFamily
from marl_td.algorithms.replay import count_minibatches


@dataclass
class SequentialConfig(CentralValueConfig):
    """Hyperparameters of the algorithms that update one agent after the other."""

    fixed_order: bool = False
    """Update the agents in their given order instead of a random one for every batch."""
    turn_scope: str = "environment"
    """Whose earlier updates an agent's factor counts: those of its group, or of all groups (environment)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_choice("turn_scope", self.turn_scope, critics.TEAM_SCOPES)


class SequentialFamily(PpoFamily):
    """Base of the algorithms of Kuba et al. 2022, https://arxiv.org/abs/2109.11251.

    Every agent has a network of its own, whatever ``experiment.share_policy_params`` says: without sharing
    is how these algorithms are defined. The optimiser steps on a batch are divided among the agents of a
    group; groups have their turns in BenchMARL's order.
    """

    @property
    def share_policy_params(self) -> bool:
        """Never."""
        return False

    @property
    def joint_entries(self) -> tuple[str, ...]:
        """What the factor of another group is made from."""
        return ("log_prob", "mask")

    @property
    def needs_joint_keys(self) -> bool:
        """Also where the factor counts other groups."""
        return super().needs_joint_keys or any(map(self.earlier_groups, self.group_map))

    @property
    def n_minibatches(self) -> int:
        """Minibatches of one batch."""
        return count_minibatches(self.experiment_config)

    def earlier_groups(self, group: str) -> list[str]:
        """Groups whose updates on a batch come before those of ``group``, and count in its factor."""
        if self.config.turn_scope == "group":
            return []
        names = list(self.group_map)
        return names[: names.index(group)]

    def _earlier_policy(self, group: str, earlier: str) -> Any:
        """The policy of a group that had its turn before ``group``.

        Raises:
            ValueError: if its actions have no probabilities.
        """
        policy = self.get_policy_for_loss(earlier)
        if not isinstance(policy[-1], ProbabilisticTensorDictModule):
            trainer = type(self.trainers.get(earlier, self)).__name__
            raise ValueError(
                f"{type(self).__name__}'s factor of group '{group}' counts how the probabilities of group "
                f"'{earlier}' changed, but {trainer} trains values there. Set turn_scope=group."
            )
        return policy

    def loss_options(self, group: str) -> dict[str, Any]:
        """The turns of the group's agents."""
        return {
            **super().loss_options(group),
            "n_agents": self.n_agents(group),
            "n_updates": self.experiment_config.n_optimizer_steps(True) * self.n_minibatches,
            "seed": self.group_seed(group),
            "fixed_order": self.config.fixed_order,
            "earlier_groups": {
                name: self._earlier_policy(group, name) for name in self.earlier_groups(group)
            },
        }
