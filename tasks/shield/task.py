"""Any batched task behind a shield: itself a batched task, so that rollouts compile and reports work."""

from __future__ import annotations

import dataclasses
from typing import Any

from marl_td.tasks.base import Groups, GroupSpec, Noise, Optimum, Step, Task
from marl_td.tasks.shield.corrector import CHANGED, SIZE, Corrector, summary
from marl_td.tasks.shield.settings import Shield
from marl_td.tasks.wrapped import WrappedTask


class ShieldedTask(WrappedTask):
    """``task`` with its actions corrected by ``shield`` before each step.

    Everything else is the task's own. Two raw quantities come in: ``shield_changed``, the number of agents
    corrected in a step, and ``shield_size``, the sum of their corrections (Euclidean length of the change
    of a continuous action, 1 for a discrete one).

    Args:
        task: the task.
        shield: what to keep.

    Raises:
        ValueError: if the shield does not fit the task's groups, or cannot be kept by any action.
    """

    def __init__(self, task: Task[Any, Any], shield: Shield) -> None:
        super().__init__(task)
        self.info_keys = (*task.info_keys, CHANGED, SIZE)  # type: ignore[misc]
        self.corrector = Corrector(shield, task.groups, task.device)

    # ------------------------------------------------------------------ shape
    @property
    def groups(self) -> dict[str, GroupSpec]:
        masked = self.corrector.masked
        return {
            name: dataclasses.replace(spec, masked=spec.masked or name in masked)
            for name, spec in self.task.groups.items()
        }

    # --------------------------------------------------------------- dynamics
    def step(self, state: Any, action: Groups, noise: Noise) -> Step[Any]:
        seen = self._seen(state)
        taken, sizes = self.corrector.correct(seen, action, self._mask(state, seen))
        step = self.task.step(state, taken, noise)
        info = step.info | summary(sizes)
        penalty = self.corrector.shield.penalty
        if penalty == 0:
            return step._replace(info=info)
        reward = {name: value - penalty * sizes[name] for name, value in step.reward.items()}
        return step._replace(info=info, reward=reward)

    def action_mask(self, state: Any) -> Groups:
        return self._mask(state, self._seen(state))

    def _seen(self, state: Any) -> Groups:
        return self.task.observe(state) if self.corrector.reads_observations else {}

    def _mask(self, state: Any, seen: Groups) -> Groups:
        return self.corrector.mask(seen, self.task.action_mask(state), state[0].shape[:1])

    # ---------------------------------------------------------------- judging
    def optimum(self) -> Optimum | None:
        """The task's own as a bound, which no shield moves; None where it was one from the other side."""
        known = self.task.optimum()
        side: Any = "upper" if self.task.higher_is_better else "lower"
        if known is None or known.kind not in ("exact", side):
            return None
        return dataclasses.replace(known, kind=side, how=f"{known.how}, without the shield")


def shielded(task: Task[Any, Any]) -> Task[Any, Any]:
    """``task`` behind the shield that its parameters ask for; itself if they ask for none, or it is already.

    Raises:
        ValueError: if the shield cannot be read, or does not fit the task.
    """
    if task.params.safety is None or isinstance(task, ShieldedTask):
        return task
    return ShieldedTask(task, Shield.of(task.params.safety))
