"""Retail: warehouses that reorder stock under uncertain demand and help each other out by transfers.

Description:
    Periodic-review inventory with lost sales, a lead time and lateral transshipment (Robinson 1990,
    https://doi.org/10.1287/opre.38.2.278; review: Paterson et al. 2011,
    https://doi.org/10.1016/j.ejor.2010.08.005). Within a period, at every site:

    1. the delivery ordered ``lead_time`` periods ago arrives;
    2. the site orders up to a level it chooses (at most ``max_order``, stock + pipeline <= ``capacity``);
    3. mode ``"action"``: transfers, before demand is known; offers meet requests in proportion;
    4. demand arrives (Poisson; optionally seasonal, or with a factor common to all sites);
    5. units in stock are sold; mode ``"reactive"``: what is left and lent covers the others' unmet units;
       unmet units are lost; costs are paid.

    Stock, orders and transfers are whole units: a shared remainder goes to one site or the other by
    systematic rounding (:func:`~marl_td.tasks.retail.dynamics.split`). So units are conserved exactly,
    results are equal on every device, and the dynamic programmes of
    :mod:`~marl_td.tasks.retail.optimum` solve this very task, not a fluid version of it.

Action space:
    Continuous, ``Box(2)``: the order-up-to level in [0, 1] of ``level_scale`` units (see ``max_level``; 36
    by default), and the transfer in [-1, 1]. Mode ``"action"``: > 0 offers that share of the own
    stock, < 0 requests that share of the free capacity, each counted up to ``max_transfer`` units. Mode
    ``"reactive"``: > 0 lends that share of what is left after demand; unmet units are always requested, so
    0 and below mean: lend nothing. Transfer 0 everywhere is the chain without transfers in both modes.

    Discrete, 33 actions ``3 * level + transfer``: 11 levels (0, 0.1, ..., 1 of ``level_scale``) times
    {0: offer, 1: none, 2: request}; an offer or request is one ``lot`` in mode ``"action"``, all that is
    left in mode ``"reactive"``. Masked: levels above the capacity, offers without stock, requests without
    free capacity, and requests in mode ``"reactive"`` (they happen by themselves).

Observation space (per site i, float32; stock in periods of own mean demand, lambda_i):

    ===================================  ====================  ==========================================
    entry                                width                 unit
    ===================================  ====================  ==========================================
    stock before the delivery            1                     units / lambda_i
    pipeline, next delivery first        ``lead_time``         units / lambda_i
    demand of the last period            1                     units / lambda_i
    its exponential average              1                     units / lambda_i
    demand rate                          1                     lambda_i / mean over sites
    season, sin and cos                  2 if seasonal         -
    site, if ``site_id``                 ``n_agents``          one-hot
    stock + delivery of the other sites  ``n_agents - 1``      periods of their mean demand, next site
                                         if shared             first; -1 where the message was lost
    ===================================  ====================  ==========================================

Global state: stock, pipeline, last demand and its average of all sites, in the units above, and the season.
Reward: minus the period's cost in $ divided by ``reward_scale``; ``"team"``: the mean over sites.
Dead sites order and lend nothing; their customers still come, for what is left or what others lend.
Start: 1 to 3 periods of mean demand in stock (uniform), one period of it in every pipeline slot.
End: never terminates; ``max_steps`` truncates.
Score: cost of all sites in $ per period; lower is better.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from marl_td.tasks.base import Box, Discrete, Groups, GroupSpec, Noise, Optimum, Policy, Step, Task
from marl_td.tasks.failures import alive_agents, dead_count
from marl_td.tasks.layout import envs_last
from marl_td.tasks.retail.demand import demand_of, demand_pmf, draw_uniforms, level_scale
from marl_td.tasks.retail.dynamics import (
    Decision,
    Flow,
    RetailState,
    advance,
    site_costs,
    start_amounts,
)
from marl_td.tasks.retail.observation import action_names, cover, on_hand, season, sensible_actions
from marl_td.tasks.retail.params import RetailParams, site_rates

N_LEVELS = 11
DEMAND_SMOOTHING = 0.2
COSTS = ("holding_cost", "lost_cost", "transfer_cost", "order_cost")


class Retail(Task[RetailParams, RetailState]):
    """See the module's docstring."""

    name = "retail"
    Params = RetailParams
    terminates = False
    unit: ClassVar[str] = "$ per period"
    higher_is_better: ClassVar[bool] = False
    info_keys: ClassVar[tuple[str, ...]] = (
        "cost",
        *COSTS,
        "demand",
        "lost",
        "moved",
        "ordered",
        "left",
    )
    levels: ClassVar[dict[str, dict[str, Any]]] = {
        "easy": {"n_agents": 3},
        "medium": {},
        "hard": {"n_agents": 10, "season_amplitude": 0.5, "correlation": 0.3},
    }

    def __init__(
        self, params: RetailParams, continuous: bool = True, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(params, continuous, device)
        self.n_agents = params.n_agents
        self.rates = torch.tensor(site_rates(params), device=self.device)
        self.n_dead = dead_count(params.dead_agents, params.n_agents)
        self.limit = params.max_transfer if continuous else params.lot
        pmf = demand_pmf(params)
        self._cdf = pmf.cumsum(-1).to(self.device, torch.float32)
        if params.site_id:
            self._identity = torch.eye(self.n_agents, device=self.device)
        site = torch.arange(self.n_agents, device=self.device)
        n_others = self.n_agents - 1 if params.share_inventory else 0
        self._others = (site.unsqueeze(-1) + site[1 : 1 + n_others]) % self.n_agents
        self.level_scale = level_scale(params)
        self._levels = self.order_levels().to(self.device)
        self.action_names = action_names(N_LEVELS)

    # ------------------------------------------------------------------ shape
    @property
    def groups(self) -> dict[str, GroupSpec]:
        p = self.params
        d_obs = 4 + p.lead_time + 2 * (p.n_phases > 1)
        d_obs += self.n_agents * p.site_id + (self.n_agents - 1) * p.share_inventory
        names = (f"order-up-to level [{self.level_scale} units]", "transfer")
        box = Box((0.0, -1.0), (1.0, 1.0), names)
        action = box if self.continuous else Discrete(3 * N_LEVELS, self.action_names)
        masked, mortal = not self.continuous, self.n_dead > 0
        return {"agents": GroupSpec(self.n_agents, d_obs, action, masked=masked, mortal=mortal)}

    @property
    def season_at(self) -> int:
        """Index of the season's sin in an observation (its cos follows), if there is a season."""
        return 4 + self.params.lead_time

    @property
    def d_state(self) -> int:
        d_site = 3 + self.params.lead_time + (self.n_dead > 0)
        return self.n_agents * d_site + 2 * (self.params.n_phases > 1)

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers: ``stock`` and ``fail`` [n_envs, n_agents], ``phase`` [n_envs], and ``heard``."""
        device, shape = generator.device, (n_envs, self.n_agents)
        stock = torch.rand(shape, generator=generator, device=device)
        phase = torch.rand(n_envs, generator=generator, device=device)
        noise = {"stock": envs_last(stock), "phase": phase}
        if self.n_dead > 0:
            noise["fail"] = envs_last(torch.rand(shape, generator=generator, device=device))
        return noise | self._draw_messages(n_envs, generator)

    def draw_step(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers: ``demand`` [n_envs, n_agents], ``rounding`` [n_envs], and ``heard``."""
        noise = {
            "demand": draw_uniforms(self.params, n_envs, generator),
            "rounding": torch.rand(n_envs, generator=generator, device=generator.device),
        }
        return noise | self._draw_messages(n_envs, generator)

    def _draw_messages(self, n_envs: int, generator: torch.Generator) -> Noise:
        if not self._drops_messages:
            return {}
        shape = (n_envs, *self._others.shape)
        return {"heard": torch.rand(shape, generator=generator, device=generator.device)}

    @property
    def _drops_messages(self) -> bool:
        return self.params.share_inventory and self.params.message_dropout > 0

    def _heard(self, noise: Noise, n_envs: int) -> Tensor:
        if self._drops_messages:
            return noise["heard"] >= self.params.message_dropout
        return torch.ones((n_envs, *self._others.shape), dtype=torch.bool, device=self.device)

    def reset(self, n_envs: int, noise: Noise) -> RetailState:
        p = self.params
        low, high, slot = start_amounts(p, self.rates)
        stock = low + (noise["stock"] * (high - low + 1)).floor().minimum(high - low)
        pipeline = slot.unsqueeze(-1).expand(n_envs, -1, p.lead_time)
        none = torch.zeros_like(stock)
        average = self.rates.expand(n_envs, -1)
        one = self.rates.round().expand(n_envs, -1)
        phase = (noise["phase"] * p.n_phases).long().clamp_max(p.n_phases - 1)
        heard = self._heard(noise, n_envs)
        alive = torch.ones_like(stock, dtype=torch.bool)
        if self.n_dead > 0:
            alive = alive_agents(noise["fail"], self.n_dead)
        return RetailState(stock, pipeline, one, average, none, none, phase, heard, alive)

    def flow(self, state: RetailState, action: Tensor, noise: Noise) -> tuple[RetailState, Flow]:
        """One period: the next state and what moved at every site; ``action`` as in :meth:`step`."""
        cdf = self._cdf[0] if self.params.n_phases == 1 else self._cdf[state.phase]
        demand = demand_of(noise["demand"], cdf)
        decision = Decision(*(part * state.alive for part in self.decide(action)))
        stock, pipeline, flow = advance(
            self.params, self.limit, state, decision, demand, noise["rounding"]
        )
        average = state.demand_average + DEMAND_SMOOTHING * (demand - state.demand_average)
        phase = (state.phase + 1) % self.params.n_phases
        heard = self._heard(noise, stock.shape[0])
        seen = (demand, average, flow.lost, flow.got - flow.given)
        return RetailState(stock, pipeline, *seen, phase, heard, state.alive), flow

    def step(self, state: RetailState, action: Groups, noise: Noise) -> Step[RetailState]:
        state, flow = self.flow(state, action["agents"], noise)
        costs = site_costs(self.params, flow)
        cost = sum(costs.values(), torch.zeros_like(flow.left))
        reward = -cost / self.params.reward_scale
        if self.params.reward == "team":
            reward = reward.mean(-1, keepdim=True).expand_as(cost)
        totals = costs | {"cost": cost, "demand": flow.demand, "lost": flow.lost}
        totals |= {"moved": flow.given, "ordered": flow.ordered, "left": flow.left}
        info = {key: value.sum(-1) for key, value in totals.items()}
        never = torch.zeros(cost.shape[0], dtype=torch.bool, device=cost.device)
        return Step(state, {"agents": reward}, never, info)

    def decide(self, action: Tensor) -> Decision:
        """Level and transfer of an action: ``[n_envs, n_agents, 2]`` float or ``[n_envs, n_agents]`` long."""
        if self.continuous:
            share = action[..., 0].clamp(0.0, 1.0)
            transfer = action[..., 1].clamp(-1.0, 1.0)
        else:
            share = (action // 3).to(torch.float32) / (N_LEVELS - 1)
            transfer = 1.0 - (action % 3).to(torch.float32)
        return Decision((share * self.level_scale).round(), transfer)

    def order_levels(self) -> Tensor:
        """Order-up-to levels that an action can express, in units, increasing."""
        scale = self.level_scale
        if self.continuous:
            return torch.arange(scale + 1, dtype=torch.float32)
        return (torch.arange(N_LEVELS, dtype=torch.float32) / (N_LEVELS - 1) * scale).round()

    # ------------------------------------------------------------ observation
    def observe(self, state: RetailState) -> Groups:
        n_envs = state.stock.shape[0]
        shape = (n_envs, self.n_agents, -1)
        relative_rate = (self.rates / self.rates.mean()).unsqueeze(-1)
        parts = [cover(state, self.rates), relative_rate.expand(shape)]
        if self.params.n_phases > 1:
            parts.append(season(self.params, state).unsqueeze(1).expand(shape))
        if self.params.site_id:
            parts.append(self._identity.expand(shape))
        if self.params.share_inventory:
            stock = on_hand(state) / self.rates
            parts.append(torch.where(state.heard, stock[:, self._others], -1.0))
        return {"agents": torch.cat(parts, -1)}

    def team_state(self, state: RetailState) -> Tensor:
        parts = [cover(state, self.rates).flatten(1)]
        if self.params.n_phases > 1:
            parts.append(season(self.params, state))
        if self.n_dead > 0:
            parts.append(state.alive.to(torch.float32))
        return torch.cat(parts, -1)

    def alive(self, state: RetailState) -> Groups:
        return {"agents": state.alive} if self.n_dead > 0 else {}

    def action_mask(self, state: RetailState) -> Groups:
        if self.continuous:
            return {}
        return {"agents": sensible_actions(self.params, state, self._levels)}

    # ---------------------------------------------------------------- judging
    def score(self, totals: dict[str, Tensor]) -> Tensor:
        return totals["cost"] / totals["steps"]

    def figures(self, totals: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cost in $ per unit demanded, and the fill rate (share of demand served), per episode."""
        demand = totals["demand"].clamp_min(1.0)
        return {"cost_per_unit": totals["cost"] / demand, "fill_rate": 1 - totals["lost"] / demand}

    def baselines(self) -> dict[str, Policy]:
        from marl_td.tasks.retail.search import baselines

        return baselines(self)

    def optimum(self) -> Optimum | None:
        from marl_td.tasks.retail.optimum import bound

        return bound(self)

    def episode_series(self, state: RetailState) -> dict[str, Tensor]:
        return {
            "stock on hand [units]": on_hand(state),
            "lost sales [units]": state.lost,
            "transfers, got - given [units]": state.moved,
        }

    def render(self, state: RetailState, index: int = 0) -> Any:
        from marl_td.tasks.retail.render import draw

        return draw(self.params, self.level_scale, state, index)
