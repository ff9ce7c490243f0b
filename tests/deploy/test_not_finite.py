"""A policy of numbers that are not finite is neither loaded, exported nor verified."""

import json
import struct

import numpy as np
import pytest
import torch
from benchmarl_runs import IGNORED
from safetensors.numpy import save
from small_policies import DISCRETE, MLP, small_source
from tiny_bundle import agent_signature, write_bundle, write_manifest

from marl_td.deploy import BundleError, load_bundle
from marl_td.deploy import format as layout
from marl_td.deploy.export import export_policy
from marl_td.training.policy_files import load_weights, read_weights, save_policy
from marl_td.training.tensor_files import save_tensors

pytestmark = IGNORED
WEIGHTS = "actors/agents.safetensors"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_are_refused_by_name(tmp_path, value):
    policy = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    save_policy(tmp_path, policy, {})
    weights = read_weights(tmp_path)
    weights["1.bias"][0] = value
    save_tensors(tmp_path / "weights.safetensors", weights)
    message = (
        r"weights\.safetensors' holds numbers that are not finite in '1\.bias': training went wrong"
    )
    with pytest.raises(ValueError, match=message):
        load_weights(tmp_path, policy)
    with pytest.raises(ValueError, match=message):
        read_weights(tmp_path)
    assert policy[1].bias.isfinite().all()


def test_constants_that_are_infinite_anyway_are_loaded(tmp_path):
    policy = torch.nn.Linear(2, 1)
    policy.register_buffer("high", torch.tensor([1.0, torch.inf]))
    policy.register_buffer("count", torch.tensor(3))
    save_policy(tmp_path, policy, {})
    load_weights(tmp_path, policy)
    save_tensors(tmp_path / "weights.safetensors", {**policy.state_dict(), "high": -policy.high})
    with pytest.raises(ValueError, match="not finite in 'high'"):
        load_weights(tmp_path, policy)


@pytest.mark.parametrize(
    ("algorithm", "overrides", "name"),
    [
        ("marl_td/mappo", DISCRETE, "scores"),
        ("marl_td/mappo", (), "action"),
        ("marl_td/iql", DISCRETE, "scores"),
    ],
)
def test_a_policy_is_not_exported(tmp_path, algorithm, overrides, name):
    source = small_source(algorithm, *MLP, *overrides)
    with torch.no_grad():
        next(iter(source.policies["agents"].parameters())).fill_(torch.nan)
    message = rf"'agents_0' numbers that are not finite in '{name}': nothing was written"
    with pytest.raises(ValueError, match=message):
        export_policy(source, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------- bundles
def bundle(folder, content):
    """One whose stored outputs fit, with ``content`` as weights."""
    golden = {
        "a/in/observation": np.array([[1, 3, 2]], np.float32),
        "a/in/action_mask": np.ones((1, 3), bool),
        "a/in/steps": np.zeros((1, 1), np.float32),
        "a/out/action": np.array([1]),
        "a/out/scores": np.array([[1, 3, 2]], np.float32),
        "a/out/next_steps": np.ones((1, 1), np.float32),
    }
    write_bundle(folder, {"a": agent_signature()}, golden=golden)
    (folder / WEIGHTS).write_bytes(content)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    write_manifest(folder, {**files, WEIGHTS: layout.describe_file(content)})
    return folder


def raw(kind, data, shape):
    """A file of one tensor of a type that NumPy may not have."""
    header = json.dumps(
        {"w": {"dtype": kind, "shape": shape, "data_offsets": [0, len(data)]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + data


GOOD = save({"net.weight": np.ones((2, 2), np.float32), "count": np.array([3])})


def test_finite_weights_are_verified(tmp_path):
    for name, weights in (("b", GOOD), ("c", raw("BF16", b"\x80\x3f", [1]))):  # 1.0
        assert load_bundle(bundle(tmp_path / name, weights), verify=True).verify() <= 1e-5


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_other_weights_are_refused_by_name(tmp_path, kind, value):
    weights = {"good": np.ones(3, kind), "net.bias": np.array([0, value], kind)}
    folder = bundle(tmp_path / "b", save(weights))
    load_bundle(folder)
    with pytest.raises(
        BundleError, match=r"agents\.safetensors' holds numbers that are not finite in 'net\.bias'"
    ):
        load_bundle(folder, verify=True)


def test_bfloat16_is_read(tmp_path):
    folder = bundle(tmp_path / "b", raw("BF16", b"\x80\x3f\xc0\x7f", [2]))  # 1.0 and NaN
    with pytest.raises(BundleError, match="not finite in 'w'"):
        load_bundle(folder, verify=True)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        GOOD[:-1],
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 7) + b'{"a":1}',
        raw("F32", b"\0" * 6, [2]),
        raw("F32", b"", [1]).replace(b"[0, 0]", b"[4,-8]"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, content):
    with pytest.raises(BundleError, match=r"agents\.safetensors' is not a whole safetensors file"):
        load_bundle(bundle(tmp_path / "b", content), verify=True)
