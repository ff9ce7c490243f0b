"""ONNX Runtime's side of an actor."""

from __future__ import annotations

from typing import Any

from marl_td.deploy.format import BundleError, BundleFiles
from marl_td.deploy.signature import AgentSignature

EXTERNAL_DATA = b"\x0a\x08location"
"""What an ONNX file has in it that takes numbers from another file."""
TYPES = {
    "float32": "tensor(float)",
    "float64": "tensor(double)",
    "int64": "tensor(int64)",
    "int32": "tensor(int32)",
    "uint8": "tensor(uint8)",
    "bool": "tensor(bool)",
}


def actor_session(files: BundleFiles, name: str, threads: int) -> Any:
    """The actor in an ONNX file, from the bytes that were checked."""
    data = files.read(name)
    if EXTERNAL_DATA in data:
        raise BundleError(
            f"'{files.folder / name}' takes numbers from another file; that is not read."
        )
    try:
        return onnx_session(data, threads)
    except ImportError:
        raise
    except Exception as error:  # onnxruntime's errors have no common class
        raise BundleError(f"onnxruntime cannot load '{files.folder / name}': {error}") from error


def onnx_session(data: bytes, threads: int) -> Any:
    """ONNX Runtime's session of an ONNX file, on the CPU.

    Raises:
        ImportError: without onnxruntime.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            "acting with a bundle needs onnxruntime: pip install onnxruntime (or marl-td[export])."
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def check_session(name: str, agent: AgentSignature, session: Any) -> None:
    """Raise :class:`BundleError` unless the actor reads and writes what the signature says."""
    found = {value.name: (value.type, list(value.shape[1:])) for value in session.get_inputs()}
    expected = {entry.name: (TYPES[entry.dtype], list(entry.shape)) for entry in agent.inputs}
    if found != expected:
        raise BundleError(
            f"the actor '{agent.actor}' does not fit the signature of agent '{name}': it reads {found}, the "
            f"signature says {expected}."
        )
    missing = set(agent.outputs) - {value.name for value in session.get_outputs()}
    if missing:
        raise BundleError(
            f"the actor '{agent.actor}' of agent '{name}' does not write {sorted(missing)}."
        )
