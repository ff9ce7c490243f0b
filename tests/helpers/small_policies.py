"""Small untrained policies to export, with parameters far from their start."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torchrl.envs.utils import ExplorationType, set_exploration_type

from marl_td.deploy.source import PolicySource, policy_source
from marl_td.training.compose import compose
from marl_td.training.trained import TrainedRun, build_run

MLP = ("model.num_cells=[8]",)
GRU = (
    "model=layers/marl_td/gru",
    "model.hidden_size=6",
    "model.encoder_cells=[8]",
    "model.n_layers=2",
)
DISCRETE = ("experiment.prefer_continuous_actions=false",)
OWN = ("experiment.share_policy_params=false",)
RETAIL = ("task=marl_td/retail", "task.n_agents=2")


def small_source(algorithm: str, *overrides: str, task: tuple[str, ...] = RETAIL) -> PolicySource:
    """A policy whose actions differ from observation to observation (new ones hardly do)."""
    return small_run(algorithm, *overrides, task=task)[0]


def small_run(
    algorithm: str, *overrides: str, task: tuple[str, ...] = RETAIL
) -> tuple[PolicySource, TrainedRun]:
    """The same, and the run that it comes from: whole policy and environment."""
    run = build_run(compose([f"algorithm={algorithm}", *task, *overrides]), 1, "cpu")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in run.policy.named_parameters():
            noise = 0.1 if "bias" in name else 0.5  # large biases would decide alone
            parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
    return policy_source(run.policy, run.env, run.settings), run


def live_actions(source: PolicySource, inputs: TensorDict) -> dict[str, np.ndarray[Any, Any]]:
    """What the training policy does in evaluation, ``[B, n_agents, ...]`` for each group."""
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        return {
            group: policy(inputs.clone()).get((group, "action")).numpy()
            for group, policy in source.policies.items()
        }
