"""Payment routing: routers send payments to three queueing channels.

Description:
    Payments arrive at ``n_agents`` routers as Poisson streams. Every router sends what it holds to one of
    three channels, each an M/M/c queue: internal (2 servers, 20 ms, $0.10, 3 % risk), external
    (4 servers, 80 ms, $0.50, 2 %), chain (8 servers, 200 ms, $2.00, 1 %). Internal alone cannot carry the
    load, and routers see loads that are ``stale`` steps old, so those that greedily pick the channel
    that looks fastest fill it together, and nobody pays for the delay given to later payments.

Action space: discrete, one of 4 choices per risk class: channel 0, 1, 2, or 3 = keep the payments in the
    buffer. Without ``classes`` that is ``Discrete(4)``; with C classes it is the joint choice,
    ``Discrete(4 ** C)``, the sum of ``choice[c] * 4 ** (C - 1 - c)`` (``Banking.choices`` lists them). All
    payments of a class in the buffer go together. Mask: a channel needs payments to send and room to
    take them; keeping is available where there is nothing to send, where every channel is full, or with
    ``hold``.
    A policy that keeps payments without being allowed to sends them to internal.

Observation space, ``[n_agents, d_obs]``, d_obs = n_classes + 8, and n_agents more with ``router_id``:

    ==========  =========  ==================================================================
    columns     width      content
    ==========  =========  ==================================================================
    buffer      n_classes  own payments to route, per class
    loads       3          payments per server in each channel, ``stale`` steps ago
    sent        3          payments per server this router sent there since then
    risk        1          own expected loss over amount, moving average, over ``risk_limit``
    pace        1          own arrivals over their mean, moving average
    index       n_agents   one-hot, if ``router_id``
    ==========  =========  ==================================================================

Global state, ``[d_state]``, d_state = 10 + n_agents (n_classes + 1): loads per server now, as routers see
    them, sent by all since then; all buffers; all routers' risk; arrival phase; who is alive, if not all are.
Reward, shared, per step: -(``latency_weight`` x payment-seconds / 0.1 s + ``cost_weight`` x fees in $ +
    ``loss_weight`` x expected loss in $). Payment-seconds are the time integral of the number of payments in
    channels and buffers over the step, so by Little's law their sum is the sum of latencies.
Clock: ``slot``: per step of ``dt`` the routers send, channels work, and new arrivals stand in the buffers
    at the end. ``event``: one event of the uniformised chain per step (arrival, completion, or nothing);
    the router with a payment acts, for the others only "keep" is available.
Start: empty channels, or loads drawn from the stationary law of the best routing. Buffers are empty.
Dead routers (``dead_agents``) send all to internal, and are no agents: only "keep" is available to them.
End: never terminates; truncated after ``max_steps``.
Info, sums over an episode: arrivals, completed, latency (payment-seconds), fees ($), late (expected payments
    past the deadline), amount and loss ($, routed), internal, external, chain (payments sent), and
    cost signals for constrained methods, each to be at most 0 in sum: ``latency_cost`` (s, above the target)
    and ``risk_cost`` ($ of loss above the limit); ``risky`` counts payments sent at a risk above the limit
    and ``risk_violation`` steps with portfolio risk above it.
Reference: Mitzenmacher, "How useful is old information?" (2000), for herding on stale loads.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from marl_td.tasks.banking import dynamics, optimum, policies, render, sensing
from marl_td.tasks.banking.dynamics import BankingState
from marl_td.tasks.banking.params import (
    CHANNELS,
    GROUP,
    HOLD,
    INTERNAL,
    N_CHANNELS,
    BankingParams,
)
from marl_td.tasks.base import (
    Discrete,
    Groups,
    GroupSpec,
    Noise,
    Optimum,
    Policy,
    Step,
    Task,
    TaskParams,
)
from marl_td.tasks.failures import alive_agents, dead_count


class Banking(Task[BankingParams, BankingState]):
    """See the module's docstring."""

    name = "banking"
    Params: ClassVar[type[TaskParams]] = BankingParams
    terminates = False
    has_continuous_actions = False
    unit = "ms"
    higher_is_better = False
    info_keys = (
        "arrivals",
        "completed",
        "latency",
        "fees",
        "late",
        "amount",
        "loss",
        *CHANNELS,
        "risky",
        "latency_cost",
        "risk_cost",
        "risk_violation",
    )
    levels: ClassVar[dict[str, dict[str, Any]]] = {
        "easy": {"stale": 0},
        "medium": {},
        "hard": {"stale": 20, "burst": True},
    }

    def __init__(
        self, params: BankingParams, continuous: bool = False, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(params, continuous, device)
        self.n_dead = dead_count(params.dead_agents, params.n_agents)
        self.tables = dynamics.make_tables(params, self.device)
        self.n_classes = len(params.shares)
        self.n_actions = (N_CHANNELS + 1) ** self.n_classes
        digits = torch.cartesian_prod(*[torch.arange(N_CHANNELS + 1)] * self.n_classes)
        choices = digits.view(self.n_actions, self.n_classes)
        self.choices = choices.to(self.device)
        """``[n_actions, n_classes]``: the choice per class that each action stands for."""
        self.action_names = sensing.action_names(choices)
        n_ids = params.n_agents * params.router_id
        self.identity = torch.eye(params.n_agents, n_ids, device=self.device)
        self.memory = 1.0 - math.exp(-params.step_time / params.risk_memory)
        self.start_law = optimum.start_law(params).to(self.device)
        sizes = [self.n_classes, N_CHANNELS, N_CHANNELS, 1, 1, n_ids]
        ends = np.cumsum(sizes).tolist()
        names = ("buffer", "loads", "sent", "risk", "pace", "index")
        self.columns = {n: slice(e - s, e) for n, s, e in zip(names, sizes, ends, strict=True)}
        """Where each part of the observation stands."""
        self.d_obs = ends[-1]

    # ------------------------------------------------------------------ shape
    @property
    def groups(self) -> dict[str, GroupSpec]:
        action = Discrete(self.n_actions, self.action_names)
        n, mortal = self.params.n_agents, self.n_dead > 0
        return {GROUP: GroupSpec(n, self.d_obs, action, masked=True, mortal=mortal)}

    @property
    def d_state(self) -> int:
        d_router = self.n_classes + 1 + (self.n_dead > 0)
        return 3 * N_CHANNELS + self.params.n_agents * d_router + 1

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Uniform numbers: ``queue`` and ``phase`` ``[n_envs]``, ``dead`` ``[n_envs, n_agents]``."""
        size = (n_envs, 2 + self.params.n_agents * (self.n_dead > 0))
        draws = torch.empty(size, device=self.device).uniform_(generator=generator)
        return {"queue": draws[:, 0], "phase": draws[:, 1], "dead": draws[:, 2:]}

    def draw_step(self, n_envs: int, generator: torch.Generator) -> Noise:
        return dynamics.draw(self.params, n_envs, generator)

    def reset(self, n_envs: int, noise: Noise) -> BankingState:
        p = self.params
        queue = optimum.draw_start(self.start_law, noise["queue"])
        each = torch.zeros((n_envs, p.n_agents), device=self.device)
        none = each.unsqueeze(-1).expand(-1, -1, self.n_classes)
        moved = each + p.amount * p.arrival_rate * p.step_time / p.n_agents
        alive = torch.ones_like(each, dtype=torch.bool)
        if self.n_dead > 0:
            alive = alive_agents(noise["dead"], self.n_dead)
        phase = (noise["phase"] >= 0.5).long() * (len(p.phases) - 1)
        return BankingState(
            queue=queue,
            buffer=none.clone(),
            worth=none.clone(),
            seen=queue.unsqueeze(1).repeat(1, p.stale + 1, 1),
            sent=torch.zeros((n_envs, p.stale, p.n_agents, N_CHANNELS), device=self.device),
            lost=moved * (sum(p.risk) / N_CHANNELS),
            moved=moved,
            pace=each + 1.0,
            phase=phase,
            alive=alive,
        )

    def step(self, state: BankingState, action: Groups, noise: Noise) -> Step[BankingState]:
        p, t = self.params, self.tables
        choice = self._choices_of(action[GROUP])
        if self.n_dead > 0:
            choice = torch.where(state.alive.unsqueeze(-1), choice, INTERNAL)
        if not p.hold:  # a policy that ignores the mask cannot hold either: channel 0 instead
            open_ = (state.queue < t.capacity).any(-1)[:, None, None]
            choice = torch.where((choice == HOLD) & open_ & (state.buffer > 0), INTERNAL, choice)
        routed = dynamics.route(state, choice, t)
        serve = dynamics.serve_slot if p.clock == "slot" else dynamics.serve_event
        served = serve(p, t, routed, state.phase, noise)
        new = self._next_state(state, routed, served)
        info = self._info(new, routed, served)
        reward = -(
            p.latency_weight * info["latency"] / 0.1
            + p.cost_weight * info["fees"]
            + p.loss_weight * info["loss"]
        )
        return Step(
            new,
            {GROUP: reward.unsqueeze(-1).expand(-1, p.n_agents)},
            torch.zeros_like(state.phase, dtype=torch.bool),
            info,
        )

    def _choices_of(self, action: Tensor) -> Tensor:
        """The choice of every class, ``[n_envs, n_agents, n_classes]``."""
        return self.choices[action] if self.n_classes > 1 else action.unsqueeze(-1)

    def _next_state(
        self, state: BankingState, routed: dynamics.Routed, served: dynamics.Served
    ) -> BankingState:
        p = self.params
        mean = p.arrival_rate * p.step_time / p.n_agents
        return BankingState(
            queue=served.queue,
            buffer=routed.buffer + served.arrived,
            worth=routed.worth + served.amount,
            seen=torch.cat([state.seen[:, 1:], served.queue.unsqueeze(1)], 1),
            sent=torch.cat([state.sent, routed.taken.unsqueeze(1)], 1)[:, 1:],
            lost=torch.lerp(state.lost, routed.lost, self.memory),
            moved=torch.lerp(state.moved, routed.moved, self.memory),
            pace=torch.lerp(state.pace, served.arrived.sum(-1) / mean, self.memory),
            phase=served.phase,
            alive=state.alive,
        )

    def _info(
        self, state: BankingState, routed: dynamics.Routed, served: dynamics.Served
    ) -> dict[str, Tensor]:
        p, channels = self.params, routed.taken.sum(1)
        arrivals = served.arrived.sum((1, 2))
        amount, loss = routed.moved.sum(-1), routed.lost.sum(-1)
        return {
            "arrivals": arrivals,
            "completed": served.completed,
            "latency": served.latency,
            "fees": (channels * self.tables.price).sum(-1),
            "late": routed.late,
            "risky": routed.risky,
            "amount": amount,
            "loss": loss,
            **{name: channels[:, k] for k, name in enumerate(CHANNELS)},
            "latency_cost": served.latency - p.latency_target * arrivals,
            "risk_cost": loss - p.risk_limit * amount,
            "risk_violation": (self.portfolio_risk(state) > p.risk_limit).float(),
        }

    def portfolio_risk(self, state: BankingState) -> Tensor:
        """Expected loss over amount, all routers, moving average over ``risk_memory``, ``[n_envs]``."""
        return state.lost.sum(-1) / state.moved.sum(-1)

    # ---------------------------------------------------------------- sensing
    def observe(self, state: BankingState) -> Groups:
        return {GROUP: sensing.observation(self.params, self.tables, state, self.identity)}

    def team_state(self, state: BankingState) -> Tensor:
        return sensing.team_state(self.params, self.tables, state)

    def action_mask(self, state: BankingState) -> Groups:
        return {GROUP: sensing.available(self.params, self.tables, state)}

    def alive(self, state: BankingState) -> Groups:
        return {GROUP: state.alive} if self.n_dead > 0 else {}

    # ---------------------------------------------------------------- judging
    def score(self, totals: dict[str, Tensor]) -> Tensor:
        """Mean latency per payment in ms, by Little's law.

        The time integral of the payments in the system over the *expected* number of arrivals: dividing
        by the episode's own arrivals would bias the mean over episodes.
        """
        seconds = totals["steps"] * self.params.step_time
        return 1000.0 * totals["latency"] / (self.params.arrival_rate * seconds)

    def baselines(self) -> dict[str, Policy]:
        return policies.baselines(self)

    def optimum(self) -> Optimum | None:
        known = optimum.optimum(self.params)
        if known is None or self.n_dead == 0 or known.kind == "upper":
            return known
        return replace(known, kind="lower", how=f"{known.how}, all routers alive")

    def episode_series(self, state: BankingState) -> dict[str, Tensor]:
        buffered = state.buffer.sum((1, 2)).unsqueeze(-1)
        return {
            "payments in internal, external, chain, buffers": torch.cat(
                [state.queue, buffered], -1
            ),
            "portfolio risk (%)": 100.0 * self.portfolio_risk(state).unsqueeze(-1),
        }

    def render(self, state: BankingState, index: int = 0) -> np.ndarray[Any, Any]:
        return render.draw(self, state, index)
