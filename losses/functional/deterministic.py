"""Deterministic policy gradients with many agents: joint actions, and discrete actions with a gradient."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import softmax

from marl_td.losses.functional.action_values import mask_unavailable, one_hot_action
from marl_td.losses.functional.checks import check_not_negative, check_same_shape


def joint_action_rows(
    actions: Sequence[Tensor], position: int, own_action: Tensor | None = None
) -> Tensor:
    """The joint action as the critic of each agent of one group takes it, one row per agent.

        row_i = (u_1, .., u_N)                         without ``own_action``
        row_i = (u_1, .., u_{i-1}, v_i, u_{i+1}, .., u_N)   with ``own_action`` v

    The second form is the actor loss of MADDPG (Lowe et al. 2017, https://arxiv.org/abs/1706.02275, eq. 6):
    each agent's critic is asked about this agent's new action while all others did what they did.

    Args:
        actions: every group's actions u, ``[*B, n_agents_g, d_action_g]``, in the critic's order.
        position: index in ``actions`` of the group whose critics are asked.
        own_action: v, like ``actions[position]``.

    Returns:
        ``[*B, n_agents, D]``, D the sum of ``n_agents_g * d_action_g`` over groups. Gradient flows from row i
        to ``own_action[i]`` only, and to every entry of ``actions`` that it holds.

    Raises:
        ValueError: if ``own_action`` differs in shape from ``actions[position]``.

    Example:
        >>> import torch
        >>> joint_action_rows([torch.tensor([[1.0], [2.0]])], 0, torch.tensor([[10.0], [20.0]]))
        tensor([[10.,  2.],
                [ 1., 20.]])
    """
    group = actions[position]
    n_agents = group.shape[-2]
    rows = [_expand_rows(action.flatten(-2), n_agents) for action in actions]
    if own_action is not None:
        check_same_shape(action=group, own_action=own_action)
        own = torch.eye(n_agents, dtype=torch.bool, device=group.device).unsqueeze(-1)
        mixed = torch.where(own, own_action.unsqueeze(-3), group.unsqueeze(-3))
        rows[position] = mixed.flatten(-2)
    return torch.cat(rows, dim=-1)


def _expand_rows(joint: Tensor, n_agents: int) -> Tensor:
    """``[*B, D]`` to ``[*B, n_agents, D]``, all rows alike."""
    return joint.unsqueeze(-2).expand(*joint.shape[:-1], n_agents, joint.shape[-1])


def gumbel_noise(like: Tensor) -> Tensor:
    """Standard Gumbel noise ``-log(-log u)``, shaped like ``like``."""
    # The same numbers whatever the order in memory of `like`, which is another one in a graph.
    return gumbel_of_uniform(torch.rand_like(like, memory_format=torch.contiguous_format))


def gumbel_of_uniform(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise from uniform noise in [0, 1)."""
    return -torch.log(-torch.log(uniform.clamp(min=torch.finfo(uniform.dtype).tiny)))


def smoothing_noise(like: Tensor, *, sigma: float, clip: float) -> Tensor:
    """Clipped Gaussian noise ``clip(N(0, sigma), -clip, clip)``, shaped like ``like``.

    Target policy smoothing of TD3 (Fujimoto et al. 2018, https://arxiv.org/abs/1802.09477, eq. 14): critics
    give similar actions similar values, so that an actor cannot climb a narrow false peak.

    Args:
        like: ``[*B]``; only its shape, type and device matter.
        sigma: standard deviation before clipping, >= 0, in units of the action.
        clip: largest noise, >= 0, in units of the action.

    Raises:
        ValueError: if a number is negative.
    """
    check_not_negative(sigma=sigma, clip=clip)
    noise = torch.randn_like(like, memory_format=torch.contiguous_format)
    return (sigma * noise).clamp(-clip, clip)


def straight_through(
    logits: Tensor,
    action_mask: Tensor | None = None,
    noise: Tensor | None = None,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """One-hot action whose gradient is that of the softmax it was drawn from.

        p = softmax((logits + noise) / temperature),   action = onehot(argmax p) + p - stop_gradient(p)

    With :func:`gumbel_noise` this is the straight-through Gumbel-softmax (Jang et al. 2017,
    https://arxiv.org/abs/1611.01144): the action is a sample from ``softmax(logits)``. Without noise it is
    the greedy action.

    Args:
        logits: ``[*B, n_actions]``.
        action_mask: ``[*B, n_actions]`` bool, true = available; None if all are. An unavailable action is
            never drawn and gets no gradient. At least one must be available.
        noise: ``[*B, n_actions]``; None for the greedy action.
        temperature: smoothness of the gradient, > 0.

    Returns:
        ``[*B, n_actions]``, exactly one-hot.

    Raises:
        ValueError: if shapes differ or ``temperature`` is not above 0.

    Example:
        >>> import torch
        >>> straight_through(torch.tensor([1.0, 3.0, 2.0]))
        tensor([0., 1., 0.])
    """
    if not temperature > 0.0:
        raise ValueError(f"`temperature` must be above 0; got {temperature}.")
    if noise is not None:
        check_same_shape(logits=logits, noise=noise)
        logits = logits + noise
    logits = mask_unavailable(logits / temperature, action_mask)
    relaxed = softmax(logits, dim=-1)
    hard = one_hot_action(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
    return hard + (relaxed - relaxed.detach())
