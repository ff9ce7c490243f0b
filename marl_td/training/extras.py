"""Optional packages: what each extra of ours brings, and what to say when it is missing."""

from __future__ import annotations

from importlib.util import find_spec

EXTRAS: dict[str, tuple[str, ...]] = {
    "vmas": ("vmas",),
    "mpe": ("mpe2",),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "track": ("tensorboard", "wandb"),
    "report": ("jinja2",),
    "tune": ("optuna", "hydra_plugins.hydra_joblib_launcher"),
    "distributed": ("ray",),
    "serve": ("fastapi", "onnxruntime", "uvicorn"),
    "docs": ("myst_parser", "sphinx"),
    "dev": ("hypothesis", "mypy", "pytest", "ruff"),
}
"""Extra of ours to the packages (import names) that it installs."""

SIMULATORS: dict[str, tuple[str, str]] = {
    "vmas": ("vmas", "pip install 'marl-td[vmas]'"),
    "pettingzoo": ("pettingzoo", "pip install 'pettingzoo<1.26'"),
    "smacv2": ("smacv2", "see https://github.com/oxwhirl/smacv2"),
    "meltingpot": ("meltingpot", "pip install dm-meltingpot"),
    "magent": ("magent2", "pip install magent2"),
}
"""First part of a BenchMARL task's name to the package behind it and how to get that."""

NETWORKS: dict[str, str] = {"torch_geometric": "pip install torch_geometric"}
"""Package behind BenchMARL's graph networks (``model=layers/gnn``) to how to get it."""


def is_installed(package: str) -> bool:
    """Whether ``package`` can be found; it is not imported."""
    try:
        return find_spec(package) is not None
    except (ModuleNotFoundError, ValueError):  # a parent package is missing, or it is a stand-in
        return False


def missing(extra: str) -> list[str]:
    """The packages of an extra that are not installed."""
    return [package for package in EXTRAS[extra] if not is_installed(package)]


def install_command(extra: str) -> str:
    """What gets an extra."""
    return f"pip install 'marl-td[{extra}]'"


def require_simulator(task: str) -> None:
    """Check that the package behind a task is installed.

    Raises:
        ImportError: if it is not; the message has the command that gets it.
    """
    package, remedy = SIMULATORS.get(task.split("/")[0], ("", ""))
    if package and not is_installed(package):
        raise ImportError(
            f"task '{task}' needs the package '{package}', which is not installed; get it with: "
            f"{remedy}"
        )
