"""What routers and critics see of the payment system, and what routers may do. Pure functions."""

from __future__ import annotations

import torch
from torch import Tensor

from marl_td.tasks.banking.dynamics import BankingState, Tables
from marl_td.tasks.banking.params import CHANNELS, BankingParams
from marl_td.tasks.failures import dead_count


def action_names(choices: Tensor) -> tuple[str, ...]:
    """Names of the actions ``choices`` ``[n_actions, n_classes]``: what is done with each class."""
    names = (*CHANNELS, "keep")
    return tuple(", ".join(names[choice] for choice in row) for row in choices.tolist())


def observation(p: BankingParams, t: Tables, state: BankingState, identity: Tensor) -> Tensor:
    """What each router sees, ``[n_envs, n_agents, d_obs]``; ``identity`` is its one-hot number."""
    n_envs = state.queue.shape[0]
    shape = (n_envs, p.n_agents, -1)
    parts = [
        state.buffer,
        (state.seen[:, 0] / t.servers).unsqueeze(1).expand(shape),
        state.sent.sum(1) / t.servers,
        (state.lost / state.moved / p.risk_limit).unsqueeze(-1),
        state.pace.unsqueeze(-1),
        identity.expand(n_envs, -1, -1),
    ]
    return torch.cat(parts, -1)


def team_state(p: BankingParams, t: Tables, state: BankingState) -> Tensor:
    """The global state, ``[n_envs, d_state]``."""
    parts = [
        state.queue / t.servers,
        state.seen[:, 0] / t.servers,
        state.sent.sum((1, 2)) / t.servers,
        state.buffer.flatten(1),
        state.lost / state.moved / p.risk_limit,
        state.phase.unsqueeze(-1).float(),
    ]
    if dead_count(p.dead_agents, p.n_agents) > 0:
        parts.append(state.alive.float())
    return torch.cat(parts, -1)


def available(p: BankingParams, t: Tables, state: BankingState) -> Tensor:
    """Available actions, ``[n_envs, n_agents, n_actions]``, in the order of ``Banking.choices``."""
    # Zeros and ones: compiled, short rows of bools would be computed one by one.
    waiting = (state.buffer > 0).float()
    if dead_count(p.dead_agents, p.n_agents) > 0:
        waiting = waiting * state.alive.float().unsqueeze(-1)
    open_ = (state.queue < t.capacity).float()[:, None, None, :]
    keep = (1.0 - waiting * open_.amax(-1)).clamp(min=float(p.hold))
    allowed = torch.cat([waiting.unsqueeze(-1) * open_, keep.unsqueeze(-1)], -1)
    joint, *others = allowed.unbind(2)  # of each class, [n_envs, n_agents, n_channels + 1]
    for other in others:  # an action is a choice of every class; the last class changes fastest
        joint = (joint.unsqueeze(-1) * other.unsqueeze(-2)).flatten(-2)
    return joint > 0
