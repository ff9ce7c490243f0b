"""Target networks: deep copies of real modules, updated in place; and frozen views of live ones."""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from marl_td.losses.functional.checks import check_count, check_fraction

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def target_copy(module: ModuleT) -> ModuleT:
    """A deep copy of ``module`` whose parameters take no gradient: its target network."""
    copied = deepcopy(module)
    copied.requires_grad_(False)
    return copied


class FrozenView:
    """A twin of ``source`` in the same memory: gradients pass through it, and none ends in it.

    A deterministic actor's loss goes through the critic but must not leave a gradient there: trainers step
    the critic on its own loss. The twin's parameters take no gradient and share the storage of the live ones,
    so every in-place change (optimiser step, loaded checkpoint) is seen at once and nothing is copied.

    It is not an ``nn.Module``, so that its owner's parameters and state dict list nothing twice. Call
    :meth:`tie` after something has *replaced* the source's tensors (``.to(device)``, ``.double()``,
    ``load_state_dict(assign=True)``).

    Args:
        source: the live module.
    """

    def __init__(self, source: nn.Module) -> None:
        self.source = source
        self.module = target_copy(source)
        self.tie()

    def tie(self) -> None:
        """Point every parameter and buffer of the twin at the memory of the live one."""
        theirs = [*self.source.parameters(), *self.source.buffers()]
        ours = [*self.module.parameters(), *self.module.buffers()]
        for source, twin in zip(theirs, ours, strict=True):
            twin.data = source.data

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made from the source, so that theirs are tied too."""
        return FrozenView, (self.source,)


class TargetUpdater:
    """Moves target networks towards their sources, softly or by a copy, at each step or every few steps.

    Args:
        pairs: ``(source, target)`` modules of the same structure.
        tau: soft rate in (0, 1]: ``target <- (1 - tau) target + tau source``; None for hard copies.
        interval: they move at every ``interval``-th step.

    Raises:
        TypeError: if ``pairs`` is a module.
        ValueError: if ``tau`` is outside (0, 1], ``interval`` is below 1, or a pair's structures differ.
    """

    def __init__(
        self,
        pairs: Iterable[tuple[nn.Module, nn.Module]],
        *,
        tau: float | None = None,
        interval: int = 1,
    ) -> None:
        if tau is not None:
            check_fraction("tau", tau)
            if tau == 0.0:
                raise ValueError("`tau` must be above 0, or the target never moves; got 0.0.")
        check_count(interval=interval)
        if isinstance(pairs, nn.Module):
            raise TypeError(
                f"`pairs` must be (source, target) networks; got {type(pairs).__name__}. Of a loss give "
                "`loss.target_pairs()`."
            )
        self.tau = tau
        self.interval = interval
        self.n_steps = 0
        self._sources: list[Tensor] = []
        self._targets: list[Tensor] = []
        for source, target in pairs:
            self._add(source, target)

    def _add(self, source: nn.Module, target: nn.Module) -> None:
        theirs = _floating_tensors(source)
        ours = _floating_tensors(target)
        if [t.shape for t in theirs] != [t.shape for t in ours]:
            raise ValueError(
                "a target network must have its source's structure; build it with `target_copy`."
            )
        self._sources += theirs
        self._targets += ours

    @torch.no_grad()
    def step(self) -> None:
        """Call once after every optimiser step."""
        self.n_steps += 1
        if self.n_steps % self.interval:
            return
        if self.tau is not None:
            torch._foreach_lerp_(self._targets, self._sources, self.tau)
        else:
            torch._foreach_copy_(self._targets, self._sources)


def _floating_tensors(module: nn.Module) -> list[Tensor]:
    tensors = [*module.parameters(), *module.buffers()]
    return [tensor.data for tensor in tensors if tensor.is_floating_point()]
