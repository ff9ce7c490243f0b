"""An actor as a ``torch.export`` program and as ONNX, and what either makes of given inputs."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from marl_td.deploy.actor import Actor

MAX_BATCH = 2**20
BATCH = "batch"
OPSET = 20


@torch.no_grad()
def export_program(actor: Actor, example: Mapping[str, Tensor]) -> Any:
    """The actor as a ``torch.export.ExportedProgram`` over any batch size.

    Args:
        actor: the module.
        example: its inputs, a batch of at least 2.
    """
    batch = torch.export.Dim(BATCH, min=1, max=MAX_BATCH)
    with _quiet():
        program = torch.export.export(
            actor.eval(),
            (dict(example),),
            dynamic_shapes={"inputs": {name: {0: batch} for name in example}},
            strict=False,
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine's source files
    return program


def program_bytes(program: Any) -> bytes:
    """The program as a ``.pt2`` file."""
    file = io.BytesIO()
    with _quiet():
        torch.export.save(program, file)
    return file.getvalue()


def onnx_bytes(program: Any, inputs: list[str], outputs: list[str]) -> bytes:
    """The program as an ONNX file of standard operators.

    Raises:
        ImportError: without the packages of the extra ``export``.
    """
    require_onnx()
    with _quiet():
        converted = torch.onnx.export(
            program,
            dynamo=True,
            input_names=inputs,
            output_names=outputs,
            opset_version=OPSET,
            verbose=False,
        )
    if converted is None:
        raise RuntimeError("torch.onnx.export gave no program.")
    model = converted.model_proto
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    del model.graph.value_info[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def require_onnx() -> None:
    """Raise ``ImportError`` naming what is missing to write ONNX."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(name)
        except ImportError as error:
            raise ImportError(
                f"the export needs the package {name}: pip install 'marl-td[export]'."
            ) from error


@torch.no_grad()
def run_program(program: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a program (its ``module()``) or an actor makes of inputs."""
    found: dict[str, Tensor] = program(dict(inputs))
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' own notes on torch's internals."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
