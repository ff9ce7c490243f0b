"""Mixing the agents' values into the value of the team.

A mixer keeps *individual-global-max* (IGM) if every agent choosing its own best action gives the
best joint action. Mixing that does not decrease in any agent's value does (Rashid et al. 2018).
"""

import torch
from torch import Tensor

from marl_td.losses.functional.checks import check_exact_shape


def mix_sum(local_value: Tensor) -> Tensor:
    """Value decomposition by a sum, ``Q_tot = sum_i Q_i``.

    (VDN, Sunehag et al. 2017, https://arxiv.org/abs/1706.05296, eq. 3.)

    Args:
        local_value: ``[*B, n_agents]``, value of each agent's action, in units of the return.

    Returns:
        ``[*B]``.

    Example:
        >>> import torch
        >>> mix_sum(torch.tensor([[1.0, 2.0, -4.0]]))
        tensor([-1.])
    """
    return local_value.sum(-1)


def mix_monotonic(
    local_value: Tensor, weight_1: Tensor, bias_1: Tensor, weight_2: Tensor, bias_2: Tensor
) -> Tensor:
    """Monotone two-layer mixing of QMIX.

        Q_tot = |W_2|^T ELU(|W_1|^T q + b_1) + b_2

    (Rashid et al. 2018, https://arxiv.org/abs/1803.11485, eq. 5 and figure 2.) The absolute values,
    taken here, make every ``dQ_tot / dQ_i`` non-negative; the biases have any sign.

    Args:
        local_value: ``[*B, n_agents]``, q, in units of the return.
        weight_1: ``[*B, n_agents, d_embed]``, W_1 before its absolute value.
        bias_1: ``[*B, d_embed]``, b_1.
        weight_2: ``[*B, d_embed]``, W_2 before its absolute value.
        bias_2: ``[*B]``, b_2: the state's own value.

    Returns:
        ``[*B]``.

    Raises:
        ValueError: if a shape does not fit that of ``local_value``, or the embedding widths differ.

    Example:
        >>> import torch
        >>> one = torch.ones(1)
        >>> mix_monotonic(torch.tensor([2.0, 3.0]), torch.tensor([[-1.0], [2.0]]), -one, -2 * one,
        ...               torch.tensor(0.5))
        tensor(14.5000)
    """
    batch, n_agents = local_value.shape[:-1], local_value.shape[-1]
    d_embed = bias_1.shape[-1]
    check_exact_shape("bias_1", bias_1, (*batch, d_embed), "[*B, d_embed]")
    check_exact_shape("weight_1", weight_1, (*batch, n_agents, d_embed), "[*B, n_agents, d_embed]")
    check_exact_shape("weight_2", weight_2, (*batch, d_embed), "[*B, d_embed]")
    check_exact_shape("bias_2", bias_2, batch, "[*B]")
    return _monotonic(local_value.unsqueeze(-2), weight_1, bias_1, weight_2, bias_2).squeeze(-1)


def monotonic_rows(
    rows: Tensor, weight_1: Tensor, bias_1: Tensor, weight_2: Tensor, bias_2: Tensor
) -> Tensor:
    """The network of :func:`mix_monotonic` on several rows with the same weights.

    Args:
        rows: ``[*B, n_rows, d]``.
        weight_1: ``[*B, d, d_embed]``.
        bias_1: ``[*B, d_embed]``.
        weight_2: ``[*B, d_embed]``.
        bias_2: ``[*B]``.

    Returns:
        ``[*B, n_rows]``.

    Raises:
        ValueError: if a shape does not fit that of ``rows``.
    """
    *batch, _, width = rows.shape
    d_embed = bias_1.shape[-1]
    check_exact_shape("weight_1", weight_1, (*batch, width, d_embed), "[*B, d, d_embed]")
    check_exact_shape("bias_2", bias_2, batch, "[*B]")
    return _monotonic(rows, weight_1, bias_1, weight_2, bias_2)


def _monotonic(
    rows: Tensor, weight_1: Tensor, bias_1: Tensor, weight_2: Tensor, bias_2: Tensor
) -> Tensor:
    hidden = torch.nn.functional.elu(rows @ weight_1.abs() + bias_1.unsqueeze(-2))
    return (hidden * weight_2.abs().unsqueeze(-2)).sum(-1) + bias_2.unsqueeze(-1)
