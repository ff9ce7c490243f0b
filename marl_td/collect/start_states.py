"""Start states that a batch holds ready for its ends of episodes: how many, and which."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from marl_td.tasks.base import Noise, Task

DRAWN_AT_ONCE = 256
"""How many a task draws at once, at least, where drawing one takes as long as drawing many."""


class StartStates:
    """The noise of a batch's fresh episodes, of which each environment uses as many as it needs.

    Where a task draws them slowly, those that a batch has not used are there for the next one, and new ones
    are drawn many at a time.

    Args:
        task: draws them.
        n_envs: number of environments.
        n_steps: steps of a batch.
        number: of every environment in a batch, from the first again if more are needed. None takes as many
            as its episodes usually need, and more from the first batch on that needs more.
    """

    def __init__(
        self, task: Task[Any, Any], n_envs: int, n_steps: int, number: int | None = None
    ) -> None:
        self.task, self.n_envs, self.n_steps = task, n_envs, n_steps
        self.number = number or 1 + (n_steps - 1) // task.usual_episode
        self.fixed = number is not None or not task.terminates
        self.forget()

    def forget(self) -> None:
        """Have none, so that all are drawn anew."""
        self._held: Noise = {}  # [number * n_envs, ...], by turn and then by environment
        self._stock: Noise = {}  # [n, ...], drawn and not held yet

    @property
    def keeps(self) -> bool:
        """Whether those that a batch has not used are there for the next one."""
        return self.task.draws_starts_slowly

    @property
    def may_run_out(self) -> bool:
        """Whether a batch may turn out to need more."""
        return not self.fixed and self.number < self.n_steps

    def run_out(self, done: Tensor) -> bool:
        """Whether an environment had to begin twice from the same start; if so, there are more from now on.

        Args:
            done: of all steps of the batch, ``[T, n_envs, 1]`` bool.
        """
        most = int(done.sum(0).max())
        if most <= self.number:
            return False
        self.number = min(max(most, 2 * self.number), self.n_steps)
        return True

    def noise(self, rng: torch.Generator) -> Noise:
        """Of the next batch, ``[number * n_envs, ...]``."""
        n = self.number * self.n_envs
        if not self.keeps:
            return self.task.draw_reset(n, rng)
        self._held = joined(self._held, self._take(n - count(self._held), rng))
        return self._held

    def use(self, done: Tensor, rng: torch.Generator) -> None:
        """Replace those that a batch has used.

        Args:
            done: of all its steps, ``[T, n_envs, 1]`` bool.
            rng: draws the new ones.
        """
        if not self._held:
            return
        turn = torch.arange(self.number, device=done.device).unsqueeze(-1)
        used = (turn < done.sum(0).squeeze(-1)).flatten().nonzero().squeeze(-1)
        fresh = self._take(len(used), rng)
        if fresh:
            self._held = {k: value.index_copy(0, used, fresh[k]) for k, value in self._held.items()}

    def snapshot(self) -> dict[str, Noise]:
        """Those that are there; copies, where they are parts of something larger."""
        stock = {key: value.clone() for key, value in self._stock.items()}
        return {"held": self._held, "stock": stock}

    def restore(self, number: int, state: dict[str, Noise]) -> None:
        """Go on with so many, and with what :meth:`snapshot` gave."""
        self.number = number
        self._held, self._stock = (
            {key: value.to(self.task.device) for key, value in state.get(name, {}).items()}
            for name in ("held", "stock")
        )

    def _take(self, n: int, rng: torch.Generator) -> Noise:
        """``n`` that no environment had, ``[n, ...]``."""
        taken: Noise = {}
        while count(taken) < n:
            if not count(self._stock):
                n_drawn = max(DRAWN_AT_ONCE, self.number * self.n_envs)
                self._stock = self.task.draw_reset(n_drawn, rng)
            wanted = n - count(taken)
            taken = joined(taken, {key: value[:wanted] for key, value in self._stock.items()})
            self._stock = {key: value[wanted:] for key, value in self._stock.items()}
        return taken


def count(noise: Noise) -> int:
    """For how many environments ``noise`` is."""
    return len(next(iter(noise.values()))) if noise else 0


def joined(one: Noise, other: Noise) -> Noise:
    """``one`` and then ``other``; either may be empty."""
    if not (one and other):
        return one or other
    return {key: torch.cat([value, other[key]]) for key, value in one.items()}
