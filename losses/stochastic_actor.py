"""The stochastic actor of a loss: its parts, its distribution, and how likely it finds actions."""

from collections.abc import Iterable
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictSequential
from torch import Tensor
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules.distributions import MaskedOneHotCategorical, OneHotCategorical

from marl_td.losses.arguments import kind_of, uncompiled
from marl_td.losses.entries import flag
from marl_td.losses.functional.checks import check_discrete_action, check_floats, named_range

ONE_HOT = (OneHotCategorical, MaskedOneHotCategorical, torch.distributions.OneHotCategorical)
"""Distributions of one-hot rows, which have ``logits`` as those of indices do."""


def actor_parts(actor: Any) -> tuple[list[Any], Any]:
    """The layers of a stochastic actor, and the head that makes its distribution.

    Raises:
        TypeError: if it has no distribution at its end.
    """
    actor = uncompiled(actor)
    parts = list(actor) if isinstance(actor, TensorDictSequential) else []
    if not parts or not hasattr(type(parts[-1]), "get_dist"):
        raise TypeError(
            f"`actor` must end in a distribution of actions; got {kind_of(actor)}. Make it a "
            "torchrl.modules.ProbabilisticActor."
        )
    return parts[:-1], parts[-1]


def action_distribution(layers: Iterable[Any], head: Any, tensordict: TensorDictBase) -> Any:
    """The distribution that ``head`` makes of what ``layers`` write; ``tensordict`` is left unchanged.

    Raises:
        TypeError: if the head reads an ``action_mask`` that is not bool: some take numbers for indices.
    """
    inputs = tensordict.copy()
    for layer in layers:
        inputs = layer(inputs)
    for key in head.in_keys:
        if not isinstance(key, str) and key[-1] == "action_mask":
            flag(inputs, key)
    return head.get_dist(inputs)


def log_prob_of(distribution: Any, action: Tensor) -> Tensor:
    """Log-probability ``[*B, n_agents]`` of the agents' actions.

    Raises:
        IndexError: for an index out of range; in a compiled graph that may give anything.
        TypeError: if discrete actions are no indices, or continuous ones no floats.
        ValueError: if their shape is not that of the distribution's actions.
    """
    logits = getattr(distribution, "logits", None)
    if logits is None:
        _check_continuous(action, (*distribution.batch_shape, *distribution.event_shape))
    elif not isinstance(distribution, ONE_HOT):
        check_discrete_action(action, logits.shape)
        if not torch.compiler.is_compiling():
            with named_range(logits.shape[-1]):
                return distribution.log_prob(action)
    elif action.shape != logits.shape:
        raise ValueError(
            f"`action` must be one-hot rows {tuple(logits.shape)}, as the actor's "
            f"{type(distribution).__name__} has them; got {tuple(action.shape)}."
        )
    return distribution.log_prob(action)


def _check_continuous(action: Tensor, shape: tuple[int, ...]) -> None:
    check_floats("action", action)
    if action.shape != shape:
        raise ValueError(
            f"`action` must be [*B, n_agents, d_action] = {tuple(shape)}, as the actor's; got "
            f"{tuple(action.shape)}."
        )


def draw_actions(
    policy: Any, group: str, seen: TensorDictBase, everybody: TensorDictBase
) -> Tensor:
    """Actions that a policy draws, each step by itself: a sequence of one step for networks with a memory.

    Args:
        policy: reads entries of ``group``, with a memory ``"is_init"``, and perhaps entries of all groups;
            writes ``(group, "action")``.
        group: its name.
        seen: what the group sees, ``[*B, n_agents]``; hidden states among it.
        everybody: where entries of all groups are, ``[*B]``.

    Returns:
        ``[*B, n_agents, ...]``.
    """
    rows = TensorDict({group: seen}, batch_size=seen.batch_size[:-1])
    for key in policy.in_keys:
        if isinstance(key, str) and key in everybody.keys():
            rows.set(key, everybody.get(key))
    rows = rows.reshape(-1, 1)
    rows.set("is_init", torch.zeros((*rows.shape, 1), dtype=torch.bool, device=seen.device))
    with set_exploration_type(ExplorationType.RANDOM):
        action = policy(rows)[group, "action"]
    return action.reshape(*seen.batch_size[:-1], *action.shape[2:])
