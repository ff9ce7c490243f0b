"""The parts of a trust-region step: divergences, curvature times a vector, conjugate gradients, the step."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def hessian_product(
    value: Tensor, parameters: Sequence[Tensor], flatten: Callable[[Sequence[Tensor]], Tensor]
) -> Callable[[Tensor], Tensor]:
    """The function ``v -> H v`` for the Hessian H of a scalar, without ever building H.

    (Pearlmutter 1994.) Of the divergence from a policy to itself, H is Fisher's information matrix.

    Args:
        value: ``[]``, with its graph.
        parameters: that it depends on.
        flatten: picks the entries of tensors shaped like ``parameters`` that the vectors are made of.

    Returns:
        a function from ``[d]`` to ``[d]``.
    """
    gradient = flatten(torch.autograd.grad(value, parameters, create_graph=True))

    def product(vector: Tensor) -> Tensor:
        along = torch.dot(gradient, vector)
        return flatten(torch.autograd.grad(along, parameters, retain_graph=True)).detach()

    return product


def conjugate_gradient(
    product: Callable[[Tensor], Tensor],
    target: Tensor,
    *,
    n_iters: int = 10,
    tolerance: float = 1e-10,
) -> Tensor:
    """Approximate solution x of ``A x = b`` for a positive definite A, exact after ``d`` iterations.

    Args:
        product: ``v -> A v``.
        target: b, ``[d]``.
        n_iters: number of iterations; those after the squared residual is below ``tolerance`` change nothing.
        tolerance: see ``n_iters``.

    Returns:
        ``[d]``.
    """
    solution = torch.zeros_like(target)
    residual, direction = target.clone(), target.clone()
    square = torch.dot(residual, residual)
    for _ in range(n_iters):
        image = product(direction)
        goes_on = square > tolerance
        curvature = torch.dot(direction, image)
        length = torch.where(goes_on, square / torch.where(goes_on, curvature, 1.0), 0.0)
        solution = solution + length * direction
        residual = residual - length * image
        new_square = torch.dot(residual, residual)
        kept = torch.where(goes_on, new_square / torch.where(goes_on, square, 1.0), 0.0)
        direction = residual + kept * direction
        square = new_square
    return solution


def trust_region_step(direction: Tensor, image: Tensor, kl_threshold: float) -> Tensor:
    """The longest step along ``direction`` that a quadratic model of the divergence allows.

    (Schulman et al. 2015, https://arxiv.org/abs/1502.05477, appendix C)::

        sqrt(2 delta / (x' F x)) x

    Args:
        direction: x, ``[d]``.
        image: F x, ``[d]``.
        kl_threshold: delta, > 0, in nats.

    Returns:
        ``[d]``; zeros for a direction of zeros, and where x' F x is not finite.
    """
    curvature = torch.dot(direction, image)
    length = (2.0 * kl_threshold / curvature.clamp(min=torch.finfo(curvature.dtype).tiny)).sqrt()
    usable = (curvature > 0.0) & curvature.isfinite()
    return torch.where(usable, length * direction, torch.zeros_like(direction))
