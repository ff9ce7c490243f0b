"""Acting needs numpy and onnxruntime only; without onnxruntime there is a message."""

import os
import subprocess
import sys

import pytest
from source_tree import ROOT
from tiny_bundle import write_bundle

GUARD = """
import sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names}:
            raise ImportError(f"{{name}} is forbidden here")

sys.meta_path.insert(0, Forbidden())
"""
ACT = """
import numpy as np
from marl_td.deploy import load, load_bundle

policy = load({folder!r})
action, state = policy.act(np.array([0.0, 3.0, 1.0]), mask=[True, True, True])
assert action == 1 and state["steps"].tolist() == [3.0]
others = [name for name in sys.modules if name.startswith("marl_td.") and "deploy" not in name]
assert not others, others
"""
LEARNING = ("torch", "tensordict", "torchrl", "benchmarl", "hydra", "omegaconf", "yaml", "onnx")


def run(code, cwd):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_a_bundle_acts_without_torch(tmp_path):
    folder = write_bundle(tmp_path / "b")
    done = run(GUARD.format(names=LEARNING) + ACT.format(folder=str(folder)), tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["onnxruntime"])
def test_what_is_missing_is_named(tmp_path, name):
    folder = write_bundle(tmp_path / "b")
    done = run(GUARD.format(names=(name,)) + ACT.format(folder=str(folder)), tmp_path)
    assert "acting with a bundle needs onnxruntime: pip install onnxruntime" in done.stderr
