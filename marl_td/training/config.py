"""Settings of our experiment beside BenchMARL's."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from benchmarl.experiment import ExperimentConfig
from benchmarl.utils import _read_yaml_config
from typing_extensions import Self

from marl_td.models.compiling import MODES
from marl_td.training.settings_file import build

DEFAULTS = Path(__file__).parents[1] / "conf" / "experiment" / "marl_td.yaml"
"""What our defaults change of BenchMARL's."""
ON_NONFINITE = ("stop", "skip")


@dataclass
class RunConfig(ExperimentConfig):
    """BenchMARL's experiment settings and ours: what ``experiment=marl_td`` is made of.

    Raises:
        ValueError: if a setting of ours is out of range.
    """

    lr_end: float = 1.0
    """Share of the learning rate that is left at the last frame, in [0, 1]; it falls linearly."""

    compile: str = "auto"
    """Compile rollouts and updates: on, off, or auto (where a run is long enough for it to pay)."""

    checkpoint_minutes: float | None = 2.0
    """Save a checkpoint after so many minutes of training, at the end of an iteration; None: never so."""

    keep_best_checkpoints: int = 0
    """Keep so many best checkpoints by evaluation beside the newest ones; above 0, a better one is saved."""

    on_nonfinite: str = "stop"
    """When an observation, reward, loss or gradient is NaN or infinite: stop, or skip (leave it out)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0.0 <= self.lr_end <= 1.0:
            raise ValueError(f"experiment.lr_end must lie in [0, 1]; got {self.lr_end}.")
        if self.checkpoint_minutes is not None and not self.checkpoint_minutes > 0:
            raise ValueError(
                "experiment.checkpoint_minutes must be above 0, or null for no checkpoints by the clock; got "
                f"{self.checkpoint_minutes}."
            )
        if self.on_nonfinite not in ON_NONFINITE:
            raise ValueError(
                f"experiment.on_nonfinite must be one of {', '.join(ON_NONFINITE)}; got "
                f"'{self.on_nonfinite}'."
            )
        if self.compile not in MODES:
            raise ValueError(
                f"experiment.compile must be one of {', '.join(MODES)}; got '{self.compile}'."
            )

    @classmethod
    def get_from_yaml(cls, path: str | None = None) -> Self:
        """The settings of ``experiment=marl_td``, with what the YAML file at ``path`` sets.

        Raises:
            ValueError: for a setting that there is not, or a value that is not of its type.
        """
        values = vars(ExperimentConfig.get_from_yaml()) | _read_yaml_config(str(DEFAULTS))
        if path is not None:
            values |= _read_yaml_config(path)
        config: Self = build(cls, values, Path(path or DEFAULTS))
        return config

    def unused(self) -> list[str]:
        """Settings of ours that are not at their default, and that BenchMARL's own experiment ignores."""
        own = {field.name: field.default for field in fields(RunConfig)}
        for field in fields(ExperimentConfig):
            own.pop(field.name)
        return [name for name, default in own.items() if getattr(self, name) != default]
