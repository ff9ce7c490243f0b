"""A policy without parameters, and a small table to judge policies by."""

import torch
from tensordict import TensorDict, TensorDictBase

from marl_td.evaluation.baselines import BaselineRow
from marl_td.tasks.base import Optimum

ROWS = [
    BaselineRow("random", 10.0, 9.0, 11.0),
    BaselineRow("a", 4.0, 3.0, 5.0),
    BaselineRow("b", 6.0, 5.0, 7.0),
]
BOUND = Optimum(2.0, "lower", "by hand")


def always(action: int):
    """A policy in which every agent of the group `agents` always takes the same discrete action."""

    def policy(data: TensorDictBase) -> TensorDictBase:
        shape = data["agents"].batch_size
        inner = TensorDict({"action": torch.full(shape, action)}, shape)
        return data.update(TensorDict({"agents": inner}, data.batch_size))

    return policy
