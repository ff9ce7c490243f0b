"""When to compile, and what to say when something cannot be."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from marl_td.models.cuda_graph import CudaGraph, can_be_recorded, tensors_of
from marl_td.models.fast_tanh import own_graph
from marl_td.models.products import by_onednn, onednn_is_faster
from marl_td.models.random_order import allow_ordered_draws

MODES = ("auto", "on", "off")
OLDEST_TORCH = (2, 13)
"""Loops in graphs and gradients taken inside them: earlier versions have not all that is needed."""

T = TypeVar("T")

# What a graph reads beside its arguments never changes, and the arguments' shapes are told apart before the
# call: checking hundreds of attributes and tensors every time takes as long as a small network.
NO_GUARDS: dict[str, Any] = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
FROM_PYTHON: dict[str, Any] = {
    **NO_GUARDS,
    # A loop's body is part of the graph, and so of the key in the cache on disk.
    "unsafe_marked_cacheable_functions": {"torch.ops.higher_order.scan": torch.__version__},
}
FROM_CPP: dict[str, Any] = {
    **FROM_PYTHON,
    # A small network's kernel takes as long as a call of it from Python.
    "cpp_wrapper": True,
    "cpp_wrapper_build_separate": True,
}
# On the CPU Inductor draws a whole vector of 16 numbers for each innermost row, even if that has two: torch's
# own functions are several times faster there, and give uncompiled code's numbers.
TORCHS_RANDOM: dict[str, Any] = {"fallback_random": True}


class NotCompilable(Exception):
    """A component that cannot be part of a compiled graph; the message names it and says why."""


class CompileWarning(UserWarning):
    """Something runs uncompiled although compilation was asked for."""


def is_worthwhile(mode: str, n_calls: int, n_calls_to_pay: int) -> bool:
    """Whether to compile what will be called ``n_calls`` times.

    Args:
        mode: ``"on"``, ``"off"``, or ``"auto"``, which compiles from ``n_calls_to_pay`` calls on: the number
            after which compiling has paid for itself.
        n_calls: how often it will be called.
        n_calls_to_pay: see ``mode``.

    Raises:
        ValueError: for another mode.
    """
    if mode not in MODES:
        raise ValueError(f"compile must be one of {', '.join(MODES)}; got '{mode}'.")
    return mode == "on" or (mode == "auto" and n_calls >= n_calls_to_pay)


def compiled_or_none(what: str, build: Callable[[], T]) -> T | None:
    """What ``build`` makes, or None with a warning that names what cannot be compiled and why."""
    try:
        _require_torch()
        return build()
    except NotCompilable as reason:
        warnings.warn(f"the {what} is not compiled: {reason}.", CompileWarning, stacklevel=3)
        return None


def _require_torch() -> None:
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise NotCompilable(f"it takes torch {oldest} or newer; torch {torch.__version__} is here")


class Compiled(Generic[T]):
    """A function that runs as one compiled graph, or as it is if the first call finds that it cannot.

    There is one graph for each combination of shapes, strides and types of the arguments (such as a last,
    smaller minibatch). On a GPU its kernels are launched together (:class:`CudaGraph`).

    Args:
        what: its name in the warning.
        function: takes and returns tensors in dictionaries and tuples; what else it reads never changes
            (tensors may, in place).
        backend: of ``torch.compile``.
        changed: gives the tensors that the function changes in place.
        lent: outputs may be overwritten by the next call.

    Warns:
        CompileWarning: with the reason, if it cannot be compiled.
        CudaGraphWarning: with the reason, if its kernels are launched one by one on a GPU.
    """

    def __init__(
        self,
        what: str,
        function: Callable[..., T],
        backend: str = "inductor",
        changed: Callable[[], Iterable[Tensor]] = tuple,
        lent: bool = False,
    ) -> None:
        self.what = what
        self.function = function
        self.backend = backend
        self.changed = changed
        self.lent = lent
        self.seconds = 0.0  # what first calls took
        self.graphs: dict[Any, Callable[..., T]] = {}

    def __call__(self, *args: Any) -> T:
        """Call it."""
        kind = tuple(_kinds(args))
        run = self.graphs.get(kind)
        if run is not None:
            return run(*args)
        start = time.perf_counter()
        try:
            return self._first(kind, *args)
        finally:
            self.seconds += time.perf_counter() - start

    def _first(self, kind: Any, *args: Any) -> T:
        """Compile and call; operations that cannot be called from C++ are called from Python."""
        from torch._dynamo.exc import TorchDynamoException  # slow to import

        allow_ordered_draws()
        records = can_be_recorded(args)
        ways = _ways(args, records) if self.backend == "inductor" else [NO_GUARDS]
        before = [tensor.detach().clone() for tensor in self.changed()]
        for options in ways:
            try:
                return self._compile(kind, options, records)(*args)
            except RuntimeError as error:
                # What fails while it runs may have changed something already.
                self._put_back(before)
                if options is not ways[-1]:
                    continue
                if not isinstance(error, TorchDynamoException):
                    raise
                reason = f"the {self.what} is not compiled: {_reason(error)}"
                warnings.warn(reason, CompileWarning, stacklevel=3)
        self.graphs[kind] = self.function
        return self.function(*args)

    def _compile(self, kind: Any, options: dict[str, Any], records: bool) -> Callable[..., T]:
        own = _own_code(self.function)
        compiled: Callable[..., T] = torch.compile(
            own, fullgraph=True, dynamic=False, backend=self.backend, options=options
        )
        graph = CudaGraph(self.what, compiled, lent=self.lent) if records else None

        def first(*args: Any) -> T:
            # torch 2.13 warns about parts of its own compiler.
            with own_graph(), warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                warnings.simplefilter("ignore", FutureWarning)
                # How exact products are is the user's choice, a GPU that could be less exact or not.
                warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
                out: T = (graph or compiled)(*args)
            direct = _direct(own, compiled)
            if graph is not None:
                graph.function = direct
            self.graphs[kind] = graph or direct
            return out

        return first

    @torch.no_grad()
    def _put_back(self, before: list[Tensor]) -> None:
        for tensor, value in zip(self.changed(), before, strict=True):
            tensor.copy_(value)


def _ways(args: tuple[Any, ...], records: bool) -> list[dict[str, Any]]:
    """Options of Inductor, the fastest first.

    What is recorded on a GPU runs without its wrapper: one in C++, which takes a CUDA toolkit and time to
    compile, would gain nothing.
    """
    if records:
        return [FROM_PYTHON]
    ways = [FROM_CPP, FROM_PYTHON]
    if all(tensor.device.type == "cpu" for tensor in tensors_of(args)):
        ways.insert(0, {**FROM_CPP, **TORCHS_RANDOM})
        if onednn_is_faster():
            ways.insert(0, {**ways[0], **by_onednn()})
    return ways


def _kinds(value: Any) -> Iterator[Any]:
    """Shape, strides and type of every tensor in dictionaries and tuples, in their order."""
    for tensor in tensors_of(value):
        yield tensor.shape, tensor.stride(), tensor.dtype


def _reason(error: BaseException) -> str:
    """The line of the message that says what was wrong; a loop's error first says where."""
    where, found, what = str(error).strip().partition("Got graph break/error:")
    return (what if found else where).strip().partition("\n")[0]


def _own_code(function: Callable[..., T]) -> FunctionType:
    """``function`` as a function with a code object of its own.

    Dynamo keeps graphs by code object: without guards another object's method would be taken for this.
    """

    def run(*args: Any) -> T:
        return function(*args)

    code = run.__code__.replace(co_name=run.__code__.co_name)
    return FunctionType(code, run.__globals__, run.__name__, None, run.__closure__)


def _direct(own: FunctionType, compiled: Callable[..., T]) -> Callable[..., T]:
    """What Dynamo has made of ``own``, as a plain function.

    On the way through ``compiled`` Dynamo looks whether it should compile, which takes 0.3 ms a call. Where
    it keeps its result otherwise than torch 2.13 does, that way is taken.
    """
    from torch._dynamo.eval_frame import _debug_get_cache_entry_list

    codes = [entry.code for entry in _debug_get_cache_entry_list(own.__code__)]
    if len(codes) == 1 and codes[0].co_freevars == own.__code__.co_freevars:
        known = own.__globals__
        names = {n: known[n] for n in (*codes[0].co_names, "__builtins__") if n in known}
        return FunctionType(codes[0], names, own.__name__, None, own.__closure__)

    def checked(*args: Any) -> T:
        with torch.compiler.set_stance(skip_guard_eval_unsafe=True):
            return compiled(*args)

    return checked
