"""What every agent of one group believes of the policies of a group's agents."""

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from marl_td.losses.arguments import check_modules
from marl_td.losses.entries import flag, run
from marl_td.losses.functional.action_values import mask_unavailable
from marl_td.losses.functional.checks import check_count
from marl_td.losses.functional.deterministic import gumbel_noise, straight_through
from marl_td.losses.functional.distributions import (
    categorical_divergence,
    categorical_entropy,
    categorical_log_prob,
    gaussian_divergence,
    gaussian_entropy,
    gaussian_log_prob,
)
from marl_td.losses.group_actor import GroupActor

LOG_STD = (-5.0, 2.0)
"""Range of the logarithm of a belief's standard deviation, in units of the action as critics take it."""

REFERENCE_STD = 0.1
"""Deviation that deterministic policies are compared with, as a share of half the action's range."""


class InferredPolicies(nn.Module):
    """Policies mu_hat_i^j of every agent i (believer) about every agent j of one group.

    A belief is a distribution given what j observes: over discrete actions, or a normal distribution around a
    mean inside the bounds. Of itself an agent needs none; that entry is left unused.

    Args:
        network: reads ``(group, "observation")`` of the group that is believed about, writes
            ``"belief"`` ``[*B, n_believers * n_agents, d]``, all of the first believer's first; d is the
            number of actions, or twice the width of continuous ones.
        actor: an actor of that group: how its actions look.
        n_believers: agents that believe, >= 1.

    Raises:
        ValueError: if ``n_believers`` is below 1.
    """

    def __init__(self, network: TensorDictModuleBase, actor: GroupActor, n_believers: int) -> None:
        super().__init__()
        check_modules(network=network)
        check_count(n_believers=n_believers)
        self.network = network
        self.group = actor.group
        self.discrete = actor.discrete
        self.temperature = actor.temperature
        self.bound = actor.action_scale if actor.is_bounded else None
        self.n_believers = n_believers

    def forward(self, tensordict: TensorDictBase) -> Tensor:
        """What describes the distributions, ``[*B, n_believers, n_agents, d]``."""
        out = run(self.network, tensordict, "belief")
        return out.unflatten(-2, (self.n_believers, -1))

    def action(self, tensordict: TensorDictBase) -> Tensor:
        """Believed actions ``[*B, n_believers, n_agents, d_action]``: a sample if discrete, else the mean."""
        belief = self(tensordict)
        if not self.discrete:
            return self._normal(belief)[0]
        mask = self._action_mask(tensordict, belief)
        noise = gumbel_noise(belief)
        return straight_through(belief, mask, noise, temperature=self.temperature)

    def fit(self, tensordict: TensorDictBase, taken: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of the actions ``[*B, n_agents, d_action]`` and entropy, in nats.

        Returns:
            both ``[*B, n_believers, n_agents]``.
        """
        belief = self(tensordict)
        taken = self._to_believers(taken)
        if not self.discrete:
            mean, std = self._normal(belief)
            return gaussian_log_prob(taken, mean, std), gaussian_entropy(std)
        mask = self._action_mask(tensordict, belief)
        return categorical_log_prob(belief, taken, mask), categorical_entropy(belief, mask)

    @torch.no_grad()
    def divergence(self, tensordict: TensorDictBase, actor: GroupActor) -> Tensor:
        """KL(mu_j || mu_hat_i^j) from the true policy, ``[*B, n_believers, n_agents]`` in nats.

        A deterministic policy has no distribution: it and the belief's mean count as normal distributions
        with a deviation of ``REFERENCE_STD`` of half the action's range. So it is half the squared distance
        of the means in units of that, however sure of itself the belief is.
        """
        belief = self(tensordict)
        true = self._to_believers(actor.policy(tensordict))
        if self.discrete:
            mask = self._action_mask(tensordict, belief)
            known, found = (mask_unavailable(x, mask).log_softmax(-1) for x in (true, belief))
            return categorical_divergence(known, found)
        mean, _ = self._normal(belief)
        std = torch.full_like(mean, REFERENCE_STD * (1.0 if self.bound is None else self.bound))
        return gaussian_divergence(true, std, mean, std)

    def _normal(self, belief: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation."""
        mean, spread = belief.chunk(2, dim=-1)
        if self.bound is not None:
            mean = self.bound * torch.tanh(mean)
        low, high = LOG_STD
        return mean, (low + 0.5 * (high - low) * (1.0 + torch.tanh(spread))).exp()

    def _to_believers(self, entry: Tensor) -> Tensor:
        """``[*B, n_agents, d]`` to ``[*B, n_believers, n_agents, d]``."""
        *batch, n_agents, width = entry.shape
        return entry.unsqueeze(-3).expand(*batch, self.n_believers, n_agents, width)

    def _action_mask(self, tensordict: TensorDictBase, belief: Tensor) -> Tensor | None:
        mask = flag(tensordict, (self.group, "action_mask"))
        return None if mask is None else self._to_believers(mask)
