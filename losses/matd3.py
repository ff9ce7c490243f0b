"""Multi-agent TD3: MADDPG with two critics, smoothed target actions and delayed actors."""

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from marl_td.losses.arguments import check_modules
from marl_td.losses.ddpg import MADDPGLoss
from marl_td.losses.functional.checks import check_count, check_not_negative
from marl_td.losses.group_actor import GroupActor
from marl_td.losses.targets import target_copy


class MATD3Loss(MADDPGLoss):
    """TD3 for a group of agents with central critics (Ackermann et al. 2019, https://arxiv.org/abs/1910.01465).

        u'_j       = clamp(mu_j^-(o_j') + clip(N(0, sigma), -c, c)) to the bounds, for all agents j
        y_i        = r_i + gamma (1 - terminated_i) min_k Q_ik^-(x', u'_1, .., u'_N),   k = 1, 2
        loss_value = mean_i (Q_i1(x, u) - y_i)^2 + mean_i (Q_i2(x, u) - y_i)^2
        loss_actor = -mean_i Q_i1(x, u_1, .., mu_i(o_i), .., u_N) + c mean(parameter^2)

    (TD3: Fujimoto et al. 2018, https://arxiv.org/abs/1802.09477.) Discrete target actions are samples of the
    target policies. One agent with ``sigma=0``, equal critics and ``policy_freq=1`` is MADDPG.

    Actors step, and targets move, at every ``policy_freq``-th optimiser step only: ``delays`` says so to
    whoever steps the optimisers, and :class:`marl_td.losses.targets.TargetUpdater` takes it as ``interval``.
    An optimiser that is *called* with a zero gradient would still move by its momentum.

    Args:
        actor: actor of this loss's group.
        critic: Q_1, as for :class:`marl_td.losses.deterministic_policy.DeterministicPolicyLoss`.
        second_critic: Q_2, of the same structure with parameters of its own.
        target_noise: sigma, >= 0, as a share of half the action's range.
        target_noise_clip: c, >= 0, likewise.
        policy_freq: optimiser steps of the critics per step of the actors, >= 1.
        options: as for :class:`marl_td.losses.ddpg.MADDPGLoss`.

    Reads and writes what :class:`marl_td.losses.ddpg.MADDPGLoss` does; ``pred_value`` and
    ``pred_value_max`` are Q_1's, errors and priorities the mean of both critics'.

    Raises:
        ValueError: for an unknown option or a number out of range.
    """

    def __init__(
        self,
        actor: GroupActor,
        critic: TensorDictModuleBase,
        second_critic: TensorDictModuleBase,
        *,
        target_noise: float = 0.2,
        target_noise_clip: float = 0.5,
        policy_freq: int = 2,
        target_actors: Mapping[str, GroupActor] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(actor, critic, target_actors=target_actors, **options)
        check_not_negative(target_noise=target_noise, target_noise_clip=target_noise_clip)
        check_modules(second_critic=second_critic)
        check_count(policy_freq=policy_freq)
        self.target_noise = target_noise
        self.target_noise_clip = target_noise_clip
        self.delays = {} if policy_freq == 1 else {"loss_actor": policy_freq}
        self.target_period = policy_freq
        self.second_critic = second_critic
        self.target_second_critic = target_copy(second_critic)

    def networks(self) -> dict[str, list[nn.Module]]:
        """The networks that each named loss teaches."""
        return {"loss_actor": [self.actor], "loss_value": [self.critic, self.second_critic]}

    def target_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Actor and critics with their targets."""
        return [*super().target_pairs(), (self.second_critic, self.target_second_critic)]

    def _value(self, tensordict: TensorDictBase, taken: list[Tensor]) -> dict[str, Tensor]:
        rows, target = self._rows(taken), self._target(tensordict)
        first, second = (
            self._regression(tensordict, self._action_value(critic, tensordict, rows), target)
            for critic in (self.critic, self.second_critic)
        )
        means = {key: (first[key] + second[key]) / 2 for key in ("td_error", "priority")}
        return {**first, "loss_value": first["loss_value"] + second["loss_value"], **means}

    def _next_value(self, following: TensorDictBase, rows: Tensor) -> Tensor:
        first = super()._next_value(following, rows)
        return torch.minimum(first, self._action_value(self.target_second_critic, following, rows))

    def _target_action(self, actor: GroupActor, joint: TensorDictBase) -> Tensor:
        return actor.smoothed(joint, sigma=self.target_noise, clip=self.target_noise_clip)
