"""What every loss shell shares: keys, outputs, detached metrics, messages after a typo."""

import difflib
import inspect
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey, unravel_key, unravel_key_list
from torch import Tensor, nn
from torchrl.objectives import LossModule


class _OutKeys(property):
    """``out_keys`` of modules that their class answers, too."""

    def __get__(self, loss: Any, owner: Any = None) -> Any:
        return owner._out_keys if loss is None else super().__get__(loss, owner)


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

    def __init_subclass__(cls, **options: Any) -> None:
        """Keep ``out_keys`` readable for subclasses: TensorDict's modules put a property in their place."""
        super().__init_subclass__(**options)
        if "out_keys" in vars(cls):
            cls._out_keys = cls._out_keys_apparent = unravel_key_list(cls.out_keys)
            theirs: Any = TensorDictModuleBase.out_keys
            ours: Any = _OutKeys(theirs.fget, theirs.fset)
            cls.out_keys = ours

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
        self._group = "agents"

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

        What networks and mixers read is theirs to know; keys that lie elsewhere stay. Called again, it moves
        those that lie in the group named before.

        Raises:
            TypeError: if ``group`` is no name.
        """
        if not isinstance(group, str):
            raise TypeError(f"`group` must be a name; got {group!r}.")
        keys = {
            field.name: getattr(self.tensor_keys, field.name)
            for field in fields(self._AcceptedKeys)
        }
        before, self._group = self._group, group
        inside = {n: k[1:] for n, k in keys.items() if not isinstance(k, str) and k[0] == before}
        self.set_keys(**{name: (group, *rest) for name, rest in inside.items()})

    def set_learning_rate(self, lr: float) -> None:
        """Follow the trainer's learning rate; for losses that move networks by themselves."""

    @property
    def in_keys(self) -> list[NestedKey]:
        """The keys of the batch that this loss may read."""
        return [getattr(self.tensor_keys, field.name) for field in fields(self._AcceptedKeys)]

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        """Value estimates are computed by the loss's own functions; nothing to forward."""


def _closest(name: str, known: Iterable[str]) -> str:
    """A sentence that helps after a typo: the closest known names, or all of them."""
    close = difflib.get_close_matches(name, known, n=3)
    return (
        f"Did you mean {' or '.join(map(repr, close))}?" if close else f"Known: {', '.join(known)}."
    )


def _as_tuple(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key
