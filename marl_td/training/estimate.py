"""Values, advantages and value targets of a collected batch as one compiled graph."""

from __future__ import annotations

from typing import Any

from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from marl_td.algorithms.ensemble import algorithm_of
from marl_td.algorithms.ppo_family import PpoFamily
from marl_td.collect.nested import Shapes, entries_of, nest, shapes_of
from marl_td.losses.advantage import AdvantageLoss
from marl_td.models.compiling import Compiled, NotCompilable, compiled_or_none
from marl_td.models.straight import require_straight
from marl_td.tasks.vector_env import Entries

ESTIMATES_TO_PAY = 1_000
"""Batches after which a compiled estimate is ahead: 10 s of compiling at 10 ms saved by each."""


class CompiledEstimate:
    """:meth:`~marl_td.losses.advantage.AdvantageLoss.estimate`, compiled.

    Args:
        loss: whose ``estimates`` is traced.
        gamma: discount in [0, 1].
        lmbda: GAE's mixing in [0, 1].
        backend: of ``torch.compile``.

    Raises:
        NotCompilable: if the critic has a memory, whose loop over the steps would be written out.
    """

    def __init__(
        self, loss: AdvantageLoss, *, gamma: float, lmbda: float, backend: str = "inductor"
    ) -> None:
        if loss.critic_states or "is_init" in loss.whole_critic.in_keys:
            raise NotCompilable("the critic is recurrent")
        require_straight(loss)
        self.loss = loss
        self.gamma, self.lmbda = gamma, lmbda
        self._shapes: Shapes = {}
        self._batch_size: tuple[int, ...] = ()
        self._compiled = Compiled("advantage estimate", self._estimates, backend)

    def __call__(self, batch: TensorDictBase) -> TensorDictBase:
        """Add the estimates to consecutive steps ``[n_envs, T]``, in place."""
        self._shapes, self._batch_size = shapes_of(batch), tuple(batch.batch_size)
        for key, value in self._compiled(entries_of(batch)).items():
            batch.set(key, value)
        self.loss.begin_batch()
        return batch

    @property
    def compile_seconds(self) -> float:
        """What compiling took so far."""
        return self._compiled.seconds

    def _estimates(self, entries: Entries) -> dict[NestedKey, Tensor]:
        device = next(iter(entries.values())).device
        batch = nest(entries, self._shapes, self._batch_size, device)
        return self.loss.estimates(batch, gamma=self.gamma, lmbda=self.lmbda)


def compile_estimate(algorithm: Any, group: str) -> None:
    """Let an algorithm of the PPO family estimate the advantages of ``group`` compiled; others have none.

    Warns:
        CompileWarning: if it cannot be compiled; it is computed as before then.
    """
    algorithm = algorithm_of(algorithm, group)
    if not isinstance(algorithm, PpoFamily):
        return
    loss, _ = algorithm.get_loss_and_updater(group)
    gamma, lmbda = (algorithm.discounts[name] for name in ("gamma", "lmbda"))
    compiled = compiled_or_none(
        "advantage estimate", lambda: CompiledEstimate(loss, gamma=gamma, lmbda=lmbda)
    )
    if compiled is not None:
        algorithm.estimators[group] = compiled
