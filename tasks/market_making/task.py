"""Market making: makers quote prices to buy and to sell, and carry the stock that they did not want.

Description:
    One asset. Market orders arrive on both sides, Poisson with rate A, and each reaches an exponential depth
    into the book: it takes one unit of the best quote if that is within its reach. A maker earns the distance
    of its quotes from the mid price, and pays for the inventory that it ends up with. Alone and with
    infinitely short steps this is Avellaneda & Stoikov's market, in which a quote at depth d is hit at rate
    A exp(-k d) ("High-frequency trading in a limit order book", 2008,
    https://doi.org/10.1080/14697680701381228). Several makers compete for the same orders, or
    form one firm's desk.

Action space (per maker, group ``agents``):
    Continuous, ``Box(2)``: depth of the bid and of the ask in $ from the mid price, in [0, 3 / k]. ``size``
    units are quoted on each side, as far as the inventory limit has room.

    Discrete, 36 x ``size`` actions, ``(bid * 6 + ask) * size + units - 1``: 5 depths per side, 1 to 5 fifths
    of 3 / k, or 5: no quote; ``units`` from 1 to ``size``. Masked: no bid at +Q, no ask at -Q, and one unit
    is enough to quote nothing.

Observation space (per maker, float32):

    ==================  =====  ====================================================================
    entry               width  unit
    ==================  =====  ====================================================================
    inventory           1      own units / Q
    time left           1      share of the episode; 1 if ``lifelong``
    flow                1      trades, buys - sells, moving average / (A dt)
    best quotes         2      depth of the best bid and ask of the last step, x k; 3 if there was none
    own fills           2      units bought and sold in the last step
    ==================  =====  ====================================================================

Global state, ``[n_agents + 4]``: all inventories / Q, time left, flow, best quotes.
Step: makers quote; orders arrive on each side, and are matched one after the other, equal depths in a
    random order; the mid price moves by a normal step, and by ``adverse`` per order its way. With
    ``toxic_share`` some orders come from traders who know the price's own moves over ``toxic_horizon`` steps
    (law in ``flow.py``); what they know is in no observation, nor in the global state.
Reward: change of the wealth, cash + inventory x mid price, minus ``inventory_penalty`` x inventory^2 x dt,
    and at the close ``closing_penalty`` x inventory^2; in $. ``"team"``: the mean over makers. Without
    ``price_noise`` the part of the wealth that is a fair game is left out: the inventory before the step x
    the price's move, and what was filled x the part of the move that orders did not cause. With informed
    traders less is one: what was filled x the moves that they know stays, and inventory x the orders' push.
Start: no inventory, no cash, mid price 100 $ (nothing depends on it).
End: the market closes after ``max_steps`` (terminated); ``lifelong``: never (truncated).
Info, per step, all makers together: ``wealth`` ($ won), ``earned`` ($, fills x depth), ``penalty`` ($),
    ``fills`` and ``orders`` (units), ``spread`` ($ between the best quotes); of every maker its
    ``inventory`` and ``wealth``.
Score: reward per maker and episode in $; higher is better.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from marl_td.tasks.base import Box, Discrete, Groups, GroupSpec, Noise, Optimum, Policy, Step, Task
from marl_td.tasks.failures import alive_agents, dead_count
from marl_td.tasks.market_making import actions, book, flow, optimum
from marl_td.tasks.market_making.params import MarketMakingParams

GROUP = "agents"
BID, ASK = 0, 1
START_PRICE = 100.0


class MarketState(NamedTuple):
    """The market after a step; float32 but for ``step`` and ``alive``."""

    inventory: Tensor
    """Units held (or owed), whole numbers, ``[n_envs, n_agents]``."""
    wealth: Tensor
    """Cash + inventory x mid price, $, ``[n_envs, n_agents]``."""
    price: Tensor
    """Mid price, $, ``[n_envs]``."""
    depth: Tensor
    """Bid and ask of the last step, $ from its mid price, inf: none, ``[n_envs, n_agents, 2]``."""
    filled: Tensor
    """Units bought and sold in the last step, ``[n_envs, n_agents, 2]``."""
    flow: Tensor
    """Buys - sells per step, moving average, ``[n_envs]``."""
    step: Tensor
    """Steps since the start, int64 ``[n_envs]``."""
    alive: Tensor
    """Makers that have not failed, bool ``[n_envs, n_agents]``."""
    ahead: Tensor
    """Normal numbers of the mid's next moves that some orders know, ``[n_envs, known_steps - 1]``."""


class MarketMaking(Task[MarketMakingParams, MarketState]):
    """See the module's docstring."""

    name = "market_making"
    Params = MarketMakingParams
    unit: ClassVar[str] = "$ per maker"
    info_keys: ClassVar[tuple[str, ...]] = (
        "wealth",
        "earned",
        "penalty",
        "fills",
        "orders",
        "spread",
    )
    levels: ClassVar[dict[str, dict[str, Any]]] = {
        "easy": {"n_agents": 1, "adverse": 0.0},
        "medium": {},
        "hard": {"n_agents": 10, "inventory_penalty": 5.0},
    }

    def __init__(
        self,
        params: MarketMakingParams,
        continuous: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(params, continuous, device)
        self._cdf = flow.cdf(params).to(self.device, torch.float32)
        self.level_depths = optimum.levels(params).to(self.device, torch.float32)
        """Depth of each choice of a discrete action, ``[N_LEVELS + 1]``, in $."""
        self.n_dead = dead_count(params.dead_agents, params.n_agents)
        self.action_names = actions.names(params)
        self._memory = 1.0 - math.exp(-params.dt / params.flow_memory)

    # ------------------------------------------------------------------ shape
    @property
    def groups(self) -> dict[str, GroupSpec]:
        p = self.params
        sides = ("depth of the bid [$]", "depth of the ask [$]")
        box = Box((0.0, 0.0), (p.max_depth, p.max_depth), sides)
        action = box if self.continuous else Discrete(len(self.action_names), self.action_names)
        spec = GroupSpec(
            p.n_agents,
            7,
            action,
            masked=not self.continuous,
            mortal=self.n_dead > 0,
            info={"inventory": 1, "wealth": 1},
        )
        return {GROUP: spec}

    @property
    def d_state(self) -> int:
        return self.params.n_agents + 4

    @property
    def usual_episode(self) -> int:
        return self.params.max_steps

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        """``ahead``: normal numbers ``[n_envs, known_steps - 1]``, of the first moves of the price.

        ``fail``: uniform numbers ``[n_envs, n_agents]``, the lowest fail; only with ``dead_agents``.
        """
        p = self.params
        noise = {"fail": self._uniform((n_envs, p.n_agents), generator)} if self.n_dead > 0 else {}
        ahead = torch.empty((n_envs, p.known_steps - 1), device=self.device)
        return noise | {"ahead": ahead.normal_(generator=generator)}

    def draw_step(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers in [0, 1) for buys' and sells' side, and a normal one for the price.

        ``orders`` ``[n_envs, 2]``: how many sells (which hit bids) and buys (which hit asks); ``reach``
        ``[n_envs, 2, max_orders]``: how deep they go; ``priority`` ``[n_envs, 2, n_agents]``: who is first
        of equal quotes; ``price`` ``[n_envs]``, the move of the last step that informed traders know.
        """
        p = self.params
        price = torch.empty(n_envs, device=self.device).normal_(generator=generator)
        return {
            "orders": self._uniform((n_envs, 2), generator),
            "reach": self._uniform((n_envs, 2, p.max_orders), generator),
            "priority": self._uniform((n_envs, 2, p.n_agents), generator),
            "price": price,
        }

    def _uniform(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.empty(shape, device=self.device).uniform_(generator=generator)

    def reset(self, n_envs: int, noise: Noise) -> MarketState:
        p = self.params
        none = torch.zeros((n_envs, p.n_agents), device=self.device)
        alive = torch.ones_like(none, dtype=torch.bool)
        if self.n_dead > 0:
            alive = alive_agents(noise["fail"], self.n_dead)
        return MarketState(
            inventory=none,
            wealth=none.clone(),
            price=torch.full((n_envs,), START_PRICE, device=self.device),
            depth=none.unsqueeze(-1).repeat(1, 1, 2) + math.inf,
            filled=none.unsqueeze(-1).repeat(1, 1, 2),
            flow=torch.zeros(n_envs, device=self.device),
            step=torch.zeros(n_envs, dtype=torch.long, device=self.device),
            alive=alive,
            ahead=noise["ahead"],
        )

    def step(self, state: MarketState, action: Groups, noise: Noise) -> Step[MarketState]:
        p = self.params
        depth, units = actions.quotes(self, state, action[GROUP])
        known = torch.cat([state.ahead, noise["price"].unsqueeze(-1)], -1)
        orders = flow.count(self._cdf, noise["orders"], known)  # [n_envs, 2]
        reach = -(1.0 - noise["reach"]).log() / p.decay  # in vectors, as `log1p` is not
        number = torch.arange(p.max_orders, device=self.device)
        reach = torch.where(number < orders.unsqueeze(-1), reach, -math.inf)
        sides = (depth.transpose(1, 2), units.transpose(1, 2).contiguous())
        filled = book.match(*sides, noise["priority"], reach).transpose(1, 2)

        push = p.adverse * (orders[:, ASK] - orders[:, BID])
        change = p.volatility * math.sqrt(p.dt) * known[:, 0] + push
        inventory = state.inventory + filled[..., BID] - filled[..., ASK]
        earned = torch.where(filled > 0, filled * depth, 0.0).sum(-1)
        won = earned + inventory * change.unsqueeze(-1)
        fair = flow.fair_reward(p, state, inventory, earned, push.unsqueeze(-1), known)
        step = state.step + 1
        closes = (step >= p.max_steps) & (not p.lifelong)
        penalty = p.inventory_penalty * p.dt + p.closing_penalty * closes.unsqueeze(-1)
        penalty = penalty * inventory.square()
        bought, sold = filled.sum(1).unbind(-1)
        new = MarketState(
            inventory=inventory,
            wealth=state.wealth + won,
            price=state.price + change,
            depth=depth,
            filled=filled,
            flow=torch.lerp(state.flow, sold - bought, self._memory),
            step=step,
            alive=state.alive,
            ahead=known[:, 1:],
        )
        info = {
            "wealth": won.sum(-1),
            "earned": earned.sum(-1),
            "penalty": penalty.sum(-1),
            "fills": bought + sold,
            "orders": orders.sum(-1).float(),
            "spread": self.best_quotes(new).sum(-1),
        }
        reward = (won if p.price_noise else fair) - penalty
        if p.reward == "team":
            reward = reward.mean(-1, keepdim=True).expand_as(won)
        return Step(new, {GROUP: reward}, closes, info)

    # ---------------------------------------------------------------- sensing
    def best_quotes(self, state: MarketState) -> Tensor:
        """Best bid and ask of the last step in $, the deepest allowed if none, ``[n_envs, 2]``."""
        return state.depth.amin(1).clamp_max(self.params.max_depth)

    def _public(self, state: MarketState) -> Tensor:
        """Time left, flow and best quotes, ``[n_envs, 4]``."""
        p = self.params
        left = 1.0 - state.step.float() / p.max_steps
        if p.lifelong:
            left = torch.ones_like(left)
        flow = state.flow / p.orders_per_step
        best = self.best_quotes(state) * p.decay
        return torch.cat([left.unsqueeze(-1), flow.unsqueeze(-1), best], -1)

    def observe(self, state: MarketState) -> Groups:
        own = (state.inventory / self.params.max_inventory).unsqueeze(-1)
        public = self._public(state).unsqueeze(1).expand(-1, self.params.n_agents, -1)
        return {GROUP: torch.cat([own, public, state.filled], -1)}

    def team_state(self, state: MarketState) -> Tensor:
        own = state.inventory / self.params.max_inventory
        return torch.cat([own, self._public(state)], -1)

    def action_mask(self, state: MarketState) -> Groups:
        if self.continuous:
            return {}
        return {GROUP: actions.mask(self.params, state)}

    def alive(self, state: MarketState) -> Groups:
        return {GROUP: state.alive} if self.n_dead > 0 else {}

    def agent_info(self, state: MarketState) -> dict[str, Groups]:
        own = {"inventory": state.inventory, "wealth": state.wealth}
        return {name: {GROUP: value.unsqueeze(-1)} for name, value in own.items()}

    # ---------------------------------------------------------------- judging
    def baselines(self) -> dict[str, Policy]:
        from marl_td.tasks.market_making.policies import baselines

        return baselines(self)

    def optimum(self) -> Optimum | None:
        return optimum.optimum(self.params, self.continuous)

    def episode_series(self, state: MarketState) -> dict[str, Tensor]:
        return {
            "inventory of each maker (units)": state.inventory,
            "best bid and ask ($ from the mid price)": self.best_quotes(state),
        }

    def render(self, state: MarketState, index: int = 0) -> np.ndarray[Any, Any]:
        from marl_td.tasks.market_making.render import draw

        return draw(self.params, state, index)
