"""What is checked before a run is set up: settings that libraries would refuse with a traceback."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LOGGERS = {
    "csv": "",
    "mlflow": "mlflow",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}
"""Trackers of TorchRL, and the package that each needs."""


def check_settings_of(algorithm_config: Any, experiment_config: Any) -> None:
    """Check the trackers, and how a policy makes its standard deviation.

    Raises:
        ValueError: for a name that there is not.
        ImportError: for a tracker whose package is not installed.
    """
    check_loggers(experiment_config.loggers)
    mapping = getattr(algorithm_config, "scale_mapping", None)
    if mapping is not None:
        _check_mapping(mapping)


def check_loggers(names: Sequence[str]) -> None:
    """Check ``experiment.loggers``; errors as for :func:`check_settings_of`."""
    from marl_td.training import extras

    for name in names:
        if name not in LOGGERS:
            near = difflib.get_close_matches(str(name), LOGGERS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ValueError(
                f"experiment.loggers: there is no logger '{name}'; there are {', '.join(LOGGERS)}.{hint}"
            )
        package = LOGGERS[name]
        if package and not extras.is_installed(package):
            tracked = package in extras.EXTRAS["track"]
            remedy = extras.install_command("track") if tracked else f"pip install {package}"
            raise ImportError(
                f"experiment.loggers: '{name}' needs the package '{package}', which is not installed; get "
                f"it with: {remedy}"
            )


def _check_mapping(name: str) -> None:
    import torch
    from tensordict.nn.utils import _MAPPINGS, mappings

    try:
        usable = bool(mappings(name)(torch.zeros(())).isfinite())
    except (NotImplementedError, ValueError):  # which of them depends on how the name starts
        usable = False
    if not usable:
        raise ValueError(
            f"algorithm.scale_mapping: there is no mapping '{name}'; there are "
            f"{', '.join(sorted(_MAPPINGS))}, and biased_softplus_BIAS with a number, such as "
            "biased_softplus_1.0."
        )


def check_writable(folder: Path) -> None:
    """Check that ``folder`` can be made, or written into, and leave nothing behind.

    Raises:
        ValueError: if not.
    """
    place = folder.absolute()
    try:
        while not place.exists():
            place = place.parent
        with tempfile.TemporaryDirectory(prefix=".marl-td-", dir=place):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(
            f"--out '{folder}' cannot be written ({reason}): give a folder in a place that you may write to."
        ) from error


def check_longer(folder: Path, max_n_frames: int | None, env: str | None) -> None:
    """Check that a run that goes on is not to end before where it is.

    Args:
        folder: of the run.
        max_n_frames: frames that are asked for; None if nothing is.
        env: as for ``marl-td resume``.

    Raises:
        ValueError: if it has more than that already, and that is not its own length.
    """
    from marl_td.training.checkpoints import Checkpoints
    from marl_td.training.experiment import CHECKPOINT_FOLDER
    from marl_td.training.settings import CONFIG_FILE, RunSettings

    if max_n_frames is None:
        return
    newest, _ = Checkpoints(folder / CHECKPOINT_FOLDER, keep=None).newest_intact()
    if newest is None or newest.summary.frames <= max_n_frames:
        return
    settings = RunSettings.load(folder / CONFIG_FILE, env)
    if settings.experiment_config.max_n_frames != max_n_frames:
        raise ValueError(
            f"'{folder}' already has {newest.summary.frames} frames, more than "
            f"experiment.max_n_frames={max_n_frames}: ask for more, or leave the setting out."
        )
