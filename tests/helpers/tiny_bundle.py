"""Bundles whose actors are a few ONNX operators with known numbers: no policy, no torch."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from marl_td.deploy import format as layout
from marl_td.deploy.signature import AgentSignature, Entry

D_OBS, N_ACTIONS = 3, 3


def agent_signature(**changes: Any) -> AgentSignature:
    """Scores are the observation, one for each action; the state counts the steps."""
    fields: dict[str, Any] = {
        "group": "agents",
        "index": 0,
        "actor": "agents",
        "observation": (
            Entry("observation", "float32", (D_OBS,), np.float64(-10), np.float64(10)),
        ),
        "mask": Entry("action_mask", "bool", (N_ACTIONS,)),
        "state": (Entry("steps", "float32", (1,), init=2.0, next="next_steps"),),
        "action": Entry("action", "int64", ()),
        "kind": "discrete",
        "n_actions": N_ACTIONS,
        "mode": "deterministic",
        "distribution": "",
        "normalisation": "none",
        "communication": "",
        "outputs": ("action", "scores", "next_steps"),
    }
    return AgentSignature(**{**fields, **changes})


def actor_bytes() -> bytes:
    """The ONNX file of that actor."""
    lowest = float(np.finfo(np.float32).min)
    nodes = [
        helper.make_node("Where", ["action_mask", "observation", "lowest"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["action"], axis=-1, keepdims=0),
        helper.make_node("Add", ["steps", "one"], ["next_steps"]),
    ]
    constants = [
        helper.make_tensor("lowest", TensorProto.FLOAT, [], [lowest]),
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
    ]
    inputs = [
        helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["batch", D_OBS]),
        helper.make_tensor_value_info("action_mask", TensorProto.BOOL, ["batch", N_ACTIONS]),
        helper.make_tensor_value_info("steps", TensorProto.FLOAT, ["batch", 1]),
    ]
    outputs = [
        helper.make_tensor_value_info("action", TensorProto.INT64, ["batch"]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", N_ACTIONS]),
        helper.make_tensor_value_info("next_steps", TensorProto.FLOAT, ["batch", 1]),
    ]
    graph = helper.make_graph(nodes, "actor", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write_bundle(
    folder: Path,
    agents: dict[str, AgentSignature] | None = None,
    actors: dict[str, bytes] | None = None,
    golden: dict[str, Any] | None = None,
) -> Path:
    """A bundle of these agents in ``folder``."""
    agents = {"a": agent_signature()} if agents is None else agents
    archive = io.BytesIO()
    np.savez(archive, **(golden or {}))
    described = {name: agent.as_dict() for name, agent in agents.items()}
    files = {
        layout.SIGNATURE: json.dumps({"format": 1, "agents": described}).encode(),
        layout.GOLDEN: archive.getvalue(),
    }
    for name, data in (actors or {"agents": actor_bytes()}).items():
        files[f"actors/{name}.onnx"] = data
    (folder / layout.ACTORS).mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    write_manifest(folder, {name: layout.describe_file(data) for name, data in files.items()})
    return folder


def write_manifest(folder: Path, files: dict[str, Any], **changes: Any) -> None:
    """A manifest that lists ``files``."""
    manifest = {"format": layout.FORMAT, "kind": layout.KIND, "files": files, **changes}
    (folder / layout.MANIFEST).write_text(json.dumps(manifest))
