"""What an agent believes of the others' policies: likelihoods, divergences, and joint actions of beliefs.

Beliefs are distributions over actions as critics take them: ``softmax(logits)`` over one-hot discrete
actions, or independent normal distributions of continuous ones.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from marl_td.losses.functional.checks import check_exact_shape, check_same_shape


def inference_error(log_prob: Tensor, entropy: Tensor, *, entropy_coeff: float = 1e-3) -> Tensor:
    """Error of a belief about one observed action.

        error = -(log mu_hat(u | o) + lambda H(mu_hat(. | o)))

    (Lowe et al. 2017, https://arxiv.org/abs/1706.02275, eq. 7.)

    Args:
        log_prob: ``[*B]``, of the action that was taken, in nats.
        entropy: ``[*B]`` of the belief, in nats.
        entropy_coeff: lambda, >= 0.

    Returns:
        ``[*B]``.

    Raises:
        ValueError: if the shapes differ.
    """
    check_same_shape(log_prob=log_prob, entropy=entropy)
    return -(log_prob + entropy_coeff * entropy)


def believed_action_rows(believed: Sequence[Tensor], position: int, own_action: Tensor) -> Tensor:
    """The joint action as each agent of one group believes it to be, one row per agent.

        row_i = (u_hat_i^1, .., u_hat_i^{i-1}, v_i, u_hat_i^{i+1}, .., u_hat_i^N)

    (Lowe et al. 2017, https://arxiv.org/abs/1706.02275, eq. 8.) Of itself an agent knows what it does: v.

    Args:
        believed: for every group in the critic's order what each of the n agents believes of its agents'
            actions, ``[*B, n, n_agents_g, d_action_g]``.
        position: index in ``believed`` of the believers' own group.
        own_action: v, ``[*B, n, d_action]``.

    Returns:
        ``[*B, n, D]``, D the sum of ``n_agents_g * d_action_g`` over groups.

    Raises:
        ValueError: if ``own_action`` does not fit ``believed[position]``.

    Example:
        >>> of_others = torch.tensor([[[0.0], [2.0]], [[3.0], [0.0]]])
        >>> believed_action_rows([of_others], 0, torch.tensor([[10.0], [20.0]]))
        tensor([[10.,  2.],
                [ 3., 20.]])
    """
    group = believed[position]
    n_agents = group.shape[-2]
    expected = (*group.shape[:-3], n_agents, group.shape[-1])
    check_exact_shape("own_action", own_action, expected, "[*B, n, d_action]")
    own = torch.eye(n_agents, dtype=torch.bool, device=group.device).unsqueeze(-1)
    known = torch.where(own, own_action.unsqueeze(-3), group)
    rows = [*believed[:position], known, *believed[position + 1 :]]
    return torch.cat([row.flatten(-2) for row in rows], dim=-1)
