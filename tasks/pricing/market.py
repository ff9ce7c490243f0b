"""Logit demand, and what stores charge that compete or have one owner.

Of a mass 1 of customers the share of store i is, at prices p,

    s_i = exp((a_i - p_i) / mu) / (sum_j exp((a_j - p_j) / mu) + exp(a_0 / mu))

and its profit ``(p_i - c_i) s_i`` (Calvano et al. 2020, "Artificial Intelligence, Algorithmic Pricing, and
Collusion", American Economic Review 110). With demand shocks a_0 is one of two values, and
profits are means over both. All prices are ``[*B, n_stores]`` in $.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from marl_td.tasks.pricing.params import PricingParams

HALVINGS = 50
"""Steps of the bisection for a best response; floats are exhausted earlier."""
MOST_ROUNDS = 20_000
TOLERANCE = 1e-13


@dataclass(frozen=True)
class Logit:
    """A market: ``quality`` a and ``cost`` c ``[n_stores]``, ``outside`` a_0 ``[n_shocks]``, and mu, in $."""

    quality: Tensor
    cost: Tensor
    outside: Tensor
    mu: float

    def shares(self, price: Tensor, outside: Tensor, open_: Tensor | None = None) -> Tensor:
        """Shares ``[*B, n_stores]`` of the customers.

        Args:
            price: ``[*B, n_stores]``.
            outside: a_0, ``[*B]``.
            open_: stores that sell at all, ``[*B, n_stores]`` bool; None for all.
        """
        worth = (self.quality - price) / self.mu
        if open_ is not None:
            worth = torch.where(open_, worth, -torch.inf)
        none = (outside / self.mu).unsqueeze(-1)
        return torch.cat([worth, none], -1).softmax(-1)[..., :-1]

    def shock_shares(self, price: Tensor) -> Tensor:
        """Shares at each value of a_0, ``[*B, n_shocks, n_stores]``."""
        shape = (*price.shape[:-1], self.outside.shape[0])
        each = price.unsqueeze(-2).expand(*shape, price.shape[-1])
        return self.shares(each, self.outside.expand(shape))

    def profit(self, price: Tensor) -> Tensor:
        """Expected profit of every store, ``[*B, n_stores]``, in $ per customer."""
        return (price - self.cost) * self.shock_shares(price).mean(-2)

    def best_response(self, price: Tensor) -> Tensor:
        """For every store the price with the most expected profit if the others charge ``price``.

        Bisection on the sign of the first-order condition ``E[s] = (p - c) / mu E[s (1 - s)]``, between the
        cost and ``c + mu / (1 - s(c))``, from where on it is negative.
        """
        worth = (self.quality - price) / self.mu
        n_stores = worth.shape[-1]
        itself = torch.eye(n_stores, dtype=torch.bool, device=price.device)
        others = torch.where(itself, -torch.inf, worth.unsqueeze(-2))
        others = others.logsumexp(-1)  # [*B, n_stores], -inf for a store alone
        rest = torch.logaddexp(
            others.unsqueeze(-1), self.outside / self.mu
        )  # [*B, n_stores, n_shocks]

        def odds(at: Tensor) -> Tensor:
            return ((self.quality - at) / self.mu).unsqueeze(-1) - rest  # log of s / (1 - s)

        low = self.cost.expand(price.shape)
        high = low + self.mu * (1.0 + odds(low).amax(-1).exp())
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            share = odds(middle).sigmoid()
            slope = share.mean(-1) - (middle - self.cost) / self.mu * (share * (1 - share)).mean(-1)
            low, high = torch.where(slope > 0, middle, low), torch.where(slope > 0, high, middle)
        return 0.5 * (low + high)

    def of(self, stores: tuple[int, ...]) -> Logit:
        """The market with these stores only."""
        index = torch.tensor(stores, device=self.cost.device)
        return Logit(self.quality[index], self.cost[index], self.outside, self.mu)

    def to(self, device: torch.device, dtype: torch.dtype) -> Logit:
        """The same on ``device`` with ``dtype``."""
        moved = [part.to(device, dtype) for part in (self.quality, self.cost, self.outside)]
        return Logit(moved[0], moved[1], moved[2], self.mu)


def logit_market(params: PricingParams) -> Logit:
    """The market of a task's parameters, float64."""
    shocks = [params.outside - params.shock, params.outside + params.shock]
    quality = torch.tensor(params.qualities, dtype=torch.float64)
    cost = torch.tensor(params.costs, dtype=torch.float64)
    outside = torch.tensor(shocks if params.shock else [params.outside], dtype=torch.float64)
    return Logit(quality, cost, outside, params.substitution)


def nash_prices(market: Logit) -> Tensor:
    """Prices at which no store gains by another price, ``[n_stores]`` float64.

    Everybody's best response, over and over, from prices at cost: best responses rise with the others'
    prices, so they climb to the equilibrium. There (without shocks) ``p_i - c_i = mu / (1 - s_i)``.

    Raises:
        RuntimeError: if they do not settle.
    """
    return _settled(market.best_response, market.cost, "Nash")


def joint_prices(market: Logit) -> Tensor:
    """Prices with the most profit of all stores together, ``[n_stores]`` float64.

    Iterates the first-order conditions ``p_k - c_k = mu + sum_i (p_i - c_i) E[s_i s_k] / E[s_k]``. There
    (without shocks) all have the same markup ``mu / s_0``.

    Raises:
        RuntimeError: if they do not settle.
    """

    def improved(price: Tensor) -> Tensor:
        share = market.shock_shares(price)
        earned = (share * (price - market.cost)).sum(-1, keepdim=True)  # [n_shocks, 1]
        return market.cost + market.mu + (earned * share).mean(0) / share.mean(0)

    return _settled(improved, nash_prices(market), "joint")


def _settled(improve: Callable[[Tensor], Tensor], price: Tensor, kind: str) -> Tensor:
    for _ in range(MOST_ROUNDS):
        new = improve(price)
        if float((new - price).abs().max()) < TOLERANCE * (1.0 + float(new.abs().max())):
            return new
        price = new
    raise RuntimeError(
        f"{kind} prices did not settle in {MOST_ROUNDS} rounds; last {price.tolist()}."
    )
