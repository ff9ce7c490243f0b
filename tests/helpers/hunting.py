"""A policy and the transforms of the toy task Hunt, for tests of collectors."""

from __future__ import annotations

import torch
from tensordict.nn import (
    ProbabilisticTensorDictModule,
    TensorDictModule,
    TensorDictSequential,
)
from torch import nn
from torchrl.data import Composite, Unbounded
from torchrl.envs import Compose, InitTracker, RewardSum, TensorDictPrimer
from torchrl.modules import IndependentNormal

from marl_td.models.heads import FiniteMaskedCategorical

N_ENVS, N_STEPS = 3, 10
HIDDEN = ("hunter", "hidden")
KEYS = [("hunter", "reward"), ("prey", "reward")]


class Remembering(nn.Module):
    """Logits from the observation and a hidden state that counts what was seen."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, observation, hidden):
        return self.linear(observation) + hidden, hidden + observation[..., :1]


def make_policy():
    """A sampling policy of both groups; the hunters' has a hidden state."""
    logits = TensorDictModule(
        Remembering(),
        in_keys=[("hunter", "observation"), HIDDEN],
        out_keys=[("hunter", "logits"), ("next", *HIDDEN)],
    )
    hunters = ProbabilisticTensorDictModule(
        in_keys={"logits": ("hunter", "logits"), "mask": ("hunter", "action_mask")},
        out_keys=[("hunter", "action")],
        distribution_class=FiniteMaskedCategorical,
        default_interaction_type="random",
        return_log_prob=True,
        log_prob_key=("hunter", "log_prob"),
    )
    mean = TensorDictModule(
        nn.Sequential(nn.Linear(2, 2), nn.Tanh()),
        in_keys=[("prey", "observation")],
        out_keys=[("prey", "loc")],
    )
    scale = TensorDictModule(
        lambda loc: torch.full_like(loc, 0.1),
        in_keys=[("prey", "loc")],
        out_keys=[("prey", "scale")],
    )
    prey = ProbabilisticTensorDictModule(
        in_keys=[("prey", "loc"), ("prey", "scale")],
        out_keys=[("prey", "action")],
        distribution_class=IndependentNormal,
        default_interaction_type="random",
    )
    return TensorDictSequential(logits, hunters, mean, scale, prey)


def make_transforms(*more):
    """All transforms that the compiled rollout knows."""
    hidden = Composite({"hidden": Unbounded((3, 1))}, shape=(3,))
    primer = TensorDictPrimer(Composite({"hunter": hidden}), default_value=0.5, expand_specs=True)
    sums = RewardSum(in_keys=KEYS, reset_keys=["_reset"] * 2)
    return Compose(InitTracker(), primer, sums, *more)


def batches(collector, n):
    """The first ``n`` batches, from a fixed random state."""
    torch.manual_seed(11)
    iterator = iter(collector)
    return [next(iterator) for _ in range(n)]
