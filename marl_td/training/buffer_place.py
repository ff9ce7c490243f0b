"""Where replayed data is kept: ``experiment.buffer_device=auto`` is where the training is, if it fits."""

from __future__ import annotations

from typing import Any

import torch
from torchrl.envs import EnvBase

SHARE = 0.5
"""Of the training device's free memory that replayed data may take."""


def row_bytes(env: EnvBase) -> int:
    """Bytes of one step of one copy of the environment, with what follows it."""
    fake = env.fake_tensordict()
    values = fake.values(include_nested=True, leaves_only=True)
    n_copies = max(1, fake.batch_size.numel())
    return sum(value.numel() * value.element_size() for value in values) // n_copies


def buffer_device(config: Any, env: EnvBase, n_groups: int, *, on_policy: bool) -> str:
    """The device for replayed data that ``config.buffer_device`` asks for.

    ``auto`` is the training device, or the CPU where the replay of all groups would take more than half of
    what is free there. Anything else is taken as it is.
    """
    if config.buffer_device != "auto":
        return str(config.buffer_device)
    device = torch.device(config.train_device)
    if device.type != "cuda":
        return str(config.train_device)
    needed = n_groups * config.replay_buffer_memory_size(on_policy) * row_bytes(env)
    free, _ = torch.cuda.mem_get_info(device)
    return str(config.train_device) if needed <= SHARE * free else "cpu"
