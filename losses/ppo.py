"""Clipped multi-agent PPO: the losses of MAPPO and IPPO."""

from typing import Any, ClassVar

from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModuleBase
from torch import Tensor

from marl_td.losses.advantage import AdvantageLoss, entropy_of
from marl_td.losses.entries import masked_mean, require
from marl_td.losses.functional.checks import check_between, check_not_negative
from marl_td.losses.functional.policy_gradient import clipped_objective
from marl_td.losses.stochastic_actor import log_prob_of


class MAPPOLoss(AdvantageLoss):
    """Clipped PPO for a group of agents (Yu et al. 2022, https://arxiv.org/abs/2103.01955).

    Args:
        actor: reads observations; its distribution scores ``action`` ``[*B, n_agents, ...]``.
        critic: writes the ``value`` key ``[*B, n_agents, 1]``, in normalised units with a ``value_norm``.
        clip_epsilon: range of the probability ratio, in (0, 1).
        entropy_coeff: weight of the entropy bonus, >= 0.
        options: of :class:`~marl_td.losses.advantage.AdvantageLoss`, which also says what is read.

    Writes ``loss_objective``, ``loss_critic`` and metrics ``entropy``, ``kl_approx``, ``clip_fraction``,
    ``explained_variance``.

    Raises:
        ValueError: if ``clip_epsilon`` or ``entropy_coeff`` is out of range.
    """

    out_keys: ClassVar[list[str]] = [
        "loss_objective",
        "loss_critic",
        "entropy",
        "kl_approx",
        "clip_fraction",
        "explained_variance",
    ]

    def __init__(
        self,
        actor: ProbabilisticTensorDictSequential,
        critic: TensorDictModuleBase,
        *,
        clip_epsilon: float = 0.2,
        entropy_coeff: float = 0.01,
        **options: Any,
    ) -> None:
        super().__init__(actor, critic, **options)
        check_between("clip_epsilon", clip_epsilon, 0.0, 1.0)
        check_not_negative(entropy_coeff=entropy_coeff)
        self.clip_epsilon = clip_epsilon
        self.entropy_coeff = entropy_coeff

    def policy(
        self, tensordict: TensorDictBase, advantage: Tensor, mask: Tensor | None
    ) -> dict[str, Tensor]:
        """Minus the mean clipped gain of all agents, minus the entropy bonus."""
        distribution = self.distribution(tensordict)
        log_prob = log_prob_of(distribution, require(tensordict, self.tensor_keys.action))
        old_log_prob = require(tensordict, self.tensor_keys.sample_log_prob)
        gain = clipped_objective(log_prob, old_log_prob, advantage, clip_epsilon=self.clip_epsilon)
        return self._summary(gain, log_prob, old_log_prob, entropy_of(distribution), mask)

    def _summary(
        self,
        gain: Tensor,
        log_prob: Tensor,
        old_log_prob: Tensor,
        entropy: Tensor,
        mask: Tensor | None,
    ) -> dict[str, Tensor]:
        """The loss of unreduced gains, and how far the policy has moved; all ``[*B, n_agents]``."""
        mean_entropy = masked_mean(entropy, mask)
        log_ratio = (log_prob - old_log_prob).detach()
        outside = ((log_ratio.exp() - 1.0).abs() > self.clip_epsilon).to(log_ratio.dtype)
        return {
            "loss_objective": -masked_mean(gain, mask) - self.entropy_coeff * mean_entropy,
            "entropy": mean_entropy,
            "kl_approx": masked_mean(log_ratio.exp() - 1.0 - log_ratio, mask),
            "clip_fraction": masked_mean(outside, mask),
        }


class IPPOLoss(MAPPOLoss):
    """Independent PPO (de Witt et al. 2020, https://arxiv.org/abs/2011.09533).

    Arguments and entries are those of :class:`MAPPOLoss`; its critic must see each agent's own observation
    only. Every agent then learns from its own reward and its own values, and the others are a part of its
    environment.
    """
