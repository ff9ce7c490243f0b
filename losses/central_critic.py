"""What losses with critics of actions share: whose actions they read, what of a batch counts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from marl_td.losses.arguments import kind_of
from marl_td.losses.common import MultiAgentLoss
from marl_td.losses.entries import MissingEntry, flag, living, next_of
from marl_td.losses.functional.checks import check_fraction
from marl_td.losses.functional.priorities import item_priority, mean_over_agents
from marl_td.losses.group_actor import GroupActor
from marl_td.losses.targets import FrozenView
from marl_td.losses.trajectory import end_of_life, row_of_next_steps


class CentralCriticLoss(MultiAgentLoss):
    """Base of the losses of one group of agents whose critics may read all groups' actions.

    Args:
        name: of the argument that the actors come from, for its error.
        actors: actors of every group that the critics may read, in their order; only read here.
        group: whose loss it is.
        gamma: discount in [0, 1].
        central: whether critics read the joint action of all of ``actors``, or this group's only.
        mask_dead_values: an agent's death ends its return; critics learn nothing from its later steps.
        recurrent: whether batches are sequences ``[*B, T]``.
        priority_eta: share of the largest error in a sequence's priority, in [0, 1].

    Raises:
        TypeError: for an actor of another kind than :attr:`ACTOR`.
        ValueError: for a number out of range, or ``actors`` without this group.
    """

    ACTOR: ClassVar[type[GroupActor]] = GroupActor
    """What actors must be."""

    @dataclass
    class _AcceptedKeys:
        action_value: NestedKey = ("agents", "chosen_action_value")
        joint_action: NestedKey = ("agents", "joint_action")
        reward: NestedKey = ("agents", "reward")
        terminated: NestedKey = ("agents", "terminated")
        truncated: NestedKey = ("agents", "truncated")
        mask: NestedKey = ("agents", "mask")
        step_mask: NestedKey = "step_mask"
        priority: NestedKey = ("agents", "td_error")
        item_priority: NestedKey = ("agents", "priority")
        priority_weight: NestedKey = "priority_weight"
        joint: NestedKey = "joint"

    def __init__(
        self,
        name: str,
        actors: Mapping[str, GroupActor],
        group: str,
        *,
        gamma: float,
        central: bool,
        mask_dead_values: bool,
        recurrent: bool,
        priority_eta: float,
    ) -> None:
        super().__init__()
        check_fraction("gamma", gamma)
        check_fraction("priority_eta", priority_eta)
        if group not in actors:
            raise ValueError(
                f"`{name}` must hold this loss's own group '{group}'; got {sorted(actors)}."
            )
        for actor in actors.values():
            self.check_actor(actor)
        self.gamma = gamma
        self.central = central
        # A plain dict: the other groups' actors are read, not owned.
        self._actors = dict(actors) if central else {group: actors[group]}
        self._position = list(self._actors).index(group)
        self.mask_dead_values = mask_dead_values
        self.recurrent = recurrent
        self.priority_eta = priority_eta

    @classmethod
    def check_actor(cls, actor: Any) -> None:
        """Raise unless ``actor`` is of the kind that this loss learns with.

        Raises:
            TypeError: naming what it is.
        """
        if not isinstance(actor, cls.ACTOR):
            raise TypeError(
                f"`actor` must be a {cls.ACTOR.__name__}; got {kind_of(actor)}. Wrap a network as "
                f"{cls.ACTOR.__name__}(network, group, ...)."
            )

    def item_priority(self, tensordict: TensorDictBase, error: Tensor) -> Tensor:
        """Priorities of the replayed items (steps, or rows if recurrent): the critics' mean errors."""
        steps = mean_over_agents(error, self._mask(tensordict, error, alive=self.mask_dead_values))
        return item_priority(*steps, sequences=self.recurrent, eta=self.priority_eta)

    def _taken(self, tensordict: TensorDictBase) -> list[Tensor]:
        """Actions in the batch of every group in scope, in the critics' order."""
        joint = self._joint(tensordict)
        return [actor.taken(joint) for actor in self._actors.values()]

    def _joint(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Where every group in scope is found by its name."""
        if len(self._actors) == 1:
            return tensordict
        key = self.tensor_keys.joint
        entry: Any = tensordict.get(key, None)
        if entry is None:
            raise MissingEntry(
                f"critics of several groups read them at {key!r} of the batch and of its 'next'; one is "
                f"missing. `marl_td.signals.join_groups` writes both, for {list(self._actors)}."
            )
        for group in self._actors:
            seen, kept = tensordict.get(group, {}), entry.get(group, {})
            if "action_mask" in seen.keys() and "action_mask" not in kept.keys():
                raise MissingEntry(
                    f"{key!r} of the batch or of its 'next' lacks {(group, 'action_mask')!r}, which the "
                    "batch has: targets would take actions that were not available. "
                    "`marl_td.signals.join_groups` keeps it."
                )
        joint = entry.copy()
        is_init = tensordict.get("is_init", None)
        return joint if is_init is None else joint.set("is_init", is_init)

    def _replaced(self, actions: list[Tensor], action: Tensor) -> list[Tensor]:
        """``actions`` with those of the own group replaced."""
        return [*actions[: self._position], action, *actions[self._position + 1 :]]

    def _following(self, tensordict: TensorDictBase) -> TensorDictBase:
        """What networks read to value what is reached: the next step, behind the first if recurrent."""
        return row_of_next_steps(tensordict) if self.recurrent else next_of(tensordict)

    def _with_deaths(self, tensordict: TensorDictBase, ended: Tensor) -> Tensor:
        """Where no value follows: where it ``ended``, and if the dead are not valued where an agent died."""
        keys = self.tensor_keys
        died = end_of_life(tensordict, keys.mask, keys.truncated) if self.mask_dead_values else None
        return ended if died is None else ended | died

    def _mask(self, tensordict: TensorDictBase, like: Tensor, *, alive: bool) -> Tensor | None:
        """Entries ``[*B, n_values]`` that are real steps (of living agents), or None if all are."""
        lives = living(tensordict, self.tensor_keys.mask) if alive else None
        steps = flag(tensordict, self.tensor_keys.step_mask)
        if steps is None:
            return lives
        steps = steps.expand_as(like)
        return steps if lives is None else lives & steps

    def _weighted(self, tensordict: TensorDictBase, error: Tensor) -> Tensor:
        """``error`` ``[*B, n_values]`` times the importance weights of prioritised replay."""
        weight = tensordict.get(self.tensor_keys.priority_weight, None)
        return error if weight is None else error * weight.reshape(*error.shape[:-1], 1)

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> nn.Module:
        out = super()._apply(fn)
        for value in vars(self).values():
            if isinstance(value, FrozenView):
                value.tie()
        return out
