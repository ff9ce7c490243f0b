"""Several random draws in a loop of a compiled graph, in the order of uncompiled code.

Where Inductor calls torch's own random functions it ties each draw to the one before (``control_deps``), so
that they stay in order. The body of a loop is traced once more after that, and torch 2.13 has no rule for a
tie then: graphs of policies that draw more than once could not be compiled so. This is the rule.
"""

from __future__ import annotations

from typing import Any

import torch


def allow_ordered_draws() -> None:
    """Teach torch 2.13 to trace ties between draws; other versions are left as they are."""
    if not torch.__version__.startswith("2.13."):
        return
    from torch._higher_order_ops.utils import unique_graph_id
    from torch._inductor.fx_passes.control_dependencies import control_deps
    from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode, track_tensor_tree
    from torch.utils._pytree import tree_map

    if ProxyTorchDispatchMode in control_deps.python_key_table:
        return

    def trace(mode: Any, before: Any, drawn: Any, *args: Any, **kwargs: Any) -> Any:
        """Put the same tie into the graph that is being traced, and what it draws."""
        tracer = mode.tracer
        _, name = unique_graph_id(mode, prefix="ordered_draw")
        tracer.root.register_module(name, drawn)
        subgraph = tracer.create_proxy("get_attr", name, (), {})
        before, args_, kwargs_ = tree_map(tracer.unwrap_proxy, (before, args, kwargs))
        tie = tracer.create_proxy(
            "call_function", control_deps, (before, subgraph, *args_), kwargs_
        )
        return track_tensor_tree(drawn(*args, **kwargs), tie, constant=None, tracer=tracer)

    control_deps.py_impl(ProxyTorchDispatchMode)(trace)
