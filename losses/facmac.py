"""Deterministic actors of a team that follow one mixed value: FACMAC."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from marl_td.losses.arguments import check_modules
from marl_td.losses.deterministic_policy import DeterministicPolicyLoss
from marl_td.losses.entries import living, require, run
from marl_td.losses.group_actor import GroupActor


class MixedCritic(nn.Module):
    """A critic of every agent's own action, and what mixes their values into the team's.

    Args:
        agents: reads what each agent sees and ``joint_action`` ``[*B, n_agents, d_action]`` (its own action
            only), writes the ``action_value`` key ``[*B, n_agents, 1]``.
        mixer: reads that and the state, writes the ``global_value`` key ``[*B, 1]``; see
            :mod:`marl_td.models.mixers`.
    """

    def __init__(self, agents: TensorDictModuleBase, mixer: TensorDictModuleBase) -> None:
        super().__init__()
        self.agents = agents
        self.mixer = mixer


class FACMACLoss(DeterministicPolicyLoss):
    """DDPG on a team value that is mixed from the agents' values (Peng et al. 2021).

        Q_tot(s, u) = mix(Q_1(o_1, u_1), .., Q_N(o_N, u_N); s)
        y           = r + gamma (1 - terminated) Q_tot^-(s', mu_1^-(o_1'), .., mu_N^-(o_N'))
        loss_value  = mean of (Q_tot(s, u) - y)^2
        loss_actor  = -mean of Q_tot(s, mu_1(o_1), .., mu_N(o_N)) + c mean(parameter^2)

    (https://arxiv.org/abs/2003.06709.) In the actors' loss *all* actions are new ones: the central policy
    gradient. Any mixer will do, a monotone one or another, since no maximum is taken. A sum is DDPG on VDN's
    value; with one agent it is DDPG.

    A dead agent's value is 0 before it is mixed, now and next: it neither learns nor adds to the team's.

    Args:
        actor: actor of the team.
        critic: every agent's critic of its own action, see :class:`MixedCritic`.
        mixer: mixes their values, see :class:`MixedCritic`.
        options: as for :class:`marl_td.losses.deterministic_policy.DeterministicPolicyLoss`, without
            ``central`` and ``mask_dead_values``.

    Reads (defaults): ``("next", "reward" | "terminated")`` ``[*B, 1]`` of the team, and else what
    :class:`marl_td.losses.deterministic_policy.DeterministicPolicyLoss` lists. Writes what that does; the
    team's error stands at every agent's priority.

    Raises:
        ValueError: for an unknown option or a number out of range.
    """

    @dataclass
    class _AcceptedKeys(DeterministicPolicyLoss._AcceptedKeys):
        reward: NestedKey = "reward"
        terminated: NestedKey = "terminated"
        global_value: NestedKey = "global_value"

    def __init__(
        self,
        actor: GroupActor,
        critic: TensorDictModuleBase,
        mixer: TensorDictModuleBase,
        *,
        target_actors: Mapping[str, GroupActor] | None = None,
        **options: Any,
    ) -> None:
        check_modules(critic=critic, mixer=mixer)
        mixed = MixedCritic(critic, mixer)
        super().__init__(actor, mixed, central=False, target_actors=target_actors, **options)

    def _value(self, tensordict: TensorDictBase, taken: list[Tensor]) -> dict[str, Tensor]:
        out = super()._value(tensordict, taken)
        n_agents = taken[self._position].shape[-2]
        error = out["priority"]
        return {**out, "priority": error.expand(*error.shape[:-1], n_agents)}

    def _action_value(
        self, critic: MixedCritic, tensordict: TensorDictBase, rows: Tensor
    ) -> Tensor:
        """Q_tot, ``[*B, 1]``."""
        keys = self.tensor_keys
        value = super()._action_value(critic.agents, tensordict, rows)
        alive = living(tensordict, keys.mask)
        if alive is not None:
            value = torch.where(alive, value, torch.zeros_like(value))
        inputs = tensordict.copy().set(keys.action_value, value.unsqueeze(-1))
        return run(critic.mixer, inputs, keys.global_value)

    def _signal(self, tensordict: TensorDictBase, key: NestedKey) -> Tensor:
        return require(tensordict, key)

    def _of_values(self, mask: Tensor | None) -> Tensor | None:
        """Steps ``[*B, 1]`` in which somebody lives."""
        return None if mask is None else mask.any(-1, keepdim=True)
