"""The one place that words these errors. Python-only checks: they cost nothing once compiled."""

from collections.abc import Sequence

from torch import Tensor


def check_same_shape(**tensors: Tensor) -> None:
    """Raise unless all named tensors have the same shape.

    Broadcasting ``[4] - [4, 1]`` silently gives ``[4, 4]``; equal shapes are asked for instead.

    Raises:
        ValueError: naming the first pair that differs.
    """
    (first_name, first), *rest = tensors.items()
    for name, tensor in rest:
        if tensor.shape != first.shape:
            hint = _trailing_one_hint(name, tensor.shape, first_name, first.shape)
            raise ValueError(
                f"`{name}` must have the shape of `{first_name}`, {tuple(first.shape)}; "
                f"got {tuple(tensor.shape)}.{hint}"
            )


def check_shape(name: str, tensor: Tensor, expected: Sequence[int], layout: str) -> None:
    """Raise unless ``tensor`` ends in ``expected`` (``-1`` matches any size).

    Args:
        name: the argument's name.
        tensor: the argument.
        expected: the trailing sizes.
        layout: the shape in words, such as ``"[*B, n_agents, n_actions]"``.

    Raises:
        ValueError: naming the argument, the layout and the sizes.
    """
    tail = tuple(tensor.shape[-len(expected) :]) if expected else ()
    fits = len(tail) == len(expected) and all(
        want in (-1, got) for want, got in zip(expected, tail, strict=True)
    )
    if not fits:
        sizes = ", ".join("any" if size == -1 else str(size) for size in expected)
        raise ValueError(
            f"`{name}` must be {layout} with trailing sizes ({sizes}); got {tuple(tensor.shape)}."
        )


def check_exact_shape(name: str, tensor: Tensor, expected: Sequence[int], layout: str) -> None:
    """Raise unless ``tensor`` has exactly the shape ``expected``, batch dimensions included.

    Args:
        name: the argument's name.
        tensor: the argument.
        expected: all sizes.
        layout: the shape in words, such as ``"[*B, n_agents]"``.

    Raises:
        ValueError: naming the argument, the layout and the sizes.
    """
    if tensor.shape != tuple(expected):
        raise ValueError(
            f"`{name}` must be {layout} = {tuple(expected)}; got {tuple(tensor.shape)}."
        )


def check_fraction(name: str, value: float) -> None:
    """Raise unless ``0 <= value <= 1`` (discounts, lambdas, mixing rates).

    Raises:
        ValueError: naming the argument and its value.
    """
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"`{name}` must lie in [0, 1]; got {value}.")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise unless ``value`` is one of ``choices``.

    Raises:
        ValueError: naming the argument, its value and the choices.
    """
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}; got '{value}'.")


def check_not_negative(**numbers: float) -> None:
    """Raise unless every named number is at least 0.

    Raises:
        ValueError: naming the first that is not, and its value.
    """
    for name, number in numbers.items():
        if number < 0.0:
            raise ValueError(f"`{name}` must be at least 0; got {number}.")


def _trailing_one_hint(
    name: str, shape: Sequence[int], first_name: str, first_shape: Sequence[int]
) -> str:
    if tuple(shape) == (*first_shape, 1):
        return f" Squeeze the trailing 1 of `{name}`."
    if tuple(first_shape) == (*shape, 1):
        return f" Squeeze the trailing 1 of `{first_name}`."
    return ""
