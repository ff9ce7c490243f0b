"""Matrix products of compiled graphs through oneDNN, on CPUs where torch's usual library is slower.

Torch multiplies matrices of float32 with MKL, which has no AVX-512 code for processors that are not Intel's:
on those that have it, oneDNN is up to twice as fast (EPYC of 2024: 185 against 87 billion operations a
second). Torch offers oneDNN's product for graphs whose weights never change; here it is for all of ours.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch.fx import Graph, Node

WORTHWHILE = 1_500_000
"""Multiplications from which a product is faster: a call of oneDNN takes about 10 us longer."""

aten = torch.ops.aten


@cache
def onednn_is_faster() -> bool:
    """Whether products of float32 are faster with oneDNN than with MKL on this machine."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    cpu = torch.cpu.get_capabilities()
    return bool(cpu.get("avx512_f")) and "Intel" not in str(cpu.get("cpu_name"))


@cache
def by_onednn() -> dict[str, Any]:
    """Options of Inductor with which large products are oneDNN's."""
    from torch._inductor.ir import TensorBox
    from torch._inductor.lowering import register_lowering
    from torch._inductor.mkldnn_ir import LinearUnary

    library = torch.library.Library("marl_td", "FRAGMENT")
    library.define("linear(Tensor rows, Tensor weight, Tensor? bias) -> Tensor")
    library.impl("linear", torch.nn.functional.linear, "CompositeExplicitAutograd")

    @register_lowering(torch.ops.marl_td.linear.default, type_promotion_kind=None)
    def lowered(rows: Any, weight: Any, bias: Any) -> Any:
        return TensorBox.create(LinearUnary.create(rows, weight, bias, "none", [], ""))

    return {"post_grad_custom_post_pass": LargeProducts(library)}


class LargeProducts(CustomGraphPass):
    """Replaces products of two matrices in a graph of tensor operations.

    Args:
        library: in which the operation is defined that stands for oneDNN's product.
    """

    def __init__(self, library: torch.library.Library) -> None:
        self.library = library  # the operation lives as long as this

    def __call__(self, graph: Graph) -> None:
        """Change ``graph`` in place."""
        products = graph.find_nodes(op="call_function", target=aten.mm.default)
        sums = graph.find_nodes(op="call_function", target=aten.addmm.default)
        for node in [*products, *sums]:
            *bias, rows, matrix = node.args
            plain = not bias or (bias[0].meta["val"].ndim == 1 and not node.kwargs)
            if not (plain and _is_worthwhile(rows.meta["val"], matrix.meta["val"])):
                continue
            with graph.inserting_before(node):
                operands = (rows, _transposed(graph, matrix), bias[0] if bias else None)
                linear = graph.call_function(torch.ops.marl_td.linear.default, operands)
            linear.meta.update(node.meta)
            node.replace_all_uses_with(linear)
            graph.erase_node(node)

    def uuid(self) -> str:
        """What tells graphs with it from others in the compiler's cache."""
        return f"marl_td.linear from {WORTHWHILE}"


def _is_worthwhile(rows: Tensor, matrix: Tensor) -> bool:
    sizes = (*rows.shape, matrix.shape[1])
    plain = all(isinstance(size, int) for size in sizes) and rows.dtype == torch.float32
    return plain and rows.is_cpu and rows.shape.numel() * matrix.shape[1] >= WORTHWHILE


def _transposed(graph: Graph, matrix: Node) -> Node:
    """The transposed ``matrix``; what it is the transposed of, if it is."""
    if matrix.target is aten.permute.default and list(matrix.args[1]) == [1, 0]:  # type: ignore[arg-type]
        return matrix.args[0]  # type: ignore[return-value]
    node = graph.call_function(aten.permute.default, (matrix, [1, 0]))
    node.meta["val"] = matrix.meta["val"].t()
    return node
