"""Stores set prices against each other, again and again.

Description:
    Logit Bertrand competition, after Calvano et al. 2020, "Artificial Intelligence, Algorithmic Pricing, and
    Collusion", American Economic Review 110. In every step each store posts a price, customers choose a store
    or none (see :mod:`~marl_td.tasks.pricing.market`), and everybody sees the prices. Two prices matter,
    and both are computed: the Nash price of the one-shot game, and the joint price with the most profit
    of all stores together. Undercutting pays at once; whether stores learn to keep prices up, and do it
    by punishing who cuts them, is the question. With ``cooperative`` one owner earns all profits.

    With ``inventory`` each store has a stock that perishes when the season ends, see
    :mod:`~marl_td.tasks.pricing.season`.

Action space: continuous, ``Box(1)``: 0 to 1 is the store's lowest to its highest price, beyond is the
    same as at the ends; or discrete, ``n_prices`` prices at equal distances, the lowest first. The range
    of store i is ``[c_i, p_joint + margin * gap]`` with continuous and ``[p_nash - margin * gap, p_joint
    + margin * gap]`` with discrete actions, ``gap = p_joint - p_nash``; with ``inventory`` it is ``[0,
    top]``, where top is the best price for the last unit when the season begins.

Observation space (per agent, float32), N = ``n_agents``, k = ``memory``; prices are scaled so that 0 is
    the store's Nash price and 1 its joint price (with ``inventory`` $ over ``reservation``, minus 1):

    =========  ==============  ==============================================================
    columns    width           content
    =========  ==============  ==============================================================
    own        k               own last prices, the oldest first
    others     k (N - 1)       the others' last prices, step by step; from the next store on, cyclic
    seen       N - 1           1 if the other is open and its prices arrived, else 0 (as its prices)
    profit     1               own last profit, scaled like the reward
    opening    1               1 in the first step: nobody has set the last prices, they were drawn
    stock      1               with ``inventory``: own units left over units at the start
    time       1               with ``inventory``: share of the season that is left
    number     N               one-hot, if ``store_id``
    =========  ==============  ==============================================================

Global state: everybody's last prices, profit, whether it is open, opening; with ``inventory`` all stocks
    and the time left. ``[N (k + 2) + 1]`` and N + 1 more.
Reward: own profit, over the mean joint profit (with ``inventory``: $ over ``reservation``); the mean
    over all stores with ``cooperative``. Closed stores (``dead_agents``) sell nothing.
Start: last prices uniform on each store's range.
End: never terminates, truncated after ``max_steps``; with ``inventory`` the season's end, after as many
    steps, terminates.
Info, sums over an episode: ``profit`` in $ and ``sold`` (share of the customers, or units) of all stores;
    ``price``, mean price of the open stores in $. Of every store: last ``price``, ``profit``, ``stock``.
Score: profit gain, (profit - Nash profit) / (joint profit - Nash profit) of all stores together: 0
    competitive, 1 joint optimum. With ``inventory``: revenue over that of one owner of all stock who may
    change the price at any moment.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from marl_td.tasks.base import Box, Discrete, Groups, GroupSpec, Noise, Optimum, Policy, Step, Task
from marl_td.tasks.failures import alive_agents, dead_count
from marl_td.tasks.pricing import optimum, season
from marl_td.tasks.pricing.market import logit_market
from marl_td.tasks.pricing.optimum import price_range, yardstick
from marl_td.tasks.pricing.params import PricingParams

GROUP = "agents"


class PricingState(NamedTuple):
    """What was posted and earned, ``[n_envs, ...]``."""

    price: Tensor
    """Prices of the last steps in $, the oldest first, ``[n_envs, memory, n_agents]``."""
    profit: Tensor
    """Profit of the last step in $, ``[n_envs, n_agents]``."""
    stock: Tensor
    """Units left, ``[n_envs, n_agents]``; stays as it is without ``inventory``."""
    open: Tensor
    """Stores that have not failed, ``[n_envs, n_agents]`` bool."""
    seen: Tensor
    """Whether the agent (first) sees the prices of each other one (second), ``[n_envs, n_agents,
    n_agents - 1]``."""
    time: Tensor
    """Steps passed, ``[n_envs]`` int64."""


class Pricing(Task[PricingParams, PricingState]):
    """See the module's docstring."""

    name = "pricing"
    Params = PricingParams
    terminates = False
    unit: ClassVar[str] = "profit gain"
    info_keys: ClassVar[tuple[str, ...]] = ("profit", "sold", "price")
    levels: ClassVar[dict[str, dict[str, Any]]] = {
        "easy": {"n_agents": 2},
        "medium": {},
        "hard": {"n_agents": 5, "shock": 0.25},
    }

    def __init__(
        self, params: PricingParams, continuous: bool = True, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(params, continuous, device)
        number = torch.arange(params.n_agents, device=self.device)
        self.others = (number.unsqueeze(-1) + number[1:]) % params.n_agents
        """The other stores from each one's point of view, ``[n_agents, n_agents - 1]``."""
        self.number = torch.eye(params.n_agents, device=self.device)
        self.market = logit_market(params).to(self.device, torch.float32)
        self.yardstick = yardstick(params)
        low, high = price_range(params, continuous)
        self.low, self.high = (row.to(self.device, torch.float32) for row in (low, high))
        zero, one = self.yardstick.scale
        self.zero, self.one = (row.to(self.device, torch.float32) for row in (zero, one))
        self.n_dead = dead_count(params.dead_agents, params.n_agents)
        self.most_customers = season.most_customers(params) if params.inventory else 0

    # ------------------------------------------------------------------ shape
    @property
    def groups(self) -> dict[str, GroupSpec]:
        p = self.params
        d_obs = p.memory * p.n_agents + p.n_agents + 1 + 2 * p.inventory + p.n_agents * p.store_id
        prices = Discrete(p.n_prices, tuple(f"price {i}" for i in range(p.n_prices)))
        action = Box((0.0,), (1.0,), ("price [its range]",)) if self.continuous else prices
        info = {"price": 1, "profit": 1, "stock": 1}
        return {GROUP: GroupSpec(p.n_agents, d_obs, action, mortal=self.n_dead > 0, info=info)}

    @property
    def d_state(self) -> int:
        p = self.params
        return p.n_agents * (p.memory + 2) + 1 + (p.n_agents + 1) * p.inventory

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers in [0, 1): ``price`` ``[n_envs, memory, n_agents]``, ``dead`` and ``lost``."""
        p = self.params
        return {
            "price": self._uniform(generator, n_envs, p.memory, p.n_agents),
            "dead": self._uniform(generator, n_envs, p.n_agents),
            "lost": self._uniform(generator, n_envs, p.n_agents, p.n_agents - 1),
        }

    def draw_step(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers in [0, 1): ``shock`` ``[n_envs]``, ``demand`` ``[n_envs, n_agents]``, ``lost``."""
        p = self.params
        return {
            "shock": self._uniform(generator, n_envs),
            "demand": self._uniform(generator, n_envs, p.n_agents),
            "lost": self._uniform(generator, n_envs, p.n_agents, p.n_agents - 1),
        }

    def _uniform(self, generator: torch.Generator, *shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=self.device)

    def reset(self, n_envs: int, noise: Noise) -> PricingState:
        p = self.params
        price = torch.lerp(self.low, self.high, noise["price"])
        nothing = torch.zeros_like(noise["dead"])
        return PricingState(
            price=price,
            profit=nothing,
            stock=nothing + p.stock,
            open=alive_agents(noise["dead"], self.n_dead),
            seen=noise["lost"] >= p.message_dropout,
            time=torch.zeros_like(nothing[:, 0], dtype=torch.long),
        )

    def prices(self, action: Tensor) -> Tensor:
        """Prices in $, ``[n_envs, n_agents]``, that actions stand for."""
        p = self.params
        share = action.squeeze(-1) if self.continuous else action / (p.n_prices - 1)
        return torch.lerp(self.low, self.high, share.clamp(0.0, 1.0))

    def action_for(self, price: Tensor) -> Tensor:
        """The action that stands for ``price`` ``[*B, n_agents]`` in $, or the nearest one."""
        share = ((price - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
        if self.continuous:
            return share.unsqueeze(-1)
        return (share * (self.params.n_prices - 1)).round().long()

    def best_response(self, price: Tensor) -> Tensor:
        """Everybody's action with the most expected profit if the others charge ``price`` ``[*B, n_agents]``.

        Of the range or the grid of prices; without ``inventory`` only.
        """
        if self.continuous:  # profit has one peak, so that the end nearest to it is best
            return self.action_for(self.market.best_response(price))
        p = self.params
        share = torch.linspace(0.0, 1.0, p.n_prices, device=self.device)
        choice = torch.lerp(self.low, self.high, share.unsqueeze(-1))  # [n_prices, n_agents]
        itself = torch.eye(p.n_agents, dtype=torch.bool, device=self.device)
        tried = torch.where(itself, choice.unsqueeze(1), price[..., None, None, :])
        profit = self.market.profit(tried).diagonal(dim1=-2, dim2=-1)  # [*B, n_prices, n_agents]
        return profit.argmax(-2)

    def step(self, state: PricingState, action: Groups, noise: Noise) -> Step[PricingState]:
        p = self.params
        price = self.prices(action[GROUP])
        if p.inventory:
            sold = self._sales(state, price, noise["demand"])
            profit, stock = price * sold, state.stock - sold
        else:
            sign = torch.where(noise["shock"] < 0.5, -p.shock, p.shock)
            sold = self.market.shares(price, p.outside + sign, state.open)
            profit, stock = (price - self.market.cost) * sold, state.stock
        n_open = state.open.sum(-1)
        info = {
            "profit": profit.sum(-1),
            "sold": sold.sum(-1),
            "price": torch.where(state.open, price, 0.0).sum(-1) / n_open,
        }
        earned = profit.mean(-1, keepdim=True).expand_as(profit) if p.cooperative else profit
        time = state.time + 1
        over = time >= p.max_steps if p.inventory else torch.zeros_like(time, dtype=torch.bool)
        history = torch.cat([state.price[:, 1:], price.unsqueeze(1)], 1)
        seen = noise["lost"] >= p.message_dropout
        new = PricingState(history, profit, stock, state.open, seen, time)
        return Step(new, {GROUP: earned / self.yardstick.money}, over, info)

    def _sales(self, state: PricingState, price: Tensor, uniform: Tensor) -> Tensor:
        """Units that every store sells, ``[n_envs, n_agents]`` float32."""
        has_stock = state.open & (state.stock > 0)
        mean = season.demand_rates(self.params, price, has_stock)
        demand = season.poisson(uniform, mean, self.most_customers)
        return torch.minimum(demand.float(), state.stock)

    # ---------------------------------------------------------------- sensing
    def observe(self, state: PricingState) -> Groups:
        p = self.params
        n_envs = state.time.shape[0]
        shown = (state.price - self.zero) / (self.one - self.zero)  # [n_envs, memory, n_agents]
        seen = state.seen & state.open[:, self.others]
        others = torch.where(seen.unsqueeze(1), shown[:, :, self.others], 0.0)
        each = torch.ones_like(state.profit).unsqueeze(-1)
        parts = [
            shown.transpose(1, 2),
            others.transpose(1, 2).flatten(2),
            seen.float(),
            (state.profit / self.yardstick.money).unsqueeze(-1),
            each * self._opening(state).unsqueeze(-1),
        ]
        if p.inventory:
            parts += [
                (state.stock / p.stock).unsqueeze(-1),
                each * self._time_left(state).unsqueeze(-1),
            ]
        if p.store_id:
            parts.append(self.number.expand(n_envs, -1, -1))
        return {GROUP: torch.cat(parts, -1)}

    def team_state(self, state: PricingState) -> Tensor:
        shown = (state.price - self.zero) / (self.one - self.zero)
        open_ = state.open.float()
        profit = state.profit / self.yardstick.money
        parts = [shown.flatten(1), profit, open_, self._opening(state)]
        if self.params.inventory:
            parts += [state.stock / self.params.stock, self._time_left(state)]
        return torch.cat(parts, -1)

    def _opening(self, state: PricingState) -> Tensor:
        return (state.time == 0).float().unsqueeze(-1)

    def _time_left(self, state: PricingState) -> Tensor:
        return (1.0 - state.time / self.params.max_steps).unsqueeze(-1)

    def alive(self, state: PricingState) -> Groups:
        return {GROUP: state.open} if self.n_dead else {}

    def agent_info(self, state: PricingState) -> dict[str, Groups]:
        rows = {"price": state.price[:, -1], "profit": state.profit, "stock": state.stock}
        return {name: {GROUP: row.unsqueeze(-1)} for name, row in rows.items()}

    # ---------------------------------------------------------------- judging
    def score(self, totals: dict[str, Tensor]) -> Tensor:
        """Profit gain per episode; with ``inventory`` the revenue over one owner's best."""
        nash, joint = self.yardstick.nash_profit, self.yardstick.joint_profit
        steps = 1.0 if self.params.inventory else totals["steps"]
        return (totals["profit"] / steps - nash) / (joint - nash)

    def baselines(self) -> dict[str, Policy]:
        from marl_td.tasks.pricing import policies

        return policies.baselines(self)

    def optimum(self) -> Optimum:
        return optimum.optimum(self.params, self.continuous)

    def episode_series(self, state: PricingState) -> dict[str, Tensor]:
        series = {"price ($)": state.price[:, -1], "profit of the step ($)": state.profit}
        if self.params.inventory:
            series["units left"] = state.stock
        return series

    def render(self, state: PricingState, index: int = 0) -> np.ndarray[Any, Any]:
        from marl_td.tasks.pricing.render import draw

        return draw(self, state, index)
