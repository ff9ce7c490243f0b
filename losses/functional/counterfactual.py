"""COMA's counterfactual advantage, and the policy with a floor that it is taken under."""

import torch
from torch import Tensor

from marl_td.losses.functional.action_values import chosen_action_value, mask_unavailable
from marl_td.losses.functional.checks import check_same_shape, check_shape


def counterfactual_advantage(action_value: Tensor, probability: Tensor, action: Tensor) -> Tensor:
    """How much better an agent's action is than what its policy would do, the others' actions held fixed.

        A_i(u) = Q(u_i, u_-i) - sum over a of pi_i(a) Q(a, u_-i)

    (Foerster et al. 2018, https://arxiv.org/abs/1705.08926, eq. 4.) Its mean under the policy is 0, so that
    it changes no expected gradient.

    Args:
        action_value: ``[*B, n_actions]``: Q of each own action, finite also where one is unavailable.
        probability: like ``action_value``, of the policy that acted; 0 for unavailable actions.
        action: ``[*B]`` int64, what was done.

    Returns:
        ``[*B]``, in the unit of ``action_value``.

    Raises:
        ValueError: if shapes do not fit.

    Example:
        >>> import torch
        >>> value, probability = torch.tensor([4.0, 0.0]), torch.tensor([0.25, 0.75])
        >>> counterfactual_advantage(value, probability, torch.tensor(0))
        tensor(3.)
    """
    check_same_shape(action_value=action_value, probability=probability)
    baseline = (probability * action_value).sum(-1)
    return chosen_action_value(action_value, action) - baseline


def floored_log_probability(
    logits: Tensor, action_mask: Tensor | None, epsilon: Tensor | float
) -> Tensor:
    """Logarithm of a softmax policy with a floor under every available action.

        pi_eps(a) = (1 - eps) softmax(logits)(a) + eps / number of available actions

    (Foerster et al. 2018, section 5, "bounded softmax".)

    Args:
        logits: ``[*B, n_actions]``.
        action_mask: bool like ``logits``, true = available; None if all are.
        epsilon: eps in [0, 1], a number or a scalar tensor.

    Returns:
        Like ``logits``; unavailable actions are at the lowest finite number. Finite gradients for every eps.

    Raises:
        ValueError: if shapes do not fit.

    Example:
        >>> import torch
        >>> floored_log_probability(torch.tensor([9.0, 9.0]), None, 0.5).exp()
        tensor([0.5000, 0.5000])
    """
    if action_mask is not None:
        check_shape("action_mask", action_mask, logits.shape, "[*B, n_actions]")
        count = action_mask.sum(-1, keepdim=True).clamp(min=1).to(logits.dtype)
    else:
        count = torch.full_like(logits[..., :1], logits.shape[-1])
    epsilon = torch.as_tensor(epsilon, dtype=logits.dtype, device=logits.device)
    likely = mask_unavailable(logits, action_mask).log_softmax(-1)
    mixed = torch.logaddexp(likely + torch.log1p(-epsilon), epsilon.log() - count.log())
    return mask_unavailable(mixed, action_mask)
