"""Model settings with layer normalisation switched on."""

from __future__ import annotations

from dataclasses import replace

import torch
from benchmarl.models.common import ModelConfig, SequenceModelConfig
from benchmarl.models.mlp import MlpConfig

from marl_td.models.gru import StatefulGruConfig


def normalised(model: ModelConfig) -> ModelConfig:
    """``model`` with every hidden layer normalised before its activation (Ba et al. 2016).

    A multi-layer perceptron that has a normalisation keeps it.

    Raises:
        ValueError: for a model of which it is not known how.
    """
    if isinstance(model, SequenceModelConfig):
        parts = [normalised(part) for part in model.model_configs]
        return SequenceModelConfig(model_configs=parts, intermediate_sizes=model.intermediate_sizes)
    if isinstance(model, StatefulGruConfig):
        return replace(model, layer_norm=True)
    if isinstance(model, MlpConfig):
        if model.norm_class is not None:
            return model
        sizes = [{"normalized_shape": int(size)} for size in model.num_cells]
        return replace(model, norm_class=torch.nn.LayerNorm, norm_kwargs=sizes)
    name = type(model).__name__.removesuffix("Config").lower()
    raise ValueError(
        f"it is not known how to normalise the layers of the model '{name}'; use layers/mlp or "
        "layers/marl_td/gru, or set algorithm.layer_norm=false."
    )
