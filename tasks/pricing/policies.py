"""Pricing by rule: fixed prices, answers to the others' last prices, and revenue management.

Rules read what was posted (``("agents", "info", "price")``), in $, also where ``message_dropout`` keeps
it from the agents; they need no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.base import Policy
from marl_td.tasks.pricing.optimum import price_points, price_range
from marl_td.tasks.pricing.season import FINE, best_revenue, dynamic_programme

if TYPE_CHECKING:
    from marl_td.tasks.pricing.task import Pricing

GROUP = "agents"
STEP_DOWN = 0.05
"""By how much ``undercut`` goes below the cheapest other store: a share of the distance Nash to joint
price."""
KEPT = 1e-3
"""How far below the joint price counts as a cut, as a share of the distance Nash to joint price."""

Rule = Callable[[TensorDictBase], Tensor]
"""Reads a TensorDict; returns prices ``[n_envs, n_agents]`` in $."""


def baselines(task: Pricing) -> dict[str, Policy]:
    """All rules by name."""
    rules = season_rules(task) if task.params.inventory else market_rules(task)
    policies = {name: to_policy(task, rule) for name, rule in rules.items()}
    if task.params.inventory:
        return policies
    return {"best_response": best_response(task), **policies}


def best_response(task: Pricing) -> Policy:
    """Everybody earns most if the others repeat their prices."""

    def policy(td: TensorDictBase) -> TensorDictBase:
        return td.set((GROUP, "action"), task.best_response(last_prices(td)))

    return policy


def to_policy(task: Pricing, rule: Rule) -> Policy:
    """The policy that posts the prices of ``rule``, or the nearest of the grid."""

    def policy(td: TensorDictBase) -> TensorDictBase:
        return td.set((GROUP, "action"), task.action_for(rule(td)))

    return policy


def last_prices(td: TensorDictBase) -> Tensor:
    """Everybody's last price in $, ``[n_envs, n_agents]``."""
    price: Tensor = td.get((GROUP, "info", "price")).squeeze(-1)
    return price


def opening(task: Pricing, td: TensorDictBase) -> Tensor:
    """Whether this is the first step, ``[n_envs, 1]`` bool."""
    p = task.params
    column = (p.memory + 1) * p.n_agents
    first: Tensor = td.get((GROUP, "observation"))[..., :1, column] > 0.5
    return first


# --------------------------------------------------------------------- stores that compete for good
def market_rules(task: Pricing) -> dict[str, Rule]:
    """Rules of a market without stock, from the fiercest to the most friendly.

    ``undercut`` goes a little below the cheapest other store, down to its cost; ``best_response`` earns
    most if the others repeat their prices; ``static_nash`` is the one-shot equilibrium; ``grim_trigger``
    charges the joint price until somebody charged less, and the Nash price from then on; ``monopoly``
    charges the joint price whatever happens.
    """
    nash, joint = (row.to(task.device, torch.float32) for row in price_points(task.params))

    def undercut(td: TensorDictBase) -> Tensor:
        return below(task, last_prices(td), STEP_DOWN * (joint - nash)).maximum(task.market.cost)

    def grim_trigger(td: TensorDictBase) -> Tensor:
        """Its memory is the last prices: after a cut these are never all at the joint price again."""
        floor = on_offer(task, joint) - KEPT * (joint - nash)
        kept = (last_prices(td) >= floor).all(-1, keepdim=True)
        return torch.where(kept | opening(task, td), joint, nash)

    return {
        "undercut": undercut,
        "static_nash": lambda td: always(nash, td),
        "grim_trigger": grim_trigger,
        "monopoly": lambda td: always(joint, td),
    }


def always(price: Tensor, td: TensorDictBase) -> Tensor:
    """``price`` ``[n_agents]`` in every environment."""
    return price.expand(*td.batch_size, -1)


def on_offer(task: Pricing, price: Tensor) -> Tensor:
    """``price`` ``[*B, n_agents]``, or the nearest that can be charged."""
    return task.prices(task.action_for(price))


def below(task: Pricing, price: Tensor, step: Tensor) -> Tensor:
    """The cheapest other store's price less ``step``; on a grid at least one price lower."""
    cheapest = price[..., task.others].amin(-1)
    if task.continuous:
        return cheapest - step
    grid = (task.high - task.low) / (task.params.n_prices - 1)
    return cheapest - torch.maximum(step, grid)


# --------------------------------------------------------------------------- stock that perishes
def season_rules(task: Pricing) -> dict[str, Rule]:
    """Rules of revenue management.

    ``fixed_price`` (Gallego and van Ryzin 1994) sells all stock in the mean: the price at
    which the customers of the season are worth as many sales as there are units, and ``reservation`` if
    that is less. ``own_stock`` prices as if every store had an equal share of the customers to itself;
    ``pooled`` as if all stock were in one place, with the closed form for the units and the time left.
    ``optimal``, with one store only, is the dynamic programme. With several stores ``undercut`` goes
    below the cheapest other one.
    """
    p = task.params

    def fixed_price(td: TensorDictBase) -> Tensor:
        level = torch.tensor(p.customers / (p.n_agents * p.stock), device=task.device)
        return always(p.reservation * level.log().clamp(min=1.0).expand(p.n_agents), td)

    def customers_left(td: TensorDictBase) -> Tensor:
        return p.customers * td.get("state")[..., -1:]

    def own_stock(td: TensorDictBase) -> Tensor:
        return marginal_price(task, stock_left(td), customers_left(td) / p.n_agents, p.stock)

    def pooled(td: TensorDictBase) -> Tensor:
        units = stock_left(td).sum(-1, keepdim=True)
        price = marginal_price(task, units, customers_left(td), p.n_agents * p.stock)
        return price.expand(*td.batch_size, p.n_agents)

    rules: dict[str, Rule] = {"fixed_price": fixed_price, "own_stock": own_stock, "pooled": pooled}
    if p.n_agents == 1:
        return rules | {"optimal": optimal(task)}
    step = torch.tensor(STEP_DOWN * p.reservation, device=task.device)
    return {"undercut": lambda td: below(task, last_prices(td), step), **rules}


def stock_left(td: TensorDictBase) -> Tensor:
    """Units left in every store, ``[n_envs, n_agents]``."""
    stock: Tensor = td.get((GROUP, "info", "stock")).squeeze(-1)
    return stock


def marginal_price(task: Pricing, units: Tensor, customers: Tensor, most: int) -> Tensor:
    """``r + J(n, m) - J(n - 1, m)`` for ``units`` n and ``customers`` m to come, ``[n_envs, n]``."""
    r = task.params.reservation
    value = best_revenue(most, customers.expand(units.shape), r)  # [n_envs, n, most + 1]
    index = units.long().clamp(min=1).unsqueeze(-1)
    gain = value.gather(-1, index) - value.gather(-1, index - 1)
    return (r + gain.squeeze(-1)).float()


def optimal(task: Pricing) -> Rule:
    """The best price of the dynamic programme for the units and the steps left of a store alone."""
    p = task.params
    low, high = (float(end[0]) for end in price_range(p, task.continuous))
    n_prices = FINE + 1 if task.continuous else p.n_prices
    prices = torch.linspace(low, high, n_prices, dtype=torch.float64)
    _, best = dynamic_programme(p, prices)
    table = prices[best].to(task.device, torch.float32)

    def rule(td: TensorDictBase) -> Tensor:
        passed = (p.max_steps * (1.0 - td.get("state")[..., -1])).round().long()
        return table[passed.clamp(max=p.max_steps - 1).unsqueeze(-1), stock_left(td).long()]

    return rule
