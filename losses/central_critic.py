"""What losses with critics of actions share: whose actions they read, what of a batch counts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from marl_td.losses.common import MultiAgentLoss, require
from marl_td.losses.functional.deterministic import joint_action_rows
from marl_td.losses.functional.priorities import item_priority, mean_over_agents
from marl_td.losses.group_actor import GroupActor
from marl_td.losses.targets import FrozenView


class CentralCriticLoss(MultiAgentLoss):
    """Base of the losses of one group of agents whose critics may read all groups' actions.

    Args:
        actors: actors of every group that the critics read, in their order; only read here.
        group: whose loss it is.
        mask_dead_values: an agent's death ends its return; critics learn nothing from its later steps.
        recurrent: whether batches are sequences ``[*B, T]``.
        priority_eta: share of the largest error in a sequence's priority.
    """

    @dataclass
    class _AcceptedKeys:
        action_value: NestedKey = ("agents", "chosen_action_value")
        joint_action: NestedKey = ("agents", "joint_action")
        reward: NestedKey = ("agents", "reward")
        done: NestedKey = ("agents", "done")
        terminated: NestedKey = ("agents", "terminated")
        discount: NestedKey = ("agents", "discount")
        mask: NestedKey = ("agents", "mask")
        step_mask: NestedKey = "step_mask"
        priority: NestedKey = ("agents", "td_error")
        item_priority: NestedKey = ("agents", "priority")
        priority_weight: NestedKey = "priority_weight"
        joint: NestedKey = "joint"

    _frozen_critics: FrozenView

    def __init__(
        self,
        actors: Mapping[str, GroupActor],
        group: str,
        *,
        mask_dead_values: bool,
        recurrent: bool,
        priority_eta: float,
    ) -> None:
        super().__init__()
        # A plain dict: the other groups' actors are read, not owned.
        self._actors = dict(actors)
        self._position = list(self._actors).index(group)
        self.mask_dead_values = mask_dead_values
        self.recurrent = recurrent
        self.priority_eta = priority_eta

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
        entry: Any = require(tensordict, self.tensor_keys.joint)
        joint = entry.copy()
        is_init = tensordict.get("is_init", None)
        return joint if is_init is None else joint.set("is_init", is_init)

    def _joint_rows(self, actions: list[Tensor], own_action: Tensor | None = None) -> Tensor:
        """The joint action as each agent's critic takes it, ``[*B, n_agents, D]``."""
        return joint_action_rows(actions, self._position, own_action)

    def _replaced(self, actions: list[Tensor], action: Tensor) -> list[Tensor]:
        """``actions`` with those of the own group replaced."""
        return [*actions[: self._position], action, *actions[self._position + 1 :]]

    def _mask(self, tensordict: TensorDictBase, like: Tensor, *, alive: bool) -> Tensor | None:
        """Entries ``[*B, n_agents]`` that are real steps (of living agents), or None if all are."""
        living = tensordict.get(self.tensor_keys.mask, None) if alive else None
        steps = tensordict.get(self.tensor_keys.step_mask, None)
        if steps is None:
            return living
        steps = steps.expand_as(like)
        return steps if living is None else living & steps

    def _weighted(self, tensordict: TensorDictBase, error: Tensor) -> Tensor:
        """``error`` ``[*B, n_agents]`` times the importance weights of prioritised replay."""
        weight = tensordict.get(self.tensor_keys.priority_weight, None)
        return error if weight is None else error * weight.reshape(*error.shape[:-1], 1)

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> nn.Module:
        out = super()._apply(fn)
        self._frozen_critics.tie()
        return out


def following_steps(tensordict: TensorDictBase, *, recurrent: bool) -> TensorDictBase:
    """What networks read to value the states reached: the next step, behind the first one if recurrent.

    A recurrent network must have seen o_0 before o_1. The row is ``[o_0, o_0', o_1', ..]`` with the hidden
    state reset wherever an episode began inside it; such an episode misses its own first step.
    """
    following = tensordict.get("next")
    if not recurrent:
        return following
    time_dim = tensordict.batch_dims - 1
    shared = set(tensordict.keys(True, True)) & set(following.keys(True, True))
    first = tensordict.narrow(time_dim, 0, 1).select(*shared)
    out: TensorDictBase = TensorDict.cat([first, following.select(*shared)], dim=time_dim)
    is_init = tensordict.get("is_init", None)
    if is_init is not None:
        n_steps = is_init.shape[time_dim]
        head = is_init.narrow(time_dim, 0, 1)
        tail = is_init.narrow(time_dim, 1, n_steps - 1)
        out.set("is_init", torch.cat([head, torch.zeros_like(head), tail], dim=time_dim))
    return out
