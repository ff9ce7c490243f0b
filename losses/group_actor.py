"""The actor of one group of agents, and its actions in the form that critics take."""

from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from marl_td.losses.arguments import check_modules, kind_of
from marl_td.losses.entries import check_written, flag, require
from marl_td.losses.functional.action_values import mask_unavailable, one_hot_action
from marl_td.losses.functional.checks import (
    ONE_HOT,
    check_count,
    check_floats,
    check_indices,
    check_positive,
    named_range,
)
from marl_td.losses.functional.deterministic import gumbel_noise, smoothing_noise, straight_through
from marl_td.losses.functional.distributions import categorical_entropy


class GroupActor(nn.Module):
    """A deterministic actor (continuous), or logits made differentiable by Gumbel-softmax (discrete).

    Critics take discrete actions as one-hot vectors and continuous ones scaled from their bounds to
    ``[-action_scale, action_scale]`` (as they are if no bounds are given): an action that moves in a narrow
    range beside wide observations would be hard to tell apart for a critic.

    Args:
        network: reads ``(group, "observation")``. Continuous: writes ``(group, "action")``
            ``[*B, n_agents, d_action]``, and ``(group, "parameter")`` of that shape before the bound, if the
            loss regularises it. Discrete: writes ``(group, "logits")`` ``[*B, n_agents, n_actions]``.
        group: name of the group in the batch.
        n_actions: number of discrete actions; None for continuous ones.
        temperature: of the Gumbel-softmax, > 0; discrete actions only.
        bounds: ``(low, high)`` of continuous actions, each ``[n_agents, d_action]`` or broadcastable to it.
        action_scale: half range of the scaled actions, > 0.

    Raises:
        TypeError: if ``network`` is no TensorDictModule, or ``bounds`` are no tensors.
        ValueError: if ``temperature``, ``action_scale`` or ``n_actions`` is out of range, or a lower bound is
            not below its upper one.
    """

    middle: Tensor | None
    half_range: Tensor | None

    def __init__(
        self,
        network: TensorDictModuleBase,
        group: str = "agents",
        *,
        n_actions: int | None = None,
        temperature: float = 1.0,
        bounds: tuple[Tensor, Tensor] | None = None,
        action_scale: float = 1.0,
    ) -> None:
        super().__init__()
        check_modules(network=network)
        check_positive(temperature=temperature, action_scale=action_scale)
        if n_actions is not None:
            check_count(n_actions=n_actions)
        middle = half_range = None
        if bounds is not None:
            middle, half_range = _middle_and_half(*bounds)
            half_range = half_range / action_scale
        self.register_buffer("middle", middle)
        self.register_buffer("half_range", half_range)
        self.network = network
        self.group = group
        self.n_actions = n_actions
        self.temperature = temperature
        self.action_scale = action_scale

    @property
    def discrete(self) -> bool:
        """Whether the actions are discrete."""
        return self.n_actions is not None

    def taken(self, tensordict: TensorDictBase) -> Tensor:
        """Actions in the batch, as a critic takes them: ``[*B, n_agents, d_action or n_actions]``.

        Raises:
            IndexError: for an index out of range; in a compiled graph that gives zeros.
            KeyError: if the batch has no action of this group.
            TypeError: if discrete actions are no indices, or continuous ones no floats.
            ValueError: for one-hot rows.
        """
        key = (self.group, "action")
        action = require(tensordict, key)
        if self.n_actions is None:
            check_floats(key, action)
            if action.ndim != tensordict.ndim + 2:
                raise ValueError(
                    f"`{key}` must be [*B, n_agents, d_action]; got {tuple(action.shape)}."
                )
            return self._scaled(action)
        if action.ndim > tensordict.ndim + 1:
            raise ValueError(
                f"`{key}` must be [*B, n_agents], one index each; got {tuple(action.shape)}. {ONE_HOT}"
            )
        if torch.compiler.is_compiling():
            return one_hot_action(action, self.n_actions)
        check_indices(key, action)
        rows = torch.zeros(*action.shape, self.n_actions, device=action.device)
        with named_range(self.n_actions):
            return rows.scatter(-1, action.unsqueeze(-1), 1.0)

    def forward(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor | None]:
        """Fresh actions ``[*B, n_agents, d_action or n_actions]``, and what made them.

        Discrete actions are sampled from the softmax of the logits and carry its gradient.

        Returns:
            action and the logits, or the parameter before the bound if the network writes one.
        """
        out = self._out(tensordict, "action" if self.n_actions is None else "logits")
        if self.n_actions is None:
            action = self._scaled(out.get((self.group, "action")))
            return action, out.get((self.group, "parameter"), None)
        logits = out.get((self.group, "logits"))
        action = straight_through(
            logits, self._mask(tensordict), gumbel_noise(logits), temperature=self.temperature
        )
        return action, logits

    def policy(self, tensordict: TensorDictBase) -> Tensor:
        """The policy itself, without a sample: actions as critics take them, or the logits if discrete."""
        out = self._out(tensordict, "logits" if self.discrete else "action")
        if self.discrete:
            return out.get((self.group, "logits"))
        return self._scaled(out.get((self.group, "action")))

    def _out(self, tensordict: TensorDictBase, *names: str) -> TensorDictBase:
        """What the network writes, the entries ``names`` of the group among it."""
        check_written(self.network, *((self.group, name) for name in names))
        return self.network(tensordict.copy())

    def smoothed(self, tensordict: TensorDictBase, *, sigma: float, clip: float) -> Tensor:
        """Fresh continuous actions with clipped Gaussian noise, clamped to their bounds.

        Discrete actions are samples already and get no more noise.

        Args:
            tensordict: as for :meth:`forward`.
            sigma: standard deviation of the noise, as a share of half the range (of 1 without bounds).
            clip: largest noise, likewise.
        """
        action, _ = self(tensordict)
        if self.discrete:
            return action
        scale = self.action_scale if self.is_bounded else 1.0
        noisy = action + smoothing_noise(action, sigma=sigma * scale, clip=clip * scale)
        return noisy.clamp(-scale, scale) if self.is_bounded else noisy

    @property
    def is_bounded(self) -> bool:
        """Whether the bounds of the continuous actions are known."""
        return self.middle is not None

    def probabilities(self, tensordict: TensorDictBase, logits: Tensor) -> Tensor:
        """The discrete policy, ``[*B, n_agents, n_actions]``; 0 for actions that are not available."""
        return mask_unavailable(logits, self._mask(tensordict)).softmax(-1)

    def entropy(self, tensordict: TensorDictBase, logits: Tensor) -> Tensor:
        """Entropy ``[*B, n_agents]`` in nats of the discrete policy."""
        return categorical_entropy(logits, self._mask(tensordict))

    def _scaled(self, action: Tensor) -> Tensor:
        if self.middle is None or self.half_range is None:
            return action
        return (action - self.middle) / self.half_range

    def _mask(self, tensordict: TensorDictBase) -> Tensor | None:
        return flag(tensordict, (self.group, "action_mask"))


def _middle_and_half(low: Any, high: Any) -> tuple[Tensor, Tensor]:
    """Middle and half range of bounds."""
    for bound in (low, high):
        if not isinstance(bound, Tensor):
            raise TypeError(f"`bounds` must be two tensors; got {kind_of(bound)}.")
    middle, half = (high + low) / 2, (high - low) / 2
    # Tensors that only stand for a device have no values.
    if not half.is_meta and not bool(((half > 0.0) & half.isfinite()).all()):
        raise ValueError(
            "`bounds` must be finite, low below high; got "
            f"low in [{low.min():g}, {low.max():g}], high in [{high.min():g}, {high.max():g}]."
        )
    return middle, half
