"""The error of a value against its target, by name."""

from typing import Literal

from torch import Tensor
from torch.nn.functional import huber_loss
from torchrl.objectives.utils import distance_loss

LOSS_FUNCTIONS = ("l2", "l1", "smooth_l1", "huber")
LossFunction = Literal["l2", "l1", "smooth_l1", "huber"]


def regression_error(
    value: Tensor, target: Tensor, loss_function: LossFunction, huber_delta: float
) -> Tensor:
    """Unreduced error, shaped like ``value``.

    Args:
        value: ``[*B]``.
        target: ``[*B]``.
        loss_function: one of ``LOSS_FUNCTIONS``.
        huber_delta: error at which ``"huber"`` becomes linear, > 0.
    """
    if loss_function == "huber":
        return huber_loss(value, target, reduction="none", delta=huber_delta)
    return distance_loss(value, target, loss_function)
