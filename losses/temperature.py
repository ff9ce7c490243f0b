"""The temperature of soft actor-critic: how much a nat of entropy is worth in units of reward."""

import math

import torch
from torch import Tensor, nn

from marl_td.losses.entries import masked_mean
from marl_td.losses.functional.checks import check_count, check_finite
from marl_td.losses.functional.soft import temperature_error


class Temperature(nn.Module):
    """alpha, fixed or learned so that the policies' entropy stays near a target.

    Args:
        target_entropy: of one agent's policy, nats.
        n_agents: a temperature for each of so many agents; None for one for all.
        init: alpha at the start, > 0.
        fixed: keep it there.
        low: smallest alpha, > 0; None or 0 for no limit.
        high: largest alpha; None for no limit.

    Raises:
        TypeError: if one is no number.
        ValueError: if one is out of its range.
    """

    log_alpha: Tensor

    def __init__(
        self,
        target_entropy: float,
        n_agents: int | None = None,
        *,
        init: float = 1.0,
        fixed: bool = False,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        super().__init__()
        check_finite(target_entropy=target_entropy, init=init)
        if n_agents is not None:
            check_count(n_agents=n_agents)
        smallest = 0.0 if low is None else low
        largest = math.inf if high is None else high
        if not init > 0.0 or not smallest <= init <= largest:
            raise ValueError(
                "alpha must be above 0 and start within its limits; got "
                f"{init:g} in [{smallest:g}, {largest:g}]."
            )
        self.target_entropy = target_entropy
        self.fixed = fixed
        self.low = None if low is None or low <= 0.0 else math.log(low)
        self.high = None if high is None else math.log(high)
        log_alpha = torch.full((n_agents or 1,), math.log(init))
        if fixed:
            self.register_buffer("log_alpha", log_alpha)
        else:
            self.log_alpha = nn.Parameter(log_alpha)

    @torch.no_grad()
    def forward(self) -> Tensor:
        """The temperature as a constant, ``[1]`` or ``[n_agents]``; what left the limits is put back."""
        if self.low is not None or self.high is not None:
            self.log_alpha.clamp_(self.low, self.high)
        return self.log_alpha.exp()

    def loss(self, log_prob: Tensor, mask: Tensor | None) -> Tensor:
        """Mean error over what counts of ``log_prob`` ``[*B, n_agents]``; no gradient if fixed."""
        error = temperature_error(self.log_alpha, log_prob, self.target_entropy)
        return masked_mean(error, mask)
