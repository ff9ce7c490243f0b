"""One agent's share of the modules that policies are made of: heads, bounds, indices, roles.

All work on tensors ``[B, 1, ...]``: a group of one agent. Parameters are copies; the policy that they come
from stays as it is (exporting TorchRL's multi-agent networks themselves leaves them on the meta device).
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from marl_td.losses.functional.action_values import mask_unavailable
from marl_td.losses.functional.counterfactual import floored_log_probability
from marl_td.models.belief import BeliefContext
from marl_td.models.grouped import GroupedLayerNorm, GroupedLinear
from marl_td.models.heads import BoundedAction, finite
from marl_td.models.inputs import AgentContext
from marl_td.models.sub_policies import played


class NotExportable(ValueError):
    """The policy cannot act decentralised, or has a part of which it is not known how."""


def own_copy(module: nn.Module, agent: int) -> nn.Module:
    """``module`` for the agent with this index alone: its layers, its bounds, its index."""
    out = deepcopy(module).cpu().eval().requires_grad_(False)
    for part in out.modules():
        if isinstance(part, GroupedLinear | GroupedLayerNorm):
            for name in ("weight", "bias"):
                value = getattr(part, name)
                if value.shape[0] > 1:
                    setattr(part, name, fixed_parameter(_row(value, agent)))
        elif isinstance(part, AgentContext):
            part.identity = _row(part.identity, agent)
        elif isinstance(part, BeliefContext):
            part.others = _row(part.others, agent)
        elif isinstance(part, BoundedAction):
            part.low, part.high = own_bounds(part.low, agent), own_bounds(part.high, agent)
    return out


def own_bounds(bound: Tensor, agent: int) -> Tensor:
    """Bounds ``[1, d]`` or ``[1, 1]`` of one agent, from ``[n_agents, d]``, ``[d]`` or a number."""
    bound = bound.detach().cpu()
    bound = bound.reshape(-1, bound.shape[-1]) if bound.ndim else bound.reshape(1, 1)
    return _row(bound, agent) if bound.shape[0] > 1 else bound.clone()


def _row(value: Tensor, agent: int) -> Tensor:
    return value[agent : agent + 1].detach().clone()


def fixed_parameter(value: Tensor) -> nn.Parameter:
    """A copy of ``value`` as a parameter that is not trained."""
    return nn.Parameter(value.detach().cpu().clone(), requires_grad=False)


class BestAction(nn.Module):
    """The available action of the largest score, and the scores.

    Args:
        logits: scores are logits: what is not a number counts as policies count it.
    """

    def __init__(self, logits: bool) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, scores: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Action ``[B, 1]`` and scores ``[B, 1, n]``, the lowest number for what is not available."""
        scores = mask_unavailable(finite(scores) if self.logits else scores, mask)
        return scores.argmax(-1), scores


class FlooredAction(nn.Module):
    """The same for a softmax with a floor under every action: scores are logarithms of probabilities.

    Args:
        eps: the floor's share of the probability, in [0, 1].
    """

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.best = BestAction(logits=False)

    def forward(self, logits: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Action ``[B, 1]`` and scores ``[B, 1, n]``."""
        if self.eps > 0.0:
            return self.best(floored_log_probability(finite(logits), mask, self.eps), mask)
        return self.best(mask_unavailable(finite(logits), mask).log_softmax(-1), mask)


class SquashedMean(nn.Module):
    """The deterministic action of a ``TanhNormal``: its mean, squashed into the bounds.

    Args:
        low: lower bounds ``[1, d]``.
        high: upper bounds, likewise.
    """

    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.register_buffer("low", low.clone())
        self.register_buffer("high", high.clone())

    def forward(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Action, and what actions are drawn from: mean and standard deviation before the squashing."""
        limit = 1.0 - torch.finfo(loc.dtype).resolution  # TorchRL keeps the tanh invertible
        inside = torch.tanh(loc).clamp(-limit, limit)
        return (self.high + self.low) / 2 + inside * ((self.high - self.low) / 2), loc, scale


class Mean(nn.Module):
    """The deterministic action of a normal distribution: its mean."""

    def forward(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Action, mean and standard deviation."""
        return loc.clone(), loc, scale


class Role(nn.Module):
    """The role that an agent plays where nothing is explored: the mean of its distribution."""

    def __init__(self, distribution: nn.Module) -> None:
        super().__init__()
        self.distribution = distribution

    def forward(self, seen: Tensor) -> Tensor:
        """Role ``[B, 1, d_role]``."""
        mean, _ = self.distribution(seen)
        return mean


class RoleLayer(nn.Module):
    """The last layer, made from a role."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head = head

    def forward(self, trajectory: Tensor, role: Tensor) -> Tensor:
        """Output ``[B, 1, d_out]``."""
        return self.head.value(trajectory, role)


class Played(nn.Module):
    """Of the values of several networks that of the one which plays."""

    def forward(self, index: Tensor, *values: Tensor) -> Tensor:
        """The value of network ``index`` ``[B, 1]``."""
        return played(values, index)


def unknown_part(group: str, part: object) -> NotExportable:
    """The error for a part of a policy of which it is not known whether it treats agents one by one."""
    return NotExportable(
        f"the part '{type(part).__name__}' of the policy of group '{group}' cannot be exported: it is not "
        "known whether it needs the observations of other agents."
    )
