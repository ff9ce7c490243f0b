"""What every loss shell shares: keys, squeezing, masked reduction, detached metrics."""

import difflib
import inspect
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey, unravel_key
from torch import Tensor, nn
from torchrl.objectives import LossModule

from marl_td.losses.functional.checks import check_bool


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

    def __new__(cls, *args: Any, **options: Any) -> "MultiAgentLoss":
        """Look at the names of arguments, which Python would blame on the base that collects them.

        Raises:
            TypeError: naming what is close to one that this loss does not take.
        """
        constructors = [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)]
        # A constructor of somebody else's may take names out of its options.
        ours = constructors[0].__module__.startswith(f"{__package__}.")
        taken = [inspect.signature(constructor).parameters for constructor in constructors]
        known = {name for names in taken for name in names} - {"self", "options", "args", "kwargs"}
        for name in options if ours else ():
            if name not in known:
                raise TypeError(f"{cls.__name__} has no argument '{name}'. {_closest(name, known)}")
        return super().__new__(cls, *args, **options)

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

    def set_keys(self, **keys: NestedKey | None) -> None:
        """Point the loss at other entries, by the names in ``_AcceptedKeys``; None for the default.

        Raises:
            ValueError: naming what is close to a name that this loss does not have.
        """
        defaults = self._AcceptedKeys()
        known = [field.name for field in fields(defaults)]
        for name in keys:
            if name not in known:
                raise ValueError(
                    f"{type(self).__name__} has no key '{name}'. {_closest(name, known)}"
                )
        for name, key in keys.items():
            entry = getattr(defaults, name) if key is None else unravel_key(_as_tuple(key))
            setattr(self.tensor_keys, name, entry)

    def set_group(self, group: str) -> None:
        """Read and write the entries of ``group`` wherever a key lies in ``"agents"``, masks included.

        What networks and mixers read is theirs to know; keys that lie elsewhere stay.

        Raises:
            TypeError: if ``group`` is no name.
        """
        if not isinstance(group, str):
            raise TypeError(f"`group` must be a name; got {group!r}.")
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


class MissingEntry(KeyError):
    """A key that is not there. Of a plain ``KeyError`` the message is shown with its quotes escaped."""

    def __str__(self) -> str:
        return str(self.args[0])


def require(tensordict: TensorDictBase, key: NestedKey) -> Tensor:
    """The entry at ``key``, as it is.

    Raises:
        KeyError: naming the missing key and how to point the loss elsewhere.
    """
    value = tensordict.get(key, None)
    if value is None:
        raise MissingEntry(
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


def flag(tensordict: TensorDictBase, key: NestedKey) -> Tensor | None:
    """The mask at ``key``, as it is; None if there is none.

    Raises:
        TypeError: if it is not bool.
    """
    value = tensordict.get(key, None)
    if value is not None and value.dtype != torch.bool:
        # The entry may be that of a batch's "next", of which this knows nothing.
        inside = not isinstance(key, str) and key[0] != "next"
        also = "` and the one under `next" if inside else ""
        check_bool(f"{key}{also}", value)
    return value


def living(tensordict: TensorDictBase, key: NestedKey) -> Tensor | None:
    """Who lives, bool ``[*B, n_agents]``, at ``key`` of a batch ``[*B]``; None if nobody dies.

    Raises:
        TypeError: if it is not bool.
        ValueError: if it has a trailing 1.
    """
    alive = flag(tensordict, key)
    if alive is not None and alive.ndim == tensordict.ndim + 2 and alive.shape[-1] == 1:
        raise ValueError(
            f"`{key}` must be [*B, n_agents]; got {tuple(alive.shape)}. Squeeze its trailing 1."
        )
    return alive


def read_flag(tensordict: TensorDictBase, key: NestedKey) -> Tensor:
    """An end at ``key`` without its trailing 1, bool.

    Raises:
        KeyError: as :func:`require`.
        TypeError: if it is not bool.
    """
    value = read(tensordict, key)
    check_bool(key, value)
    return value


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
    """Output ``key`` of ``module`` on ``tensordict``, which is left unchanged.

    Raises:
        KeyError: if the module does not write it.
    """
    check_written(module, key)
    return module(tensordict.copy()).get(key)


def check_written(module: TensorDictModuleBase, *keys: NestedKey) -> None:
    """Raise unless ``module`` writes ``keys``: else what the batch has there would be taken for its output.

    Raises:
        KeyError: naming what it writes.
    """
    for key in keys:
        if key not in module.out_keys:
            raise MissingEntry(
                f"a network must write {key!r}; {type(module).__name__} writes {list(module.out_keys)}. "
                "Name it so in the network's `out_keys`, or tell the loss with `set_keys`."
            )


def next_of(tensordict: TensorDictBase) -> TensorDictBase:
    """What the steps of a batch reached.

    Raises:
        KeyError: if the batch does not say.
    """
    following = tensordict.get("next", None)
    if following is None:
        raise MissingEntry(
            "the batch has no entry 'next' with what each step reached, as TorchRL's collectors write it; it "
            f"holds {sorted(map(str, tensordict.keys()))}."
        )
    return following


def _closest(name: str, known: Iterable[str]) -> str:
    """A sentence that helps after a typo: the closest known names, or all of them."""
    close = difflib.get_close_matches(name, known, n=3)
    return (
        f"Did you mean {' or '.join(map(repr, close))}?" if close else f"Known: {', '.join(known)}."
    )


def _as_tuple(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key
