"""When to compile, and what to say when something cannot be."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any, Generic, TypeVar

import torch

MODES = ("auto", "on", "off")

T = TypeVar("T")

# Only shapes may change (a last, smaller minibatch). Checking hundreds of attributes costs more than small
# networks do, and TensorDict's memo of classes grows at any time.
GUARDS: dict[str, Any] = {"guard_filter_fn": torch.compiler.keep_tensor_guards_unsafe}
OPTIONS: dict[str, Any] = {
    **GUARDS,
    # Kernels called from C++: a small network's kernel takes as long as a call from Python.
    "cpp_wrapper": True,
    "cpp_wrapper_build_separate": True,
    # Its body is part of the graph, and so of the key in the cache on disk.
    "unsafe_marked_cacheable_functions": {"torch.ops.higher_order.scan": torch.__version__},
}


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
        return build()
    except NotCompilable as reason:
        warnings.warn(f"the {what} is not compiled: {reason}.", CompileWarning, stacklevel=3)
        return None


class Compiled(Generic[T]):
    """A function that runs as one compiled graph, or as it is if the first call finds that it cannot.

    Args:
        what: its name in the warning.
        function: takes and returns tensors in plain containers; what else it reads never changes (tensors
            may, in place).
        backend: of ``torch.compile``.

    Warns:
        CompileWarning: with the reason, if it cannot be compiled.
    """

    def __init__(self, what: str, function: Callable[..., T], backend: str = "inductor") -> None:
        self.what = what
        self.function = function
        self.called = False
        self.seconds = 0.0  # what the first call took
        self._run: Callable[..., T] = torch.compile(
            _own_code(function),
            fullgraph=True,
            dynamic=False,
            backend=backend,
            options=OPTIONS if backend == "inductor" else GUARDS,
        )

    def __call__(self, *args: Any) -> T:
        """Call it."""
        if self.called:
            return self._run(*args)
        self.called = True
        start = time.perf_counter()
        try:
            return self._first(*args)
        finally:
            self.seconds = time.perf_counter() - start

    def _first(self, *args: Any) -> T:
        from torch._dynamo.exc import TorchDynamoException  # slow to import

        try:
            with warnings.catch_warnings():  # torch 2.13 warns about parts of its own compiler
                warnings.simplefilter("ignore", DeprecationWarning)
                warnings.simplefilter("ignore", FutureWarning)
                return self._run(*args)
        except TorchDynamoException as error:
            reason = _reason(error)
            warnings.warn(
                f"the {self.what} is not compiled: {reason}", CompileWarning, stacklevel=3
            )
            self._run = self.function
            return self.function(*args)


def _reason(error: BaseException) -> str:
    """The line of the message that says what was wrong; a loop's error first says where."""
    where, found, what = str(error).strip().partition("Got graph break/error:")
    return (what if found else where).strip().partition("\n")[0]


def _own_code(function: Callable[..., T]) -> Callable[..., T]:
    """``function`` as a function with a code object of its own.

    Dynamo keeps compiled graphs by code object, a few for each: methods of many objects would share them,
    look through each other's guards and soon reach the limit.
    """

    def run(*args: Any) -> T:
        return function(*args)

    code = run.__code__.replace(co_name=run.__code__.co_name)
    return FunctionType(code, run.__globals__, run.__name__, None, run.__closure__)
