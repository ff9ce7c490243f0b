"""A simulator's step, which changes objects in place, as one pure graph of tensor operations.

Torch's ``make_fx`` writes down what a program does to tensors. Three things in a simulator stand in its way,
and :class:`Recording` deals with them: questions about values (``if collides.any():``), entries chosen by a
mask (``reward[on_goal] += 1``, whose size depends on values), and computations with constants.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.func import functionalize
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

LARGEST_PROGRAM = 4000
"""Calls of torch's functions; the compiler's time grows faster than their number."""

_ATTRIBUTES = {
    getattr(torch.Tensor, name).__get__
    for name in ("shape", "device", "dtype", "ndim", "is_sparse")
}

Assumed = Mapping[str, bool]
"""Name of a function to the answer that a question about values in it is given."""


class Untraceable(ValueError):
    """A program that is not a pure function of tensors; the message names the place and says why."""


class Assuming(TorchFunctionMode):
    """Answers questions about values (``bool(tensor)``) in some functions without looking.

    Args:
        assumed: the functions and the answers.
    """

    def __init__(self, assumed: Assumed) -> None:
        super().__init__()
        self.assumed = assumed

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.__bool__:
            answer = self.assumed.get(_caller().f_code.co_name)
            if answer is not None:
                return answer
        return func(*args, **(kwargs or {}))


class Recording(Assuming):
    """What a traced program runs in.

    Args:
        inputs: the tensors that stand for others; what does not depend on them may be looked at.
        assumed: as in :class:`Assuming`.
    """

    def __init__(self, inputs: Iterable[Tensor], assumed: Assumed) -> None:
        super().__init__(assumed)
        self.unknown = WeakIdKeyDictionary()
        self.chosen = WeakIdKeyDictionary()
        self.n_calls = 0
        self._mark(tuple(inputs))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.n_calls += func not in _ATTRIBUTES
        if self.n_calls > LARGEST_PROGRAM:
            raise Untraceable(
                f"it makes more than {LARGEST_PROGRAM} calls and would compile for many minutes"
            )
        random = torch.get_rng_state()
        out = self._record(func, types, args, kwargs)
        depends = any(
            value in self.unknown for value in tree_leaves((args, kwargs)) if _is_tensor(value)
        )
        if depends or not torch.equal(random, torch.get_rng_state()):
            self._mark(args[0] if func is torch.Tensor.__setitem__ else out)
        if func not in _ATTRIBUTES and func is not torch.Tensor.__setitem__:
            self._follow_chosen((args, kwargs), out)
        return out

    def _follow_chosen(self, inputs: Any, out: Any) -> None:
        """What is made of chosen entries holds all entries too: each must stay by itself."""
        chosen = [v for v in tree_leaves(inputs) if _is_tensor(v) and v in self.chosen]
        for value in tree_leaves(out) if chosen else ():
            if not _is_tensor(value) or value.shape != chosen[0].shape:
                raise Untraceable(
                    "it computes something from the entries that a mask chooses together"
                )
            self.chosen[value] = True

    def _record(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func is torch.Tensor.__bool__:
            return self._answer(func, types, args)
        if func is torch.Tensor.__getitem__ and _is_mask(args[1]):
            every = args[0].clone()  # only the chosen ones are put back, below
            self.chosen[every] = True
            return every
        if func is torch.Tensor.__setitem__ and _is_mask(args[1]):
            target, mask, value = args
            mask = mask.reshape(*mask.shape, *[1] * (target.ndim - mask.ndim))
            return target.copy_(torch.where(mask, value, target))
        return func(*args, **kwargs)

    def _answer(self, func: Any, types: Any, args: Any) -> Any:
        frame = _caller()
        name = frame.f_code.co_name
        if name in self.assumed:
            return self.assumed[name]
        if args[0] in self.unknown:
            place = f"{frame.f_code.co_filename.rpartition('/')[2]}, line {frame.f_lineno}"
            raise Untraceable(f"{name} ({place}) decides by the value of a tensor")
        with disable_proxy_modes_tracing():
            return func(*args)

    def _mark(self, values: Any) -> None:
        for value in tree_leaves(values):
            if isinstance(value, Tensor):
                self.unknown[value] = True


def trace(
    program: Callable[..., list[Tensor]], inputs: list[Tensor], assumed: Assumed
) -> GraphModule:
    """``program`` as a graph without changes in place: tensors in, tensors out, nothing else read or written.

    Args:
        program: takes ``inputs``, given as separate arguments, and returns a list of tensors.
        inputs: examples of the real shapes.
        assumed: functions whose questions about values are answered without looking.

    Raises:
        Untraceable: where the program's course depends on values, or it changes a constant.
    """

    def recorded(*values: Tensor) -> list[Tensor]:
        own = [value.clone() for value in values]
        with Recording(own, assumed):
            return program(*own)

    try:
        # Without a context every operation would make a mode for fake tensors of its own.
        with tracing(TracingContext(FakeTensorMode())):
            graph = make_fx(recorded)(*inputs)
            _require_fixed_sizes(graph)
            pure = make_fx(functionalize(graph, remove="mutations"))(*inputs)
    except Untraceable:
        raise
    except (
        Exception
    ) as error:  # by then the program has run uncompiled: it is the tracing that fails
        reason = str(error).strip().partition("\n")[0]
        raise Untraceable(f"it cannot be written as a graph: {reason}") from error
    return pure


def _require_fixed_sizes(graph: GraphModule) -> None:
    """Recorded sizes are those of the example: they must not depend on values."""
    for node in graph.graph.nodes:
        if torch.Tag.dynamic_output_shape not in getattr(node.target, "tags", ()):
            continue
        name = node.target.overloadpacket.__name__
        places = [place for place in node.args[1] if place is not None] if name == "index" else []
        if not places or any(place.meta["val"].dtype == torch.bool for place in places):
            raise Untraceable(f"how many entries '{name}' gives depends on values")


def reached_inputs(graph: GraphModule) -> list[set[int]]:
    """For each output of ``graph``, the numbers of the inputs that it depends on."""
    known: dict[Node, int] = {}  # as bits: there may be thousands of nodes
    n_inputs = 0
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            known[node] = 1 << n_inputs
            n_inputs += 1
        else:
            bits = 0
            for before in node.all_input_nodes:
                bits |= known[before]
            known[node] = bits
    return [{i for i in range(n_inputs) if known[node] >> i & 1} for node in outputs_of(graph)]


def inputs_of(graph: GraphModule) -> list[Node]:
    """The nodes that stand for the inputs."""
    return [node for node in graph.graph.nodes if node.op == "placeholder"]


def outputs_of(graph: GraphModule) -> list[Node]:
    """The nodes whose values are the outputs."""
    outputs: Any = graph.graph.output_node().args[0]
    return list(outputs)


def cut(graph: GraphModule, inputs: list[int], outputs: list[int]) -> GraphModule:
    """``graph`` with these inputs and outputs only; it must not depend on the inputs left out."""
    every = outputs_of(graph)
    graph.graph.output_node().args = (tuple(every[i] for i in outputs),)
    graph.graph.eliminate_dead_code()
    for number, node in enumerate(inputs_of(graph)):
        if number not in inputs:
            graph.graph.erase_node(node)
    graph.recompile()
    return graph


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype == torch.bool


def _caller() -> FrameType:
    """The innermost frame outside torch and this file."""
    frame: Any = sys._getframe(1)
    while frame.f_globals.get("__name__", "").partition(".")[0] == "torch" or (
        frame.f_code.co_filename == __file__
    ):
        frame = frame.f_back
    found: FrameType = frame
    return found
