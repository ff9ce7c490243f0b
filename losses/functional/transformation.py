"""Conditions that tie a sum of agents' values to an unrestricted joint value (QTRAN)."""

from torch import Tensor

from marl_td.losses.functional.action_values import greedy_value
from marl_td.losses.functional.checks import check_exact_shape, check_same_shape


def transformation_gap(sum_value: Tensor, joint_value: Tensor, state_value: Tensor) -> Tensor:
    """How far the sum of the agents' values lies above the joint value.

        gap(u) = sum_i Q_i(u_i) - Q_jt(u) + V

    (Son et al. 2019, https://arxiv.org/abs/1905.05408, Theorem 1.) If the gap is 0 at the agents' greedy
    joint action and at least 0 everywhere, that joint action is the best one by Q_jt.

    Args:
        sum_value: ``[*B]``, sum of the agents' values of u, in units of the return.
        joint_value: ``[*B]``, Q_jt(u).
        state_value: ``[*B]``, V.

    Returns:
        ``[*B]``.

    Raises:
        ValueError: if shapes differ.
    """
    check_same_shape(sum_value=sum_value, joint_value=joint_value, state_value=state_value)
    return sum_value - joint_value + state_value


def below_zero_error(gap: Tensor) -> Tensor:
    """Squared part of ``gap`` ``[*B]`` that lies below 0 (the term of L_nopt, Son et al. 2019).

    Example:
        >>> import torch
        >>> below_zero_error(torch.tensor([2.0, -3.0]))
        tensor([0., 9.])
    """
    return gap.clamp(max=0.0).square()


def counterfactual_error(
    local_value: Tensor,
    action_value: Tensor,
    counterfactual_value: Tensor,
    state_value: Tensor,
    action_mask: Tensor | None = None,
    alive: Tensor | None = None,
) -> Tensor:
    """Squared smallest gap over each agent's own actions, the others' held; the mean over the agents.

        D_i(a)  = Q_i(a) + sum of Q_j(u_j) over j != i - Q_jt(a, u_{-i}) + V
        error   = mean over i of (min over a of D_i(a))^2

    (The term of QTRAN-alt's L_nopt-min, Son et al. 2019, https://arxiv.org/abs/1905.05408.) At the smallest
    the gap must be 0, not only at least 0: a stronger tie than QTRAN-base's.

    Args:
        local_value: ``[*B, n_agents]``, Q_j(u_j), 0 for dead agents.
        action_value: ``[*B, n_agents, n_actions]``, Q_i.
        counterfactual_value: ``[*B, n_agents, n_actions]``, Q_jt(a, u_{-i}).
        state_value: ``[*B]``, V.
        action_mask: ``[*B, n_agents, n_actions]`` bool, true = available; None if all are.
        alive: ``[*B, n_agents]`` bool; dead agents are left out of the mean. None if all are alive.

    Returns:
        ``[*B]``; 0 where all are dead.

    Raises:
        ValueError: if shapes do not fit.

    Example:
        >>> import torch
        >>> own = torch.tensor([[1.0, 4.0]])
        >>> counterfactual_error(own[:, 0], own, torch.tensor([[3.0, 9.0]]), torch.tensor(2.0))
        tensor(9.)
    """
    *batch, n_agents, _ = action_value.shape
    check_same_shape(action_value=action_value, counterfactual_value=counterfactual_value)
    check_exact_shape("local_value", local_value, (*batch, n_agents), "[*B, n_agents]")
    check_exact_shape("state_value", state_value, batch, "[*B]")
    others = local_value.sum(-1, keepdim=True) - local_value
    gap = action_value + others.unsqueeze(-1) - counterfactual_value
    gap = gap + state_value.unsqueeze(-1).unsqueeze(-1)
    error = greedy_value(gap, -gap, action_mask).square()  # [*B, n_agents], at the smallest gap
    if alive is None:
        return error.mean(-1)
    check_exact_shape("alive", alive, (*batch, n_agents), "[*B, n_agents]")
    weight = alive.to(error.dtype)
    return (weight * error).sum(-1) / weight.sum(-1).clamp(min=1.0)
