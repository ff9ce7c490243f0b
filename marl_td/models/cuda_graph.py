"""A compiled function's kernels, recorded as one CUDA graph and launched together from then on.

On a GPU a small network's kernel takes less time than its launch. A CUDA graph keeps the launches of a whole
call (all steps of a batch, or one update) with their arguments, which are addresses: inputs are copied to
where they were when it was recorded, and outputs copied from where the graph leaves them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

SWITCH = "MARL_TD_CUDA_GRAPHS"
"""Environment variable; 0 launches kernels one by one."""
WARM_UPS = 2
"""Calls before a function is recorded: kernels and libraries load when they are first called."""

T = TypeVar("T")


class CudaGraphWarning(UserWarning):
    """A function's kernels are launched one by one although a CUDA graph was wanted."""


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Every tensor in dictionaries and tuples, in their order."""
    if isinstance(value, Tensor):
        yield value
        return
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, Tensor):  # called before every update: a generator each takes longer
            yield inner
        else:
            yield from tensors_of(inner)


def can_be_recorded(args: Any) -> bool:
    """Whether a function of ``args`` is to be recorded: all is on a GPU, and :data:`SWITCH` is not 0."""
    on_gpu = all(tensor.device.type == "cuda" for tensor in tensors_of(args))
    return on_gpu and os.environ.get(SWITCH, "1") != "0"


def record(function: Callable[[], Any]) -> tuple[Callable[[], Any], Any]:
    """Record a call of ``function`` without running it.

    Returns:
        what runs it, with new random numbers each time; and its outputs, which every run writes anew.
    """
    graph = torch.cuda.CUDAGraph()
    # Other threads (a tracker's) may go on with what they do on the GPU.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        out = function()
    return graph.replay, out


class CudaGraph(Generic[T]):
    """A function of CUDA tensors, called as it is :data:`WARM_UPS` times and then replayed.

    Arguments that were the same memory in two calls, such as a replay buffer's storage, are read where they
    are; the others are copied. When one of the former moves, the function is recorded anew.

    Args:
        what: its name in the warning.
        function: takes and returns tensors in dictionaries and tuples. What else it reads does not change,
            or changes in place; it reads nothing back to the host, and changes no argument.
        lent: outputs are overwritten by the next call: nothing is copied. Otherwise they are the caller's.

    Warns:
        CudaGraphWarning: with the reason, if it cannot be recorded; it is called as it is then.
    """

    def __init__(self, what: str, function: Callable[..., T], *, lent: bool = False) -> None:
        self.what = what
        self.function = function
        self.lent = lent
        self.n_recorded = 0
        self.failed = False
        self._n_calls = 0
        # Arguments of the call before, held so that no address is used again.
        self._before: list[Tensor] = []
        self._places: list[Tensor] = []  # where the recorded call reads its arguments
        self._moves: list[bool] = []  # which of them are copied there
        self._replay: Callable[[], Any] | None = None
        self._out: Any = None

    def __call__(self, *args: Any) -> T:
        """Call it."""
        if self.failed:
            return self.function(*args)
        leaves = list(tensors_of(args))
        if self._n_calls < WARM_UPS:
            self._n_calls += 1
            self._before = leaves
            return self.function(*args)
        replay = self._replay if self._in_place(leaves) else self._record(args, leaves)
        if replay is None:
            return self.function(*args)
        self._fill(leaves)
        replay()
        return self._out if self.lent else tree_map(copied, self._out)

    def _in_place(self, leaves: list[Tensor]) -> bool:
        """Whether it is recorded, and the arguments that are read where they are, are there."""
        return self._replay is not None and all(
            moves or leaf.data_ptr() == place.data_ptr()
            for moves, leaf, place in zip(self._moves, leaves, self._places, strict=True)
        )

    def _record(self, args: Any, leaves: list[Tensor]) -> Callable[[], Any] | None:
        """Record a call with ``args``, those that moved since the last one in places of their own."""
        before = self._places or self._before
        # A place of its own is another than an argument's: what has moved once is copied from then on.
        self._moves = [a.data_ptr() != b.data_ptr() for a, b in zip(leaves, before, strict=True)]
        pairs = zip(self._moves, leaves, strict=True)
        self._places = [copied(leaf) if moves else leaf for moves, leaf in pairs]
        placed = tree_unflatten(self._places, tree_flatten(args)[1])
        self._before, self._replay, self._out = [], None, None  # what is freed may be used again
        try:
            self._replay, self._out = record(lambda: self.function(*placed))
        except RuntimeError as error:
            self.failed, self._places = True, []
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(
                f"the {self.what} is not a CUDA graph: {reason}. Set {SWITCH}=0 to do without.",
                CudaGraphWarning,
                stacklevel=3,
            )
        else:
            self.n_recorded += 1
        return self._replay

    def _fill(self, leaves: Iterable[Tensor]) -> None:
        """Copy the arguments that move to their places, those of a type in one kernel."""
        pairs: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        for moves, leaf, place in zip(self._moves, leaves, self._places, strict=True):
            if moves:
                places, values = pairs.setdefault(leaf.dtype, ([], []))
                places.append(span(place))
                values.append(span(leaf))
        for places, values in pairs.values():
            torch._foreach_copy_(places, values)


def span(value: Tensor) -> Tensor:
    """The memory of ``value`` from its first number to its last, ``[n]``."""
    steps = zip(value.shape, value.stride(), strict=True)
    n = 1 + sum((size - 1) * stride for size, stride in steps) if value.numel() else 0
    return value.detach().as_strided((n,), (1,))


def copied(value: Tensor) -> Tensor:
    """A copy of ``value`` with its strides, whatever they are: graphs are made for them."""
    return span(value).clone().as_strided(value.shape, value.stride(), 0)
