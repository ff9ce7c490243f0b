"""Calls recorded as a CUDA graph records them, without a GPU: operations with the memory they work on.

What a recorded call reads on the host, or makes anew in Python at every call, is in the record as it was
once: :func:`record` shows on the CPU what a graph would compute on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HOST = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
"""Operations whose results, or the shapes of them, the host has to know."""


def waits(func: Any, args: Any) -> bool:
    """Whether a GPU would have to be waited for; of indices, only those that are true or false need it."""
    if func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put_):
        return any(index is not None and index.dtype == torch.bool for index in args[1])
    return bool(set(HOST) & set(func.tags))


class Tape(TorchDispatchMode):
    """Keeps every operation, and what was in memory before those that change something."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if waits(func, args):
            raise RuntimeError(f"{func} waits for the device")
        kwargs = kwargs or {}
        for argument in func._schema.arguments:
            position = func._schema.arguments.index(argument)
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            if argument.alias_info is not None and argument.alias_info.is_write:
                changed = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
                self.before += [(tensor, tensor.clone()) for tensor in changed]
        out = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, out))
        return out

    @torch.no_grad()
    def rewind(self) -> None:
        """Undo all changes."""
        for tensor, value in reversed(self.before):
            tensor.copy_(value)
        self.before = []

    @torch.no_grad()
    def replay(self) -> None:
        """Run every operation again, with results where they were."""
        for func, args, kwargs, out in self.calls:
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def record(function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """In the place of :func:`marl_td.models.cuda_graph.record`: nothing is changed, nothing drawn."""
    drawn = torch.get_rng_state()
    tape = Tape()
    with tape:
        out = function()
    tape.rewind()
    torch.set_rng_state(drawn)
    return tape.replay, out
