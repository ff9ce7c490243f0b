"""Choosing among action values, with unavailable actions handled in one place."""

import torch
from torch import Tensor

from marl_td.losses.functional.checks import (
    check_bool,
    check_discrete_action,
    check_indices,
    check_same_shape,
    check_shape,
    named_range,
)


def mask_unavailable(action_value: Tensor, action_mask: Tensor | None) -> Tensor:
    """``action_value`` with unavailable actions at the lowest finite number of its type.

    No gradient flows into unavailable entries.

    Args:
        action_value: ``[*B, n_actions]``, any unit.
        action_mask: ``[*B, n_actions]`` bool, true = available; None if all are.

    Returns:
        ``[*B, n_actions]``.

    Raises:
        TypeError: if ``action_mask`` is not bool.
        ValueError: if the shapes differ.
    """
    if action_mask is None:
        return action_value
    check_bool("action_mask", action_mask)
    check_shape("action_mask", action_mask, action_value.shape, "[*B, n_actions]")
    lowest = torch.finfo(action_value.dtype).min
    return torch.where(action_mask, action_value, lowest)


def masked_argmax(action_value: Tensor, action_mask: Tensor | None = None) -> Tensor:
    """Index ``[*B]`` of the largest available action value; ties go to the first."""
    return mask_unavailable(action_value, action_mask).argmax(-1)


def masked_max(action_value: Tensor, action_mask: Tensor | None = None) -> Tensor:
    """Largest available action value, ``[*B]``.

    At least one action must be available, or the result is the lowest finite number.

    Example:
        >>> import torch
        >>> value = torch.tensor([1.0, 5.0, 3.0])
        >>> masked_max(value, torch.tensor([True, False, True]))
        tensor(3.)
    """
    return mask_unavailable(action_value, action_mask).amax(-1)


def chosen_action_value(action_value: Tensor, action: Tensor) -> Tensor:
    """Value of the chosen action.

    Args:
        action_value: ``[*B, n_actions]``.
        action: ``[*B]`` int64 indices.

    Returns:
        ``[*B]``.

    Raises:
        TypeError: if ``action`` holds no indices.
        ValueError: if ``action`` is not ``[*B]``.
        IndexError: for an index out of range; in a compiled graph that gives 0.
    """
    check_discrete_action(action, action_value.shape)
    if not torch.compiler.is_compiling():
        with named_range(action_value.shape[-1]):
            return action_value.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    # In a graph `gather` takes numbers one by one, and its gradient puts them back one by one.
    actions = torch.arange(action_value.shape[-1], device=action.device)
    return torch.where(actions == action.unsqueeze(-1), action_value, 0.0).sum(-1)


def greedy_value(
    action_value: Tensor, selecting_value: Tensor, action_mask: Tensor | None = None
) -> Tensor:
    """Value of the greedy available action, chosen by other values than it is judged by.

        v = Q(argmax_a S(a))

    With S from the live and Q from the target network this is double Q-learning (van Hasselt et
    al. 2016, https://arxiv.org/abs/1509.06461, eq. 4); with S = Q it is the maximum. Where no
    action is available the first one counts: the result is always one of the given values.

    Args:
        action_value: ``[*B, n_actions]``, Q.
        selecting_value: ``[*B, n_actions]``, S.
        action_mask: ``[*B, n_actions]`` bool, true = available; None if all are.

    Returns:
        ``[*B]``; gradient flows into ``action_value`` only.

    Raises:
        ValueError: if shapes differ.

    Example:
        >>> import torch
        >>> target = torch.tensor([4.0, 9.0, 6.0])
        >>> live = torch.tensor([1.0, 2.0, 3.0])
        >>> greedy_value(target, live), greedy_value(target, target)
        (tensor(6.), tensor(9.))
    """
    check_same_shape(action_value=action_value, selecting_value=selecting_value)
    return chosen_action_value(action_value, masked_argmax(selecting_value, action_mask))


def one_hot_action(action: Tensor, n_actions: int) -> Tensor:
    """The action as a row of zeros with a one.

    Unlike ``torch.nn.functional.one_hot`` it never looks at the values, so that nothing waits for a GPU and
    graphs stay whole; an index out of range gives zeros.

    Args:
        action: ``[*B]`` int64 indices.
        n_actions: number of actions.

    Returns:
        ``[*B, n_actions]`` of the default float type.

    Raises:
        TypeError: if ``action`` holds no indices.

    Example:
        >>> import torch
        >>> one_hot_action(torch.tensor([2, 0]), 3)
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """
    check_indices("action", action)
    index = torch.arange(n_actions, device=action.device)
    return (action.unsqueeze(-1) == index).to(torch.get_default_dtype())
