"""Q-learning on a mixed team value with agents that act by learned roles: ROMA."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from marl_td.losses.arguments import check_modules
from marl_td.losses.entries import check_written, living, masked_mean, next_key, require, run
from marl_td.losses.functional.checks import check_count, check_finite, check_not_negative
from marl_td.losses.functional.distributions import gaussian_divergence, gaussian_entropy
from marl_td.losses.functional.roles import (
    mean_over_alive,
    pairwise_log_likelihood,
    scale_pairs,
    specialisation_error,
)
from marl_td.losses.network_values import ActionValues
from marl_td.losses.q_learning import metrics_of
from marl_td.losses.q_mixing import QMixingLoss


class RomaLoss(QMixingLoss):
    """QMIX's loss, with two terms that make the agents' roles identifiable and specialised.

        loss_value = mean of (Q_tot - y)^2 + c_I L_I + c_D L_D + c_H H
        L_I        = mean over agents of KL(p(rho_i | o_i) || q(rho_i | tau_i, o_i))
        L_D        = (||D||_F - sum over i != j of min(log q(rho_i | tau_j, o_j) + d_ij, U)) / pairs
        H          = mean over agents of the entropy of p(rho_i | o_i)

    (Wang et al. 2020, https://arxiv.org/abs/2003.08039; means over the steps that count and the agents that
    live.) The two terms train the roles' encoder, the posterior q and the dissimilarity d; the agents'
    trajectories are constants in them. It is one named loss, since the encoder learns from all of them.

    Roles are drawn with the noise ``role_noise`` of the batch and of ``"next"``, ``[*B, n_agents, d_role]``;
    where the batch has none it is drawn anew. The live and the target network see the same noise.

    Args:
        network: reads observations and ``role_noise``; writes ``action_value`` ``[*B, n_agents, n_actions]``,
            ``trajectory``, ``agent_input``, ``role``, ``role_mean`` and ``role_std``; see
            :mod:`marl_td.models.roles`.
        mixer: as for :class:`marl_td.losses.q_mixing.QMixingLoss`.
        posterior: reads ``trajectory`` and ``agent_input``, writes ``posterior_mean`` and ``posterior_std``.
        dissimilarity: reads ``trajectory``, writes ``dissimilarity`` ``[*B, n_agents, n_agents]``.
        d_role: width of a role.
        kl_coeff: c_I, >= 0.
        dis_coeff: c_D, >= 0.
        entropy_coeff: c_H, >= 0 (above 0 it makes roles more certain).
        bound: U, at which a pair's term ends.
        scaled: both parts of a pair's term are moved to [0, 1] by
            :func:`marl_td.losses.functional.roles.scale_pairs`; otherwise they are in nats.
        options: as for :class:`marl_td.losses.q_learning.QLearningLoss`.

    Reads what :class:`marl_td.losses.q_mixing.MixedQLoss` lists. Writes ``loss_value``, QMIX's metrics, and
    ``identifiability`` (L_I), ``specialisation`` (L_D), ``role_entropy`` (H, nats) and ``role_std``.

    Raises:
        ValueError: if a coefficient is negative or ``d_role`` is below 1.
    """

    @dataclass
    class _AcceptedKeys(QMixingLoss._AcceptedKeys):
        trajectory: NestedKey = ("agents", "trajectory")
        agent_input: NestedKey = ("agents", "agent_input")
        role: NestedKey = ("agents", "role")
        role_noise: NestedKey = ("agents", "role_noise")
        role_mean: NestedKey = ("agents", "role_mean")
        role_std: NestedKey = ("agents", "role_std")
        posterior_mean: NestedKey = ("agents", "posterior_mean")
        posterior_std: NestedKey = ("agents", "posterior_std")
        dissimilarity: NestedKey = "dissimilarity"

    out_keys: ClassVar[list[str]] = [
        *QMixingLoss.out_keys,
        "identifiability",
        "specialisation",
        "role_entropy",
        "role_std",
    ]

    def __init__(
        self,
        network: TensorDictModuleBase,
        mixer: TensorDictModuleBase,
        posterior: TensorDictModuleBase,
        dissimilarity: TensorDictModuleBase,
        *,
        d_role: int = 3,
        kl_coeff: float = 1e-4,
        dis_coeff: float = 1e-3,
        entropy_coeff: float = 0.0,
        bound: float = 1.0,
        scaled: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(network, mixer, **options)
        check_modules(posterior=posterior, dissimilarity=dissimilarity)
        check_not_negative(kl_coeff=kl_coeff, dis_coeff=dis_coeff, entropy_coeff=entropy_coeff)
        check_count(d_role=d_role)
        check_finite(bound=bound)
        self.posterior = posterior
        self.dissimilarity = dissimilarity
        self.d_role = d_role
        self.kl_coeff = kl_coeff
        self.dis_coeff = dis_coeff
        self.entropy_coeff = entropy_coeff
        self.bound = bound
        self.scaled = scaled

    def networks(self) -> dict[str, list[nn.Module]]:
        """The agents' network with its roles, the mixer, and what the two terms need besides."""
        return {"loss_value": [self.network, self.mixer, self.posterior, self.dissimilarity]}

    def compute(self, tensordict: TensorDictBase) -> dict[str, Tensor]:
        """Loss, metrics and priority from a batch ``[*B]``."""
        keys = self.tensor_keys
        tensordict = self._with_noise(tensordict)
        read = [keys.action_value, keys.trajectory, keys.agent_input]
        read += [keys.role, keys.role_mean, keys.role_std]
        now, following = self._live_entries(self.network, tensordict, read, following=self.double_q)
        target_now, evaluated = self._target(self.target_network, tensordict, keys.action_value)
        choosing = evaluated if following is None or not self.double_q else following.get(read[0])
        tensordict = self._learnt(tensordict)
        values = ActionValues(now.get(keys.action_value), choosing, evaluated, target_now)
        out = self._losses(tensordict, values)
        alive = living(tensordict, keys.mask)
        terms = self._role_terms(now, alive)
        total = (
            self.kl_coeff * terms["identifiability"]
            + self.dis_coeff * terms["specialisation"]
            + self.entropy_coeff * terms["role_entropy"]
        )
        valid = self._valid(tensordict, total)
        out["loss_value"] = out["loss_value"] + masked_mean(
            self._weighted(tensordict, total), valid
        )
        return {**out, **metrics_of(valid, **terms)}

    # ------------------------------------------------------------------ parts
    def _with_noise(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The batch with the noise of roles, now and next."""
        action = require(tensordict, self.tensor_keys.action)
        key, found = self.tensor_keys.role_noise, tensordict.copy()
        for entry in (key, next_key(key)):
            if tensordict.get(entry, None) is None:
                found.set(entry, torch.randn((*action.shape, self.d_role), device=action.device))
        return found

    def _role_terms(self, now: TensorDictBase, alive: Tensor | None) -> dict[str, Tensor]:
        """L_I, L_D, H and the mean standard deviation of each step, ``[*B]``."""
        keys = self.tensor_keys
        role, mean, std = now.get(keys.role), now.get(keys.role_mean), now.get(keys.role_std)
        known = now.select(keys.trajectory, keys.agent_input).detach()
        check_written(self.posterior, keys.posterior_mean, keys.posterior_std)
        posterior = self.posterior(known.copy())
        found_mean, found_std = (
            posterior.get(keys.posterior_mean),
            posterior.get(keys.posterior_std),
        )
        likely = pairwise_log_likelihood(role, found_mean, found_std)
        unlike = run(self.dissimilarity, known, keys.dissimilarity)
        if self.scaled:
            likely, unlike = scale_pairs(likely, alive), scale_pairs(unlike, alive)
        divergence = gaussian_divergence(mean, std, found_mean, found_std)
        return {
            "identifiability": mean_over_alive(divergence, alive),
            "specialisation": specialisation_error(likely, unlike, self.bound, alive),
            "role_entropy": mean_over_alive(gaussian_entropy(std), alive),
            "role_std": mean_over_alive(std.mean(-1), alive),
        }
