"""Settings that hold for every test; shared helpers are modules in `tests/helpers/`."""

import importlib
import os
import random
from collections.abc import Callable
from types import ModuleType

# Before torch is imported: small tensors gain nothing from threads, and test processes run side
# by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("WANDB_MODE", "disabled")

import hypothesis
import numpy as np
import pytest
import torch
from source_tree import ROOT

torch.set_num_threads(1)

# The same examples in every run, and no deadline: a busy machine must not fail a test.
hypothesis.settings.register_profile(
    "marl_td",
    derandomize=True,
    deadline=None,
    max_examples=25,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("marl_td")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """``script(name)``: a benchmark command, imported as its own `python benchmarks/...` would."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Start every test from the same random state, whatever ran before it in this process."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - third parties draw from this stream
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that need a CUDA device where there is none, and say so."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
