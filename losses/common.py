"""What every loss shell shares: keys, squeezing, masked reduction, detached metrics."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.objectives import LossModule


class MultiAgentLoss(LossModule):
    """Base of the loss shells.

    A subclass lists its keys in ``_AcceptedKeys``, its ``out_keys``, and implements :meth:`compute`, which
    reads a batch and returns named scalars. ``compute`` works on real modules and plain tensors only and is
    what gets compiled (``torch.compile(loss.compute, fullgraph=True)``); :meth:`forward` only wraps it.

    Losses start with ``loss_`` and carry gradients; every other entry is a detached metric. Two losses
    never share a graph, so that a trainer may call ``backward`` on each by itself. One entry need not be a
    scalar: ``"priority"``, the absolute TD errors ``[*B, n_agents]`` (a trailing 1 may follow). ``forward``
    writes them into the batch, and beside them what prioritised replay reads: :meth:`item_priority`.
    """

    @dataclass
    class _AcceptedKeys:
        """Keys of the batch; nested keys are allowed."""

    out_keys: ClassVar[list[str]]
    target_period: int
    """Optimiser steps from one move of the target networks to the next."""
    delays: dict[str, int]
    """Named losses whose optimisers step at every so-manieth optimiser step only; the others at each.

    Such a loss has target networks: the steps are counted with theirs.
    """
    not_compilable: ClassVar[str | None] = None
    """Why a whole update cannot be one graph, as the end of a sentence; None if it can."""

    def __init__(self) -> None:
        super().__init__()
        self.delays = {}
        self.target_period = 1
        self._in_keys: list[NestedKey] | None = None

    def compute(self, tensordict: TensorDictBase) -> dict[str, Tensor]:
        """The loss itself: named scalars from a batch ``[*B]``."""
        raise NotImplementedError

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Losses and metrics as a TensorDict of scalars."""
        values = self.compute(tensordict)
        if "priority" in values:
            error = values.pop("priority").detach()
            tensordict.set(self.tensor_keys.priority, error)
            self._write_item_priority(tensordict, self.item_priority(tensordict, error))
        scalars = {
            key: value if key.startswith("loss_") else value.detach()
            for key, value in values.items()
        }
        return TensorDict(scalars, batch_size=[])

    def item_priority(self, tensordict: TensorDictBase, error: Tensor) -> Tensor:
        """How soon each replayed item should come again: one number ``[n_items]`` per row of the batch.

        Args:
            tensordict: the batch.
            error: ``"priority"`` of :meth:`compute`.
        """
        raise NotImplementedError

    def _write_item_priority(self, tensordict: TensorDictBase, priority: Tensor) -> None:
        """The same number for all agents and steps of an item, so that any reduction gives it back."""
        key = self.tensor_keys.item_priority
        holder = tensordict if isinstance(key, str) else tensordict.get(key[:-1], tensordict)
        shape = (*holder.batch_size, 1)
        ones = [1] * (len(shape) - priority.ndim)
        tensordict.set(key, priority.reshape(*priority.shape, *ones).expand(shape))

    def target_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """``(source, target)`` networks for :class:`marl_td.losses.targets.TargetUpdater`."""
        return []

    def set_group(self, group: str) -> None:
        """Read and write the entries of ``group`` wherever a key lies in ``"agents"``, masks included.

        What networks and mixers read is theirs to know; keys that lie elsewhere stay.
        """
        keys = {
            field.name: getattr(self.tensor_keys, field.name)
            for field in fields(self._AcceptedKeys)
        }
        inside = {n: k[1:] for n, k in keys.items() if not isinstance(k, str) and k[0] == "agents"}
        self.set_keys(**{name: (group, *rest) for name, rest in inside.items()})

    def set_learning_rate(self, lr: float) -> None:
        """Follow the trainer's learning rate; for losses that move networks by themselves."""

    @property
    def in_keys(self) -> list[NestedKey]:
        """The keys of the batch that this loss may read."""
        return [getattr(self.tensor_keys, field.name) for field in fields(self._AcceptedKeys)]

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        """Value estimates are computed by the loss's own functions; nothing to forward."""


def require(tensordict: TensorDictBase, key: NestedKey) -> Tensor:
    """The entry at ``key``, as it is.

    Raises:
        KeyError: naming the missing key and how to point the loss elsewhere.
    """
    value = tensordict.get(key, None)
    if value is None:
        raise KeyError(
            f"the batch has no entry {key!r}; it holds {sorted(map(str, tensordict.keys(True, True)))}. "
            "Point the loss at the right entry with `set_keys`."
        )
    return value


def read(tensordict: TensorDictBase, key: NestedKey) -> Tensor:
    """The entry at ``key`` without its trailing 1: ``[*B, n_agents, 1]`` becomes ``[*B, n_agents]``.

    Raises:
        KeyError: as :func:`require`.
    """
    return require(tensordict, key).squeeze(-1)


def masked_mean(value: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of ``value`` ``[*B]`` over the entries where ``mask`` ``[*B]`` is true (all if None).

    An all-false mask gives 0, with zero gradient.
    """
    if mask is None:
        return value.mean()
    weight = mask.to(value.dtype)
    total = torch.where(mask, value, torch.zeros_like(value)).sum()
    return total / weight.sum().clamp(min=1.0)


def next_key(key: NestedKey) -> NestedKey:
    """``key`` under ``"next"``."""
    return ("next", key) if isinstance(key, str) else ("next", *key)


def run(module: TensorDictModuleBase, tensordict: TensorDictBase, key: NestedKey) -> Tensor:
    """Output ``key`` of ``module`` on ``tensordict``, which is left unchanged."""
    return module(tensordict.copy()).get(key)


def action_distribution(layers: Iterable[Any], head: Any, tensordict: TensorDictBase) -> Any:
    """The distribution that ``head`` makes of what ``layers`` write; ``tensordict`` is left unchanged."""
    inputs = tensordict.copy()
    for layer in layers:
        inputs = layer(inputs)
    return head.get_dist(inputs)
