"""Classical stock policies: base-stock, (s, S), and base-stock with transfers by thresholds.

They are decentralised: a site decides from its own row of the observation. They work for continuous
and discrete actions. :mod:`marl_td.tasks.retail.search` finds their best parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.tasks.retail.observation import NOTHING

if TYPE_CHECKING:
    from marl_td.tasks.retail.task import Retail


@dataclass
class StockPolicy:
    """Order up to ``level`` once the position is ``gap`` units below it; transfer by thresholds.

    The position is stock plus pipeline. Parameters are are in units: ``level`` is
    ``[*B, n_phases, n_agents]``, the others ``[*B, n_agents]``, where ``*B`` is nothing or ``[n_envs]``.
    """

    task: Retail
    level: Tensor
    """Order-up-to level S in every period of the season."""
    gap: Tensor | None = None
    """S - s of an (s, S) policy; None orders every period (base-stock)."""
    request_below: Tensor | None = None
    """Request what stock on hand lacks to this (mode ``"action"``); None makes no transfers."""
    offer_above: Tensor | None = None
    """Offer what stock on hand exceeds this by (mode ``"action"``); None makes no transfers."""
    lend: bool = False
    """Lend everything left after demand (mode ``"reactive"``)."""

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write ``("agents", "action")`` for ``("agents", "observation")``."""
        action = self.act(tensordict.get(("agents", "observation")))
        if self.task.n_dead > 0 and not self.task.continuous:
            action = torch.where(tensordict.get(("agents", "mask")), action, NOTHING)
        return tensordict.set(("agents", "action"), action)

    def act(self, observation: Tensor) -> Tensor:
        """Action of every site for ``observation`` ``[n_envs, n_agents, d_obs]``."""
        lead = self.task.params.lead_time
        units = (observation[..., : 1 + lead] * self.task.rates.unsqueeze(-1)).round()
        on_hand, position = units[..., :2].sum(-1), units.sum(-1)
        level = self._level_now(observation)
        order = position <= level - (1 if self.gap is None else self.gap)
        level = torch.where(order, level, 0.0)
        return self._encode(level, self._transfer(on_hand, position.maximum(level)))

    def _level_now(self, observation: Tensor) -> Tensor:
        """Level in the period of the season that the observation shows, ``[n_envs, n_agents]``."""
        n_envs, n_phases = observation.shape[0], self.task.params.n_phases
        level = self.level.expand(n_envs, n_phases, -1)
        if n_phases == 1:
            return level[:, 0]
        at = self.task.season_at
        angle = torch.atan2(observation[:, 0, at], observation[:, 0, at + 1])
        phase = (angle * (n_phases / (2 * math.pi))).round().long() % n_phases
        return level.take_along_dim(phase.reshape(-1, 1, 1), 1).squeeze(1)

    def _transfer(self, on_hand: Tensor, position: Tensor) -> Tensor:
        """Transfer in [-1, 1]: a share in the continuous form, its sign in the discrete one."""
        p = self.task.params
        if self.lend or self.request_below is None or self.offer_above is None:
            return torch.full_like(on_hand, 1.0 if self.lend else 0.0)
        if p.lead_time == 0:
            on_hand = position
        offer = (on_hand - self.offer_above).clamp_min(0.0)
        request = (self.request_below - on_hand).clamp_min(0.0)
        can_give = on_hand.clamp(1.0, self.task.limit)
        can_take = (p.capacity - position).clamp(1.0, self.task.limit)
        return (offer / can_give - request / can_take).clamp(-1.0, 1.0)

    def _encode(self, level: Tensor, transfer: Tensor) -> Tensor:
        scale = self.task.level_scale
        if self.task.continuous:
            return torch.stack([(level / scale).clamp_max(1.0), transfer], -1)
        n_levels = self.task.order_levels().numel()
        index = (level * ((n_levels - 1) / scale)).round().clamp_max(n_levels - 1)
        return (3 * index + 1 - transfer.sign()).long()
