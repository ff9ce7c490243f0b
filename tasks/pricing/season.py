"""Selling a perishable stock: demand, and what one owner of all of it can earn.

Customers come as a Poisson process, ``k`` per step. One chooses a store by price among those with stock
(logit with scale sigma) and buys there if the price is not above what it is willing to pay, which is
exponential with mean r:

    demand of store i is Poisson with mean  k * exp(-p_i / sigma) / sum_j exp(-p_j / sigma) * exp(-p_i / r)

For one store that is the problem of Gallego & van Ryzin 1994, "Optimal Dynamic Pricing of Inventories with
Stochastic Demand over Finite Horizons", Management Science 40, whose optimum in continuous time
is a closed form: with n units left and m customers still to come in the mean

    J(n, m) = r * log(sum_{i <= n} (m / e)^i / i!),      price  r + J(n, m) - J(n - 1, m).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from marl_td.tasks.pricing.params import PricingParams

TAIL = 1e-7
"""Probability of a step with more customers than are drawn."""
FINE = 1000
"""Prices among which the dynamic programme chooses where actions are continuous."""


def customers_per_step(params: PricingParams) -> float:
    """Mean number of customers of a step, k."""
    return params.customers / params.max_steps


def most_customers(params: PricingParams) -> int:
    """Number of customers of a step that is exceeded with probability ``TAIL`` at most."""
    from scipy.stats import poisson

    return max(1, int(poisson.isf(TAIL, customers_per_step(params))))


def demand_rates(params: PricingParams, price: Tensor, has_stock: Tensor) -> Tensor:
    """Mean demand of every store in a step, ``[*B, n_stores]``.

    Args:
        params: the task's parameters.
        price: ``[*B, n_stores]`` in $.
        has_stock: stores that have something to sell, bool, likewise.
    """
    worth = torch.where(has_stock, -price / params.substitution, -1e9)
    chosen = worth.softmax(-1) * has_stock  # without stock anywhere nobody comes
    return customers_per_step(params) * chosen * (-price / params.reservation).exp()


def poisson(uniform: Tensor, mean: Tensor, most: int) -> Tensor:
    """Poisson numbers ``[*B]`` of the given ``mean`` from ``uniform`` numbers, cut off at ``most``."""
    return (uniform.unsqueeze(-1) > poisson_pmf(mean, most).cumsum(-1)[..., :-1]).sum(-1)


def poisson_pmf(mean: Tensor, most: int) -> Tensor:
    """Probabilities of ``0 .. most``, ``[*B, most + 1]``; what is beyond is not added anywhere."""
    number = torch.arange(most + 1, device=mean.device, dtype=mean.dtype)
    mean = mean.unsqueeze(-1)
    return (torch.xlogy(number, mean) - mean - (number + 1.0).lgamma()).exp()


def best_revenue(units: int, mean: Tensor, reservation: float) -> Tensor:
    """J(n, m) for n = ``0 .. units``, ``[*B, units + 1]`` float64, for ``mean`` customers m ``[*B]``.

    Revenue of one owner who may change the price at any moment. No prices of several stores earn more
    together: what they take from a customer is what this owner would at one of their prices, and the
    stock that it takes is in one place.
    """
    number = torch.arange(units + 1, dtype=torch.float64, device=mean.device)
    mean = mean.double().unsqueeze(-1)
    terms = torch.xlogy(number, mean) - number - (number + 1.0).lgamma()
    return reservation * terms.logcumsumexp(-1)


def top_price(params: PricingParams) -> float:
    """What the first customer of a season is charged for the only unit there is, in $."""
    mean = torch.tensor(params.customers)
    nothing, one = best_revenue(1, mean, params.reservation).tolist()
    return params.reservation + one - nothing


def dynamic_programme(params: PricingParams, prices: Tensor) -> tuple[Tensor, Tensor]:
    """Exact optimum of one store that chooses among ``prices`` ``[n_prices]`` in every step.

    Returns:
        The expected revenue of what is left of the season ``[max_steps + 1, stock + 1]`` and the index of
        the best price ``[max_steps, stock + 1]``, by steps passed and units left.
    """
    key = (params.max_steps, params.stock, params.customers, params.reservation)
    return _solve(*key, tuple(prices.double().tolist()))


@functools.lru_cache(maxsize=16)
def _solve(
    n_steps: int, stock: int, customers: float, reservation: float, prices: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    price = torch.tensor(prices, dtype=torch.float64)
    rate = customers / n_steps * (-price / reservation).exp()
    sold = torch.arange(stock + 1)
    exactly = poisson_pmf(rate, stock)  # [n_prices, stock + 1]
    at_least = 1.0 - exactly.cumsum(-1) + exactly
    left = sold.unsqueeze(-1) - sold  # [stock + 1 before, stock + 1 sold]
    index = sold.expand(stock + 1, -1)
    chance = torch.where(
        left > 0, exactly[:, index], torch.where(left == 0, at_least[:, index], 0.0)
    )
    revenue = price.unsqueeze(-1) * (chance * sold).sum(-1)  # [n_prices, stock + 1]
    value = torch.zeros((n_steps + 1, stock + 1), dtype=torch.float64)
    best = torch.zeros((n_steps, stock + 1), dtype=torch.long)
    after = left.clamp(min=0)
    for step in reversed(range(n_steps)):
        total = revenue + (chance * value[step + 1][after]).sum(-1)
        value[step], best[step] = total.max(0)
    return value, best
