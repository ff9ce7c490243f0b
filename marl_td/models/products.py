"""Matrix products of compiled graphs through oneDNN, on CPUs where torch's usual library is slower.

Torch multiplies matrices of float32 with MKL, which has no AVX-512 code for processors that are not Intel's:
on those that have it, oneDNN is up to twice as fast (EPYC of 2024: 185 against 87 billion operations a
second). Torch offers oneDNN's product for graphs whose weights never change; here it is for all of ours.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch.fx import Graph, Node

WORTHWHILE = 1_500_000
"""Multiplications from which a product is faster: a call of oneDNN takes about 10 us longer."""
KNOWN_TORCH = "2.13."
"""Whose compiler this extends; with others, products stay as they are."""
MOST = 16
"""Matrices of one batched product, beyond which a call for each would make the graph long."""

aten = torch.ops.aten


@cache
def onednn_is_faster() -> bool:
    """Whether products of float32 are faster with oneDNN than with MKL on this machine."""
    if not torch.__version__.startswith(KNOWN_TORCH):
        return False
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
    """Replaces large products of matrices in a graph of tensor operations.

    Args:
        library: in which the operation is defined that stands for oneDNN's product.
    """

    def __init__(self, library: torch.library.Library) -> None:
        self.library = library  # the operation lives as long as this

    def __call__(self, graph: Graph) -> None:
        """Change ``graph`` in place."""
        for target, replaced in (
            (aten.mm, _product),
            (aten.addmm, _product),
            (aten.bmm, _products),
        ):
            for node in graph.find_nodes(op="call_function", target=target.default):
                *bias, rows, matrix = node.args
                plain = not bias or (bias[0].meta["val"].ndim == 1 and not node.kwargs)
                if not (plain and _is_worthwhile(rows.meta["val"], matrix.meta["val"])):
                    continue
                with graph.inserting_before(node):
                    product = replaced(graph, rows, matrix, *bias)
                product.meta.update(node.meta)
                node.replace_all_uses_with(product)
                graph.erase_node(node)

    def uuid(self) -> bytes:
        """What tells graphs with it from others in the compiler's cache."""
        return get_hash_for_files((__file__,))


def _is_worthwhile(rows: Tensor, matrix: Tensor) -> bool:
    """Whether products of ``[*n, k, l]`` and ``[*n, l, m]`` are large and not too many."""
    sizes = (*rows.shape, matrix.shape[-1])
    plain = all(isinstance(size, int) for size in sizes) and rows.dtype == torch.float32
    few = rows.ndim == 2 or rows.shape[0] <= MOST
    return plain and rows.is_cpu and few and math.prod(sizes[-3:]) >= WORTHWHILE


def _product(graph: Graph, rows: Node, matrix: Node, bias: Node | None = None) -> Node:
    """The product of two matrices by oneDNN, which takes the second one transposed."""
    turned = _is_turned(matrix, [1, 0])
    weight = matrix.args[0] if turned else _add(graph, aten.permute.default, matrix, [1, 0])
    return _add(graph, torch.ops.marl_td.linear.default, rows, weight, bias)


def _products(graph: Graph, rows: Node, matrices: Node) -> Node:
    """Products of matrices one by one, such as those of the networks of several agents."""
    turned = _is_turned(matrices, [0, 2, 1])
    weights = cast(Node, matrices.args[0]) if turned else matrices
    parts = []
    for i in range(rows.meta["val"].shape[0]):
        one, weight = (_add(graph, aten.select.int, of, 0, i) for of in (rows, weights))
        weight = weight if turned else _add(graph, aten.permute.default, weight, [1, 0])
        part = _add(graph, torch.ops.marl_td.linear.default, one, weight, None)
        parts.append(_add(graph, aten.unsqueeze.default, part, 0))
    return graph.call_function(aten.cat.default, (parts, 0))


def _is_turned(matrix: Node, order: list[int]) -> bool:
    """Whether it is another one with its dimensions in this order."""
    return matrix.target is aten.permute.default and list(cast(Any, matrix.args[1])) == order


def _add(graph: Graph, target: Any, *args: Any) -> Node:
    """A new node, with what it gives as far as the compiler knows it."""
    node = graph.call_function(target, args)
    node.meta["val"] = target(*(a.meta["val"] if isinstance(a, Node) else a for a in args))
    return node
