"""The one place that words these errors. Python-only checks: they cost nothing once compiled."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral

import torch
from torch import Tensor

ONE_HOT = "Of one-hot rows take `.argmax(-1)`."


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


def check_bool(name: object, tensor: Tensor) -> None:
    """Raise unless ``tensor`` is bool. Of numbers, ``~``, ``&`` and ``where`` fail or mean something else.

    Args:
        name: the argument's name, or the key of an entry.
        tensor: the argument.

    Raises:
        TypeError: naming the argument and its type.
    """
    if tensor.dtype != torch.bool:
        raise TypeError(
            f"`{name}` must be bool, not {tensor.dtype}; `.bool()` makes it of 0 and 1."
        )


def check_indices(name: object, tensor: Tensor) -> None:
    """Raise unless ``tensor`` holds whole numbers of a type that torch takes as indices.

    Args:
        name: the argument's name, or the key of an entry.
        tensor: the argument.

    Raises:
        TypeError: naming the argument and its type.
    """
    if tensor.dtype not in (torch.int64, torch.int32):
        raise TypeError(
            f"`{name}` must hold indices of discrete actions, int64, not {tensor.dtype}; `.long()` makes "
            "them of whole numbers, `.argmax(-1)` of one-hot rows."
        )


def check_floats(name: object, tensor: Tensor) -> None:
    """Raise unless ``tensor`` holds floating-point numbers: of indices no actor is continuous.

    Args:
        name: the argument's name, or the key of an entry.
        tensor: the argument.

    Raises:
        TypeError: naming the argument and its type.
    """
    if not tensor.is_floating_point():
        raise TypeError(f"`{name}` must hold continuous actions, floats; got {tensor.dtype}.")


def check_discrete_action(action: Tensor, sizes: Sequence[int]) -> None:
    """Raise unless ``action`` ``[*B]`` holds indices, one beside each row of values.

    Args:
        action: the argument.
        sizes: of the values, ``[*B, n_actions]``.

    Raises:
        TypeError: naming its type, if these are no indices.
        ValueError: naming the sizes, and what to do about one-hot rows or a trailing 1.
    """
    hints = {(*sizes[:-1], 1): "Squeeze its trailing 1.", tuple(sizes): ONE_HOT}
    if tuple(action.shape) in hints:
        raise ValueError(
            f"`action` must be [*B] = {tuple(sizes[:-1])}, one index each; got {tuple(action.shape)}. "
            f"{hints[tuple(action.shape)]}"
        )
    check_indices("action", action)
    check_shape("action", action, sizes[:-1], "[*B]")


@contextmanager
def named_range(n_actions: int) -> Iterator[None]:
    """Say of torch's error about an index out of range that it is an action's. For eager code.

    The values are not looked at beforehand: on a GPU that would wait for it.

    Args:
        n_actions: number of actions.

    Raises:
        IndexError: instead of torch's error, with the range.
    """
    try:
        yield
    except (RuntimeError, IndexError) as error:
        if "out of bounds" not in str(error):
            raise
        raise IndexError(f"`action` must hold indices in [0, {n_actions}): {error}.") from error


def check_fraction(name: str, value: float) -> None:
    """Raise unless ``0 <= value <= 1`` (discounts, lambdas, mixing rates).

    Raises:
        TypeError: if it is no number.
        ValueError: naming the argument and its value.
    """
    _check_number(name, value)
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"`{name}` must lie in [0, 1]; got {value}.")


def check_between(name: str, value: float, low: float, high: float) -> None:
    """Raise unless ``low < value < high``.

    Raises:
        TypeError: if it is no number.
        ValueError: naming the argument and its value.
    """
    _check_number(name, value)
    if not low < value < high:
        raise ValueError(f"`{name}` must lie in ({low:g}, {high:g}); got {value}.")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise unless ``value`` is one of ``choices``.

    Raises:
        ValueError: naming the argument, its value and the choices.
    """
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}; got '{value}'.")


def check_finite(**numbers: float) -> None:
    """Raise unless every named number is finite.

    Raises:
        TypeError: naming the first that is no number.
        ValueError: naming the first that is not finite.
    """
    for name, number in numbers.items():
        _check_number(name, number)
        if not math.isfinite(number):
            raise ValueError(f"`{name}` must be a finite number; got {number!r}.")


def check_not_negative(**numbers: float) -> None:
    """Raise unless every named number is finite and at least 0.

    Raises:
        TypeError: naming the first that is no number.
        ValueError: naming the first that is not, and its value.
    """
    for name, number in numbers.items():
        _check_number(name, number)
        if not 0.0 <= number < math.inf:
            raise ValueError(f"`{name}` must be at least 0{_finite(number)}; got {number}.")


def check_positive(**numbers: float) -> None:
    """Raise unless every named number is finite and above 0.

    Raises:
        TypeError: naming the first that is no number.
        ValueError: naming the first that is not, and its value.
    """
    for name, number in numbers.items():
        _check_number(name, number)
        if not 0.0 < number < math.inf:
            raise ValueError(f"`{name}` must be above 0{_finite(number)}; got {number}.")


def check_count(**numbers: int) -> None:
    """Raise unless every named number is a whole one, at least 1. For constructors.

    Raises:
        TypeError: naming the first that is no whole number.
        ValueError: naming the first that is below 1.
    """
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, Integral):
            raise TypeError(f"`{name}` must be a whole number; got {number!r}.")
        if number < 1:
            raise ValueError(f"`{name}` must be at least 1; got {number}.")


def _check_number(name: str, value: object) -> None:
    # By what it is not: an array's 0-dimensional number is fine, and this runs inside graphs too.
    if value is None or isinstance(value, (str, list, tuple, dict)):
        raise TypeError(f"`{name}` must be a number; got {value!r}.")


def _finite(number: float) -> str:
    return "" if math.isfinite(number) else " and finite"


def _trailing_one_hint(
    name: str, shape: Sequence[int], first_name: str, first_shape: Sequence[int]
) -> str:
    if tuple(shape) == (*first_shape, 1):
        return f" Squeeze the trailing 1 of `{name}`."
    if tuple(first_shape) == (*shape, 1):
        return f" Squeeze the trailing 1 of `{first_name}`."
    return ""
