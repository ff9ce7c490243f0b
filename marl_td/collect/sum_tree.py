"""Sums of many numbers that change a few at a time, and draws in proportion to the numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

FAN_OUT = 32
"""Numbers under one sum. Each level costs the same few calls, so that a wide tree beats a binary one."""
TOP = 4096
"""Sums at the top, which are searched as one row: adding them up costs less than another level."""
BELOW_ONE = 1.0 - 2.0**-52


class SumTree:
    """Numbers ``[size]``, all >= 0 and 0 at first, with the sums of every ``fan_out`` of them, and so on.

    Changing or drawing ``k`` numbers takes a few tensor operations a level, without a host synchronisation;
    up to 131,072 numbers there is one level under the top. Sums are always taken anew, in double
    precision, and so do not drift.

    Args:
        size: how many numbers, at least 1.
        device: where they are.
        fan_out: numbers under one sum, at least 2.
        top: most sums at the top.

    Raises:
        ValueError: if ``size`` is below 1.

    Example:
        >>> import torch
        >>> tree = SumTree(3)
        >>> tree.set(torch.tensor([0, 2]), torch.tensor([1.0, 3.0], dtype=torch.float64))
        >>> index, value = tree.find(torch.tensor([0.2, 0.3], dtype=torch.float64))
        >>> index
        tensor([0, 2])
    """

    def __init__(
        self, size: int, device: Any = "cpu", *, fan_out: int = FAN_OUT, top: int = TOP
    ) -> None:
        if size < 1:
            raise ValueError(f"a sum tree holds at least 1 number; got size={size}.")
        self.size, self.fan_out = size, fan_out
        lengths = [size]
        while lengths[0] > top:
            n_sums = -(-lengths[0] // fan_out)
            lengths[0] = n_sums * fan_out
            lengths.insert(0, n_sums)
        self.levels = [torch.zeros(n, dtype=torch.float64, device=device) for n in lengths]

    @property
    def numbers(self) -> Tensor:
        """The numbers ``[size]``."""
        return self.levels[-1][: self.size]

    def total(self) -> Tensor:
        """The sum of all, ``[]``."""
        return self.levels[0].sum()

    def set(self, index: Tensor, value: Tensor) -> None:
        """Change the numbers at ``index`` ``[k]`` to ``value`` ``[k]``; the largest where one comes twice."""
        self.levels[-1].scatter_reduce_(0, index, value, "amax", include_self=False)
        for upper, lower in zip(self.levels[-2::-1], self.levels[:0:-1], strict=True):
            index = index // self.fan_out
            below = lower.view(-1, self.fan_out).index_select(0, index)
            upper.scatter_(0, index, below.sum(-1))

    def find(self, fraction: Tensor) -> tuple[Tensor, Tensor]:
        """Where the running sum of the numbers first exceeds ``fraction`` of the total.

        A number is found in proportion to its size by fractions that are uniform in [0, 1); one that is 0
        never is. The total must be above 0.

        Args:
            fraction: ``[k]`` in [0, 1), double precision.

        Returns:
            Index ``[k]``, and the numbers there.
        """
        top = self.levels[0]
        sums = top.cumsum(0)
        mass = fraction.clamp(max=BELOW_ONE) * sums[-1]
        index = torch.searchsorted(sums, mass, right=True)
        value = top[index]
        mass = mass - (sums[index] - value)
        for level in self.levels[1:]:
            below = level.view(-1, self.fan_out).index_select(0, index)
            sums = below.cumsum(-1)
            # Rounding must not lead past the last number above 0, nor before the first.
            mass = torch.minimum(mass, sums[:, -1] * BELOW_ONE).clamp_(min=0.0).unsqueeze(-1)
            child = torch.searchsorted(sums, mass, right=True)
            value = below.gather(-1, child)
            mass = (mass - (sums.gather(-1, child) - value)).squeeze(-1)
            index = index * self.fan_out + child.squeeze(-1)
            value = value.squeeze(-1)
        return index, value

    def zero_(self) -> None:
        """Make all numbers 0."""
        for level in self.levels:
            level.zero_()

    def state(self) -> Tensor:
        """All numbers and sums in one tensor, a copy."""
        return torch.cat(self.levels)

    def load(self, state: Tensor) -> None:
        """Take over what :meth:`state` gave, to the last bit.

        Raises:
            ValueError: if it is of a tree of another size.
        """
        lengths = [len(level) for level in self.levels]
        if state.shape != (sum(lengths),):
            raise ValueError(
                f"this tree of {self.size} numbers takes a state {(sum(lengths),)}; got "
                f"{tuple(state.shape)}, of a tree of another size."
            )
        for level, saved in zip(self.levels, state.split(lengths), strict=True):
            level.copy_(saved)
