"""The parts of a trust-region step: divergences, curvature times a vector, conjugate gradients, the step."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from marl_td.losses.functional.checks import check_same_shape


def categorical_divergence(old_log_probs: Tensor, log_probs: Tensor) -> Tensor:
    """Kullback-Leibler divergence ``sum_a p_old(a) (log p_old(a) - log p(a))`` in nats.

    Args:
        old_log_probs: ``[*B, n_actions]``, normalised; ``-inf`` for actions that are not available.
        log_probs: ``[*B, n_actions]``, normalised, over the same actions.

    Returns:
        ``[*B]``.

    Raises:
        ValueError: if shapes differ.
    """
    check_same_shape(old_log_probs=old_log_probs, log_probs=log_probs)
    possible = old_log_probs.isfinite()
    # Filled before the difference: the gradient of what is left out must be 0, not undefined.
    gap = torch.where(possible, old_log_probs, 0.0) - torch.where(possible, log_probs, 0.0)
    return (old_log_probs.exp() * gap).sum(-1)


def normal_divergence(old_loc: Tensor, old_scale: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Kullback-Leibler divergence of normals with independent dimensions, in nats.

    From the old to the new::

        sum_k  log(s / s_old) + (s_old^2 + (m_old - m)^2) / (2 s^2) - 1/2

    It is also that of what the same invertible map (such as tanh) makes of them.

    Args:
        old_loc: ``[*B, d]``.
        old_scale: ``[*B, d]``, > 0.
        loc: ``[*B, d]``.
        scale: ``[*B, d]``, > 0.

    Returns:
        ``[*B]``.

    Raises:
        ValueError: if shapes differ.
    """
    check_same_shape(old_loc=old_loc, old_scale=old_scale, loc=loc, scale=scale)
    ratio = (old_scale / scale).square()
    gap = ((old_loc - loc) / scale).square()
    return (0.5 * (ratio + gap - 1.0) - 0.5 * ratio.log()).sum(-1)


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
        ``[d]``; zeros for a direction of zeros.
    """
    curvature = torch.dot(direction, image)
    length = (2.0 * kl_threshold / curvature.clamp(min=torch.finfo(curvature.dtype).tiny)).sqrt()
    return torch.where(curvature > 0.0, length * direction, torch.zeros_like(direction))
