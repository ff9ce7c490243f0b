"""Imports point one way, and dangerous calls stay out. Each failure names file, line and remedy.

The rules are the tables below; the reasons are in `docs/design.md`.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_tree import ROOT, Source, sources, write_tree

EVERYWHERE = {"field_types"}
PARTS = {"models", "policies", "critics", "signals"}
BELOW_ALGORITHMS = {*EVERYWHERE, "losses", "losses.functional", *PARTS}
BELOW_COLLECT = {"tasks", "losses.functional", *PARTS}
BELOW_TRAINING = {
    "algorithms",
    "collect",
    "registry",
    "benchmarl_tasks",
    "tasks",
    *BELOW_ALGORITHMS,
}
BELOW_EVALUATION = {"training", *BELOW_TRAINING}
BELOW_DEPLOY = {"evaluation", *BELOW_EVALUATION}

LAYERS: dict[str, set[str]] = {
    "losses.functional": set(),
    "losses": {"losses.functional"},
    "field_types": set(),
    "tasks": EVERYWHERE,
    **{part: EVERYWHERE | PARTS | {"losses.functional"} for part in PARTS},
    "algorithms": {"collect", *BELOW_ALGORITHMS},
    "benchmarl_tasks": {"tasks"},
    "extend": {"registry", "benchmarl_tasks", "tasks"},
    "registry": {"algorithms", "models", "tasks", "benchmarl_tasks"},
    "collect": BELOW_COLLECT,
    "training": BELOW_TRAINING,
    "evaluation": BELOW_EVALUATION,
    "deploy": BELOW_DEPLOY,
    "cli": {"deploy", *BELOW_DEPLOY},
    "__main__": {"cli"},
}
"""Part of `marl_td` to the other parts that it may import."""

TENSORS = {"torch", "tensordict", "torchrl", "typing_extensions"}
SOLVERS = {"scipy", "matplotlib", "PIL"}
OTHER_ENVIRONMENTS = {"pettingzoo", "gymnasium", "vmas", "mpe2"}
THIRD_PARTIES: dict[str, tuple[set[str], set[str]]] = {
    "losses.functional": ({"torch", "typing_extensions"}, set()),
    "losses": (TENSORS, set()),
    "field_types": (set(), set()),
    "tasks": (TENSORS | {"numpy"}, SOLVERS | OTHER_ENVIRONMENTS),
}
"""Part to the third parties that it may import at the top of a file, and inside functions besides.

Parts that are not listed may import every third party.
"""
ADAPTERS = "marl_td.tasks.adapters"
"""Classes of other libraries are subclassed here, so these may be imported at the top of a file.

The same holds for files called `render.py`, which are loaded when something is drawn.
"""

UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
NOT_LIBRARY = {"tests", "benchmarks", "docs", "scripts"}

Import = tuple[int, str, bool]  # line, full name, inside a function


def imports_of(source: Source) -> Iterator[Import]:
    """Every import in a file, relative ones resolved; `from a import b` counts as `a.b`."""

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = source.module.split(".")[: None if source.is_package else -1]
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{prefix}.{alias.name}", lazy) for alias in node.names)
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    return visit(source.tree, False)


def layer_of(name: str) -> str:
    """The part of `marl_td` that a full name belongs to; empty for `marl_td` itself."""
    parts = name.split(".")[1:]
    if parts[:2] == ["losses", "functional"]:
        return "losses.functional"
    return parts[0] if parts else ""


def own_import_error(source: Source, name: str) -> str | None:
    """What is wrong with an import from `marl_td`, if anything."""
    layer, target = layer_of(source.module), layer_of(name)
    if layer in ("", target) or target in LAYERS.get(layer, set()):
        return None
    if target not in LAYERS:  # `from marl_td import register` and the like
        return f"marl_td.{layer} may not import {name}" if layer in THIRD_PARTIES else None
    allowed = ", ".join(sorted(LAYERS.get(layer, set()))) or "nothing else of marl_td"
    return f"marl_td.{layer} may not import {name}; it may import {allowed}"


def third_party_error(source: Source, root: str, lazy: bool) -> str | None:
    """What is wrong with an import of another library, if anything."""
    layer = layer_of(source.module)
    if root in sys.stdlib_module_names or layer not in THIRD_PARTIES:
        return None
    top, inside = THIRD_PARTIES[layer]
    if source.module.startswith(ADAPTERS) or source.module.endswith(".render"):
        top = top | inside
    if root in top or (lazy and root in inside):
        return None
    where = ", ".join(sorted(top)) + (
        f"; inside functions {', '.join(sorted(inside))}" * bool(inside)
    )
    return f"marl_td.{layer} may not import {root} here; allowed: {where}"


def import_errors(source: Source) -> Iterator[str]:
    """Every import of a file that points the wrong way."""
    if source.module != "marl_td" and layer_of(source.module) not in LAYERS:
        yield f"{source.path}:1: marl_td.{layer_of(source.module)} is in no layer; add it to LAYERS"
    for line, name, lazy in imports_of(source):
        root = name.split(".")[0]
        if root in ("losses", "tasks"):
            error: str | None = f"write `marl_td.{root}`: `{root}` would be a second copy"
        elif root in NOT_LIBRARY:
            error = f"the library may not import {root}"
        elif root in UNSAFE_MODULES:
            error = f"{root} runs code from files; use JSON, YAML or safetensors"
        elif root == "marl_td":
            error = own_import_error(source, name)
        else:
            error = third_party_error(source, root, lazy)
        if error:
            yield f"{source.path}:{line}: {error}"


def call_error(node: ast.Call) -> str | None:
    """What is wrong with a call that runs code from data, if anything."""
    name = ast.unparse(node.func)
    keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
    if name in ("eval", "exec"):
        return f"{name}() runs text as code"
    if name == "torch.load" and keywords.get("weights_only") != "True":
        return "torch.load needs weights_only=True"
    if name in ("np.load", "numpy.load") and keywords.get("allow_pickle", "False") != "False":
        return "numpy.load with allow_pickle runs code from files"
    if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
        return f"{name}: use yaml.safe_load"
    return None


def statement_errors(source: Source) -> Iterator[str]:
    """Every dangerous call and every `assert` of a file."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and (error := call_error(node)):
            yield f"{source.path}:{node.lineno}: {error}"
        elif isinstance(node, ast.Assert):
            yield f"{source.path}:{node.lineno}: assert vanishes under `python -O`; raise an error"


def errors(root: Path) -> list[str]:
    """All broken rules in the tree below `root`."""
    return [
        line
        for source in sources(root)
        for line in [*import_errors(source), *statement_errors(source)]
    ]


def test_imports_point_one_way_and_no_file_can_run_code():
    found = errors(ROOT)
    assert not found, "\n".join(found)


def test_every_folder_is_read():
    assert {source.path.split("/")[0] for source in sources(ROOT)} == {"losses", "tasks", "marl_td"}


BAD = [
    ("losses/functional/a.py", "import torch\nimport tensordict", 2, "may not import tensordict"),
    ("losses/functional/a.py", "from ..common import x", 1, "may not import marl_td.losses.common"),
    ("losses/a.py", "import numpy as np", 1, "marl_td.losses may not import numpy"),
    ("losses/a.py", "from marl_td.tasks import b", 1, "may not import marl_td.tasks.b"),
    ("losses/a.py", "def f():\n    import hydra", 2, "may not import hydra"),
    ("tasks/a.py", "from benchmarl.algorithms import x", 1, "may not import benchmarl"),
    ("tasks/a.py", "from marl_td import losses", 1, "may not import marl_td.losses"),
    ("tasks/a.py", "from marl_td import register", 1, "may not import marl_td.register"),
    ("tasks/a.py", "import scipy.optimize", 1, "may not import scipy here; .* inside functions"),
    ("tasks/a.py", "from tasks.base import Task", 1, "write `marl_td.tasks`"),
    ("marl_td/field_types.py", "import torch", 1, "marl_td.field_types may not import torch"),
    ("marl_td/policies.py", "import losses", 1, "write `marl_td.losses`"),
    ("marl_td/models/a.py", "from ..algorithms import x", 1, "may not import marl_td.algorithms.x"),
    (
        "marl_td/algorithms/a.py",
        "import marl_td.training.x",
        1,
        "may not import marl_td.training.x",
    ),
    ("marl_td/algorithms/a.py", "from marl_td.tasks import x", 1, "may not import marl_td.tasks.x"),
    ("marl_td/training/a.py", "from marl_td.cli import x", 1, "may not import marl_td.cli.x"),
    ("marl_td/cli.py", "from tests.helpers import x", 1, "the library may not import tests"),
    ("marl_td/newpart/a.py", "import torch", 1, "marl_td.newpart is in no layer"),
    ("marl_td/cli.py", "import pickle", 1, "pickle runs code from files"),
    ("marl_td/cli.py", "x = 1\ny = eval('x')", 2, r"eval\(\) runs text as code"),
    ("marl_td/cli.py", "import torch\ntorch.load('f')", 2, "torch.load needs weights_only=True"),
    ("marl_td/cli.py", "torch.load('f', weights_only=False)", 1, "needs weights_only=True"),
    ("marl_td/cli.py", "np.load('f', allow_pickle=True)", 1, "numpy.load with allow_pickle"),
    ("marl_td/cli.py", "yaml.load(f, Loader)", 1, "use yaml.safe_load"),
    ("marl_td/cli.py", "assert True", 1, "assert vanishes"),
]


@pytest.mark.parametrize(("path", "text", "line", "message"), BAD)
def test_a_broken_rule_is_found(tmp_path, path, text, line, message):
    found = errors(write_tree(tmp_path, {path: text}))
    assert len(found) == 1
    assert re.match(f"{path}:{line}: .*{message}", found[0])


GOOD = [
    ("losses/functional/a.py", "import math\nimport torch\nfrom .checks import x"),
    (
        "losses/a.py",
        "from torchrl.objectives import LossModule\nfrom marl_td.losses.functional import b",
    ),
    ("tasks/a.py", "import torch\ndef f():\n    from scipy import optimize\n    import numpy"),
    ("tasks/adapters/a.py", "import pettingzoo\nimport numpy as np"),
    ("tasks/a.py", "import numpy as np\nfrom marl_td.field_types import check_fields"),
    ("tasks/shop/render.py", "import matplotlib\nfrom PIL import Image"),
    (
        "marl_td/algorithms/a.py",
        "import benchmarl\nfrom marl_td import register, losses\nfrom .. import policies",
    ),
    ("marl_td/cli.py", "import torch\ntorch.load('f', weights_only=True)\nmodel.eval()"),
]


@pytest.mark.parametrize(("path", "text"), GOOD)
def test_what_is_allowed_passes(tmp_path, path, text):
    assert errors(write_tree(tmp_path, {path: text})) == []
