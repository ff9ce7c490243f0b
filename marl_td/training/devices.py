"""Devices that settings name: whether this machine has them."""

from __future__ import annotations

from typing import Any

import torch

DEVICES = ("sampling_device", "train_device", "buffer_device")
"""Experiment settings that name a device."""
PLACES = ("auto", "disk")
"""What ``buffer_device`` may be beside a device."""


def reason_against(device: str) -> str | None:
    """Why ``device`` cannot be computed on here, or None if it can."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts that it has it
        return str(error).strip().partition("\n")[0].rstrip(".")
    return None


def check_devices(config: Any) -> None:
    """Check that this machine has the devices of an experiment's settings.

    Raises:
        ValueError: naming the setting, and the devices that there are.
    """
    for name in DEVICES:
        device = str(getattr(config, name))
        if name == "buffer_device" and device in PLACES:
            continue
        reason = reason_against(device)
        if reason is not None:
            there = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
            raise ValueError(
                f"experiment.{name}={device} cannot be used on this machine: {reason}. It has {there}; "
                f"set experiment.{name} to one of them."
            )


def move_to_what_is_here(config: Any) -> None:
    """Replace devices that this machine lacks by the CPU, in an experiment's settings."""
    for name in DEVICES:
        device = str(getattr(config, name))
        if device not in PLACES and reason_against(device) is not None:
            setattr(config, name, "cpu")
