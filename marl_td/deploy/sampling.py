"""Drawing actions from what a sampled actor writes. Numpy only."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from marl_td.deploy.signature import CATEGORICAL, TANH_NORMAL, AgentSignature, Array


def draw_action(
    agent: AgentSignature, outputs: Mapping[str, Array], rng: np.random.Generator
) -> Array:
    """Actions ``[B]`` (discrete) or ``[B, d]`` (continuous).

    Args:
        agent: whose actor it is.
        outputs: ``scores`` ``[B, n]``, logits with the lowest number for unavailable actions; or ``loc`` and
            ``scale`` ``[B, d]`` of a normal distribution, before it is squashed.
        rng: source of randomness.
    """
    if agent.distribution == CATEGORICAL:
        return draw_index(outputs["scores"], rng)
    loc, scale = outputs["loc"], outputs["scale"]
    noise = np.asarray(rng.standard_normal(loc.shape), dtype=loc.dtype)
    drawn: Array = loc + scale * noise
    if agent.distribution != TANH_NORMAL:
        return drawn
    low, high = np.asarray(agent.action.low), np.asarray(agent.action.high)
    inside = low + (np.tanh(drawn) + 1.0) * 0.5 * (high - low)
    return np.asarray(np.clip(inside, low, high), dtype=loc.dtype)


def draw_index(scores: Array, rng: np.random.Generator) -> Array:
    """An index ``[B]`` from the softmax of each row of ``scores`` ``[B, n]``.

    The largest score plus Gumbel noise; beside the lowest number of a type no noise counts, so that what is
    not available is never drawn.
    """
    noise = rng.gumbel(size=scores.shape)
    return np.asarray((scores + noise).argmax(-1), dtype=np.int64)
