"""Networks from the composed settings, whose layers are named there as classes."""

from __future__ import annotations

from typing import Any

from benchmarl.hydra_config import load_model_config_from_hydra
from benchmarl.models.common import ModelConfig
from benchmarl.utils import _class_from_name
from omegaconf import DictConfig, OmegaConf

from marl_td.training.extras import NETWORKS


def model(place: str, config: DictConfig) -> ModelConfig:
    """The configuration of the networks at ``place`` (``"model"`` or ``"critic_model"``).

    Raises:
        ValueError: if a class that it names does not exist.
        ImportError: if the package behind one is not installed; the message has the command that gets it.
    """
    _check_classes(place, OmegaConf.to_container(config))
    return load_model_config_from_hydra(config)


def _check_classes(place: str, settings: Any) -> None:
    """Check that the classes which BenchMARL is about to import can be, those of all layers."""
    for name, layer in settings.get("layers", {}).items():
        _check_classes(f"{place}.layers.{name}", layer)
    for key, value in settings.items():
        if not str(key).endswith("class") or value is None:
            continue
        try:
            _class_from_name(str(value))
        except (ImportError, AttributeError, ValueError) as error:  # ValueError: without a module
            package = str(value).partition(".")[0]
            if package in NETWORKS and isinstance(error, ImportError):
                raise ImportError(
                    f"{place}.{key}={value} needs the package '{package}', which is not installed; get it "
                    f"with: {NETWORKS[package]}"
                ) from error
            raise ValueError(
                f"{place}.{key}: there is no class '{value}' ({error}); write its module before it, such as "
                "torch.nn.Tanh."
            ) from error
