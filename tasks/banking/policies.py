"""Classical routing rules as policies: they read observations (or the global state) and write actions.

A rule gives every channel a cost; a router sends its payments to the open channel with the least.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.banking import optimum
from marl_td.tasks.banking.params import GROUP, HOLD, N_CHANNELS
from marl_td.tasks.banking.queueing import best_split, improvement_index
from marl_td.tasks.base import Policy

if TYPE_CHECKING:
    from marl_td.tasks.banking.task import Banking

Rule = Callable[[TensorDictBase], Tensor]
"""Reads a TensorDict; returns costs broadcastable to ``[n_envs, n_agents, n_classes, 3]``."""


def baselines(task: Banking) -> dict[str, Policy]:
    """All rules by name; those that end in ``_fresh`` read the true loads, which routers do not have."""
    servers, index = task.tables.servers, improvement(task)
    rules: dict[str, Rule] = {
        "uniform": random_split(task, [1.0] * N_CHANNELS),
        "static_split": random_split(task, best_split(task.params)),
        "join_shortest": lambda td: seen_loads(task, td) / servers,
        "threshold": lambda td: threshold(task, seen_loads(task, td)),
        "shortest_delay": lambda td: delay(task, seen_loads(task, td)),
        "shortest_delay_predicted": lambda td: delay(task, predicted_loads(task, td)),
        "shortest_delay_fresh": lambda td: delay(task, true_loads(task, td)),
        "improvement": lambda td: index(seen_loads(task, td)),
        "improvement_predicted": lambda td: index(predicted_loads(task, td)),
        "optimal_fresh": lambda td: from_table(task, true_loads(task, td)),
    }
    if task.params.classes:
        rules["shortest_delay_safe"] = lambda td: safe(task, delay(task, seen_loads(task, td)))
    return {name: to_policy(task, rule) for name, rule in rules.items()}


def to_policy(task: Banking, rule: Rule) -> Policy:
    """The policy that follows ``rule`` with every payment it can route, and never holds."""

    def policy(td: TensorDictBase) -> TensorDictBase:
        allowed = class_mask(task, td.get((GROUP, "action_mask")))
        cost = rule(td).masked_fill(~allowed[..., :N_CHANNELS], torch.inf)
        choice = torch.where(allowed[..., :N_CHANNELS].any(-1), cost.argmin(-1), HOLD)
        place = (N_CHANNELS + 1) ** torch.arange(task.n_classes - 1, -1, -1, device=cost.device)
        td.set((GROUP, "action"), (choice * place).sum(-1))
        return td

    return policy


def class_mask(task: Banking, mask: Tensor) -> Tensor:
    """What each class may do, ``[*B, n_agents, n_classes, 4]``, from the mask over joint actions."""
    digits = torch.arange(N_CHANNELS + 1, device=mask.device)
    uses = task.choices.unsqueeze(-1) == digits  # [n_actions, n_classes, 4]
    return (mask[..., None, None] & uses).any(-3)


# ------------------------------------------------------------------ information
def seen_loads(task: Banking, td: TensorDictBase) -> Tensor:
    """Loads as the routers see them, ``stale`` steps old, ``[n_envs, n_agents, 1, 3]`` payments."""
    seen = td.get((GROUP, "observation"))[..., task.columns["loads"]]
    return (seen * task.tables.servers).unsqueeze(-2)


def true_loads(task: Banking, td: TensorDictBase) -> Tensor:
    """Loads now, from the global state, ``[n_envs, 1, 1, 3]`` payments."""
    return (td.get("state")[..., :N_CHANNELS] * task.tables.servers)[..., None, None, :]


def predicted_loads(task: Banking, td: TensorDictBase) -> Tensor:
    """Loads now as a router can guess them, ``[n_envs, n_agents, 1, 3]`` payments.

    A fluid model runs from the stale loads: every router is assumed to have sent what this one sent
    since, evenly over time, and busy servers work at their mean rate.
    """
    p, t = task.params, task.tables
    load = seen_loads(task, td)
    sent = td.get((GROUP, "observation"))[..., task.columns["sent"]] * t.servers
    inflow = p.n_agents * sent.unsqueeze(-2) / max(p.stale, 1)
    for _ in range(p.stale):
        load = (load + inflow - p.step_time * t.rate * load.minimum(t.servers)).clamp(min=0.0)
    return load


# ------------------------------------------------------------------------ rules
def delay(task: Banking, load: Tensor) -> Tensor:
    """Expected delay in s of a payment that finds ``load`` ``[..., 3]``: service, and wait if all are busy.

    A millisecond's thousandth per channel decides ties for the cheaper one (they do occur: a wait of
    60 ms for internal equals an idle external), whatever the rounding.
    """
    t = task.tables
    ahead = (load + 1.0 - t.servers).clamp(min=0.0)
    tie = 1e-6 * torch.arange(N_CHANNELS, device=load.device)
    return (1.0 + ahead / t.servers) / t.rate + tie


def threshold(task: Banking, load: Tensor) -> Tensor:
    """Spill-over rule with the thresholds that are best for fresh loads."""
    first, second = optimum.best_thresholds(task.params)
    target = optimum.spill_table(load.movedim(-1, 0), first, second)
    return (torch.arange(N_CHANNELS, device=load.device) - target.unsqueeze(-1)).abs().float()


def improvement(task: Banking) -> Callable[[Tensor], Tensor]:
    """Rule by the index of one policy-improvement step on the best static split."""
    p = task.params
    index = torch.tensor(improvement_index(p, best_split(p), max(p.capacity) + 1)).to(task.device)
    channel = torch.arange(N_CHANNELS, device=task.device)

    def rule(load: Tensor) -> Tensor:
        return index[channel, load.round().long().clamp(max=index.shape[1] - 1)]

    return rule


def random_split(task: Banking, share: list[float]) -> Rule:
    """Route at random with fixed shares, from a random stream of the rule's own."""
    generator = torch.Generator(device=task.device).manual_seed(0)
    weight = torch.tensor(share, device=task.device).clamp(min=1e-12)

    def rule(td: TensorDictBase) -> Tensor:
        mask = td.get((GROUP, "action_mask"))
        shape = (*mask.shape[:-1], task.n_classes, N_CHANNELS)
        race = torch.empty(shape, device=task.device).exponential_(generator=generator)
        return race / weight  # the least of exponential clocks rings first with chance `share`

    return rule


def from_table(task: Banking, load: Tensor) -> Tensor:
    """Latency-optimal channel for the load found (mean arrival rate), by the dynamic programme."""
    table = optimum.solution(task.params).table[0, 0].to(load.device)
    index = [load[..., k].long().clamp(max=size - 1) for k, size in enumerate(table.shape)]
    best = table[index[0], index[1], index[2]]
    return (torch.arange(N_CHANNELS, device=load.device) != best.unsqueeze(-1)).float()


def safe(task: Banking, cost: Tensor) -> Tensor:
    """``cost`` for all classes but the riskiest, which goes to the channel with the least risk."""
    risk = task.tables.risk
    riskiest = torch.arange(task.n_classes, device=cost.device) == risk.sum(-1).argmax()
    return torch.where(riskiest.unsqueeze(-1), risk, cost)
