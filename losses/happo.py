"""HAPPO: clipped PPO for one agent after the other."""

from typing import ClassVar

from tensordict import TensorDictBase
from torch import Tensor

from marl_td.losses.advantage import entropy_of
from marl_td.losses.entries import masked_mean, require
from marl_td.losses.functional.policy_gradient import clipped_objective
from marl_td.losses.ppo import MAPPOLoss
from marl_td.losses.sequential import SequentialLoss, of_agent
from marl_td.losses.stochastic_actor import log_prob_of


class HAPPOLoss(SequentialLoss, MAPPOLoss):
    """Heterogeneous-agent PPO (Kuba et al. 2022, https://arxiv.org/abs/2109.11251, section 4.2).

    ::

        L_i = -mean of  M min(rho_i A, clip(rho_i, 1 - eps, 1 + eps) A)  - c_e entropy_i

    for the agent i whose turn it is; M stands for those before it. Of the first agent M is 1, and L is its
    share of MAPPO's objective; with one agent it is PPO.

    Args are those of :class:`~marl_td.losses.sequential.SequentialLoss` and
    :class:`~marl_td.losses.ppo.MAPPOLoss`. Give an optimiser of the policies :meth:`agent_parameters`.

    Writes what MAPPO writes, of the agent whose turn it is, and ``factor_deviation``: how far M is from 1, in
    the mean.
    """

    out_keys: ClassVar[list[str]] = [*MAPPOLoss.out_keys, "factor_deviation"]

    def policy(
        self, tensordict: TensorDictBase, advantage: Tensor, mask: Tensor | None
    ) -> dict[str, Tensor]:
        """Minus the mean clipped gain of the next agent, minus its entropy bonus."""
        distribution = self.distribution(tensordict)
        log_prob = log_prob_of(distribution, require(tensordict, self.tensor_keys.action))
        old_log_prob = require(tensordict, self.tensor_keys.sample_log_prob)
        agent, earlier, _ = self.turns.next()
        factor = self.factor(tensordict, log_prob, old_log_prob, earlier, mask).unsqueeze(-1)
        entropy = of_agent(entropy_of(distribution), agent)
        own, old, gained = (of_agent(x, agent) for x in (log_prob, old_log_prob, advantage))
        counts = None if mask is None else of_agent(mask, agent)
        gain = factor * clipped_objective(own, old, gained, clip_epsilon=self.clip_epsilon)
        return {
            **self._summary(gain, own, old, entropy, counts),
            "factor_deviation": masked_mean((factor - 1.0).abs(), counts),
        }
