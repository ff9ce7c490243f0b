"""The one place that chooses how the targets of a critic V or Q on fresh data are normalised."""

from __future__ import annotations

from typing import Any

from marl_td.losses.value_norm import PopArt, ValueNorm


def value_norm(algorithm: Any, group: str, critic: Any) -> ValueNorm | None:
    """Statistics of the team with one critic for all agents, of each agent with one critic each; or none."""
    config = algorithm.config
    if config.value_norm == "none":
        return None
    n_agents = None if config.share_param_critic else algorithm.n_agents(group)
    if config.value_norm == "popart":
        return PopArt(critic, n_agents, beta=config.value_norm_beta)
    return ValueNorm(n_agents, beta=config.value_norm_beta)
