"""The best that makers can earn: the discrete dynamic programme, the continuous-time solution, a bound.

* One maker: :func:`solve` is exact for this very task. Its value depends on ``dt``: quotes stand still for
  a step and sell at most ``size`` units in it.
* In continuous time the value has a closed form by a matrix exponential, :func:`continuous` (Gueant, Lehalle
  & Fernandez-Tapia 2013, https://doi.org/10.1007/s11579-012-0087-0; with the running penalty: Cartea,
  Jaimungal & Penalva 2015, "Algorithmic and High-Frequency Trading", section 10.2).
* Several makers: :func:`joint_bound`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from typing import NamedTuple

import torch
from torch import Tensor

from marl_td.tasks.base import Optimum
from marl_td.tasks.failures import dead_count
from marl_td.tasks.market_making.fills import Fills, fills
from marl_td.tasks.market_making.params import N_LEVELS, MarketMakingParams

COARSE, FINE, ZOOMS = 61, 9, 3
"""Depths per side of the first search, and of each of the ``ZOOMS`` closer ones around its best pair."""
SUBSTEPS, BOUND_DEPTHS = 4, 600
"""Runge-Kutta steps per step of the task, and depths tried in each, for the bound."""


class Plan(NamedTuple):
    """The optimal quotes of a lone maker, float64; inventories run from -Q to Q."""

    value: Tensor
    """Expected reward from a step on, ``[n_steps + 1, 2 Q + 1]``, in $."""
    depth: Tensor
    """Bid and ask, ``[n_steps, 2 Q + 1, 2]``, in $; inf for none."""
    size: Tensor
    """Units quoted, ``[n_steps, 2 Q + 1]``."""


def levels(params: MarketMakingParams) -> Tensor:
    """Depths that discrete actions quote, ``[N_LEVELS + 1]``, in $; the last is inf, no quote."""
    depth = torch.arange(1, N_LEVELS + 1, dtype=torch.float64) / N_LEVELS * params.max_depth
    return torch.cat([depth, torch.tensor([math.inf], dtype=torch.float64)])


def inventories(params: MarketMakingParams) -> Tensor:
    """-Q .. Q, float64."""
    most = params.max_inventory
    return torch.arange(-most, most + 1, dtype=torch.float64)


def solve(params: MarketMakingParams, continuous: bool) -> Plan:
    """The dynamic programme of a lone maker (cached); ``n_agents`` does not matter.

    With informed traders who know one step (``toxic_horizon=1``) it is exact: what they know is over when
    the step is, so that no order tells anything about a later one. With a longer horizon it is the programme
    of a maker who learns nothing from orders, and holds every unit for the horizon.
    """
    return _solve(_key(params, n_agents=1, dead_agents=0.0), continuous)


def _key(params: MarketMakingParams, **changes: object) -> str:
    ignored: dict[str, object] = {"reward": "own", "flow_memory": 1.0, "price_noise": False}
    if params.toxic_share == 0.0:
        ignored |= {"volatility": 0.0, "toxic_horizon": 1}
    return json.dumps({**dataclasses.asdict(params), **ignored, **changes})


@functools.lru_cache(maxsize=32)
def _bound(key: str) -> float:
    return joint_bound(MarketMakingParams(**json.loads(key)))


@functools.lru_cache(maxsize=32)
def _solve(key: str, continuous: bool) -> Plan:
    params = MarketMakingParams(**json.loads(key))
    q = inventories(params)
    search = _ContinuousSearch(params) if continuous else _GridSearch(params)
    closing = 0.0 if params.lifelong else params.closing_penalty
    value = -closing * q**2
    values, depths, sizes = [value], [], []
    for _ in range(params.max_steps):
        later = value - params.inventory_penalty * params.dt * q**2
        value, depth, size = search.best(later)
        values.append(value)
        depths.append(depth)
        sizes.append(size)
    return Plan(*(torch.stack(part[::-1]) for part in (values, depths, sizes)))


Sides = list[tuple[Fills, Fills]]
"""What is bought and sold, once, or if the mid price falls and if it rises, where some orders know it."""


def _sides(params: MarketMakingParams, bid: Tensor, ask: Tensor, size: int) -> Sides:
    """Fills of ``size`` units at depths ``[n_inventories, n_bids]`` and ``[n_inventories, n_asks]``."""
    q = inventories(params)
    bid_room = (params.max_inventory - q).unsqueeze(-1).expand_as(bid)
    ask_room = (params.max_inventory + q).unsqueeze(-1).expand_as(ask)
    share = params.toxic_share
    return [
        (fills(params, bid, bid_room, size, -lean), fills(params, ask, ask_room, size, lean))
        for lean in ((-share, share) if share > 0.0 else (0.0,))
    ]


def _gain(later: Tensor, sides: Sides) -> Tensor:
    """Expected reward-to-go of all pairs of depths, ``[n_inventories, n_bids, n_asks]``.

    Args:
        later: value of the inventory after the step, ``[n_inventories]``.
        sides: of :func:`_sides`; falling and rising are equally likely, and what the price's move adds to the
            inventory before the step is 0 in the mean.
    """
    gains = [
        _expected(later, buys.law, sells.law) + buys.worth.unsqueeze(-1) + sells.worth.unsqueeze(-2)
        for buys, sells in sides
    ]
    return torch.stack(gains).mean(0)


def _expected(later: Tensor, buys: Tensor, sells: Tensor) -> Tensor:
    """Mean of ``later`` over both sides' fills, ``[n_inventories, n_bids, n_asks]``."""
    here = torch.arange(later.shape[0])
    unit = torch.arange(buys.shape[-1])
    there = (here[:, None, None] + unit.unsqueeze(-1) - unit).clamp(0, later.shape[0] - 1)
    return buys @ later[there] @ sells.transpose(-1, -2)


class _GridSearch:
    """The best discrete action of every inventory; what actions sell is computed once."""

    def __init__(self, params: MarketMakingParams) -> None:
        self.depth = levels(params)
        each = self.depth.expand(2 * params.max_inventory + 1, -1)
        self.sides = [_sides(params, each, each, size) for size in range(1, params.size + 1)]

    def best(self, later: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gains = [_gain(later, sides) for sides in self.sides]
        n = self.depth.shape[0]
        value, index = torch.stack(gains, -1).flatten(1).max(-1)
        pair = index // len(gains)
        depth = torch.stack([self.depth[pair // n], self.depth[pair % n]], -1)
        return value, depth, (index % len(gains) + 1).double()


class _ContinuousSearch:
    """The best pair of depths in [0, ``max_depth``]: a grid, and closer ones around its best pair.

    The value is smooth in the depths, so that an error of 0.0001 / k in them is far below 1e-6 in the value.
    """

    def __init__(self, params: MarketMakingParams) -> None:
        self.params = params
        self.depth = torch.linspace(0.0, params.max_depth, COARSE, dtype=torch.float64)
        each = self.depth.expand(2 * params.max_inventory + 1, -1)
        self.sides = _sides(params, each, each, params.size)

    def best(self, later: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        p = self.params
        gain = _gain(later, self.sides)
        n = later.shape[0]
        value, index = gain.flatten(1).max(-1)
        bid, ask = self.depth[index // COARSE], self.depth[index % COARSE]
        width = p.max_depth / (COARSE - 1)
        offsets = torch.linspace(-1.0, 1.0, FINE, dtype=torch.float64)
        for _ in range(ZOOMS):
            bids = (bid.unsqueeze(-1) + width * offsets).clamp(0.0, p.max_depth)
            asks = (ask.unsqueeze(-1) + width * offsets).clamp(0.0, p.max_depth)
            value, index = _gain(later, _sides(p, bids, asks, p.size)).flatten(1).max(-1)
            rows = torch.arange(n)
            bid, ask = bids[rows, index // FINE], asks[rows, index % FINE]
            width = width * 2.0 / (FINE - 1)
        size = torch.full_like(value, float(p.size))
        return value, torch.stack([bid, ask], -1), size


def continuous(params: MarketMakingParams, time: Tensor) -> Tensor:
    """Value in continuous time of a lone maker with ``time`` days left, ``[*B, 2 Q + 1]``, in $.

    With w = exp(k v) the Bellman equation is linear: dw/dt = -M w, where M has -k phi q^2 on the diagonal
    and A / e beside it (Gueant et al. 2013). Depths are not bounded, and every order sees fresh quotes.
    """
    q = inventories(params)
    k, closing = params.decay, 0.0 if params.lifelong else params.closing_penalty
    matrix = _jumps(params, q.shape[0]) - torch.diag(k * params.inventory_penalty * q**2)
    flow = torch.matrix_exp(matrix * time.double()[..., None, None])
    return (flow @ (-k * closing * q**2).exp()).log() / k


def continuous_depths(params: MarketMakingParams) -> Tensor:
    """Optimal bid and ask in continuous time, ``[n_steps, 2 Q + 1, 2]``: 1 / k + the unit's worth, clipped.

    Step i has ``n_steps - i`` steps left. inf where there is no room.
    """
    left = torch.arange(params.max_steps, 0, -1, dtype=torch.float64) * params.dt
    value = continuous(params, left)
    none = torch.full_like(value[:, :1], math.inf)
    change = value.diff(dim=-1)  # v(q + 1) - v(q)
    inside = torch.stack([-change, change], 0) + 1.0 / params.decay
    inside = inside.clamp(0.0, params.max_depth)
    return torch.stack([torch.cat([inside[0], none], -1), torch.cat([none, inside[1]], -1)], -1)


def _jumps(params: MarketMakingParams, n: int) -> Tensor:
    beside = torch.full((n - 1,), params.order_rate / math.e, dtype=torch.float64)
    return torch.diag(beside, 1) + torch.diag(beside, -1)


def joint_bound(params: MarketMakingParams) -> float:
    """No makers together can expect more than this in an episode, in $; all start with no inventory.

    Let one maker stand for all living ones: with their room for inventory together, and the least penalty
    that a sum of inventories can cost them, phi / n and alpha / n times its square. Let it set new quotes
    after every order, at any depth: that includes whatever ladder of quotes the makers can post for a step.
    What is left is a control problem in continuous time, solved backwards with Runge-Kutta steps.

    Adverse selection costs eta x Cov(fills, orders) per side and step, for a Poisson number of orders
    eta x L x (probability that one more order, after all others, would be filled), L = A dt (Stein-Chen). A
    quote hit with probability p at a share s of the step is still there at its end but for another
    fill, which has probability at most L (1 - s) p. So p costs at least eta p (1 - L (1 - s) p).
    """
    n = params.n_agents - dead_count(params.dead_agents, params.n_agents)
    most, h = params.max_inventory * n, 1.0 / SUBSTEPS
    squared = torch.arange(-most, most + 1, dtype=torch.float64) ** 2 / n
    depth = torch.linspace(0.0, 4.0 * params.max_depth, BOUND_DEPTHS, dtype=torch.float64)
    p = torch.exp(-params.decay * depth)
    mean = params.orders_per_step
    net = p * (depth - params.adverse)
    ripple = params.adverse * mean * p.square()

    def rate(value: Tensor, ahead: float) -> Tensor:
        """Growth of the value per step, ``ahead`` of whose end is left."""
        worth = value.diff()
        gain = net + ripple * ahead
        up = (gain + p * worth.unsqueeze(-1)).amax(-1)  # a bid is hit: q -> q + 1
        down = (gain - p * worth.unsqueeze(-1)).amax(-1)
        return mean * (torch.nn.functional.pad(up, (0, 1)) + torch.nn.functional.pad(down, (1, 0)))

    closing = 0.0 if params.lifelong else params.closing_penalty
    value = -closing * squared
    for _ in range(params.max_steps):
        value = value - params.inventory_penalty * params.dt * squared
        for i in range(SUBSTEPS):
            a = rate(value, i * h)
            b = rate(value + h / 2 * a, (i + 0.5) * h)
            c = rate(value + h / 2 * b, (i + 0.5) * h)
            d = rate(value + h * c, (i + 1) * h)
            value = value + h / 6 * (a + 2 * b + 2 * c + d)
    return float(value[most])


def optimum(params: MarketMakingParams, continuous_actions: bool) -> Optimum | None:
    """Best expected reward per maker and episode, in $.

    None where informed traders know several steps, or trade with several makers: orders then tell where the
    price will go, and neither the programme nor the bound knows how much that is worth.
    """
    if params.toxic_share > 0.0 and (params.n_agents > 1 or params.toxic_horizon > 1):
        return None
    if params.n_agents > 1:
        how = "all makers as one, new quotes after every order: Bellman equation in continuous time"
        return Optimum(_bound(_key(params)) / params.n_agents, "upper", how)
    value = float(solve(params, continuous_actions).value[0, params.max_inventory])
    how = f"dynamic programme over {params.max_steps} steps and {2 * params.max_inventory + 1} inventories"
    if params.lifelong:
        return Optimum(value, "upper", f"{how}; it knows when the episode is cut")
    return Optimum(value, "exact", how)
