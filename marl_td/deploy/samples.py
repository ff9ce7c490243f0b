"""Random inputs of a group's policy, and what the policy makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from marl_td.collect.rng import isolated_rng
from marl_td.deploy.steps import Key
from marl_td.losses.functional.action_values import mask_unavailable
from marl_td.models.floored import FlooredSoftmax
from marl_td.models.heads import finite

MASK = "action_mask"
NARROW, WIDE = 1e3, 1e6
"""Bounds of less than the first are filled by random numbers; none are looked at beyond the second."""


@dataclass(frozen=True)
class EntrySpec:
    """What is known of an entry of all agents, without the batch.

    Args:
        dtype: of the tensor.
        shape: of the tensor.
        low: lower bounds, or None.
        high: upper bounds, or None.
        n: number of discrete values, 0 for a continuous entry.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    low: Tensor | None = None
    high: Tensor | None = None
    n: int = 0


def entry_specs(env: EnvBase) -> dict[Key, EntrySpec]:
    """Every observation and action of an environment, by key."""
    out = {}
    n_batch = len(env.batch_size)
    for composite in (env.full_observation_spec, env.full_action_spec):
        for key, spec in composite.items(True, True):
            low, high = (_bound(spec, name, n_batch) for name in ("low", "high"))
            path = (key,) if isinstance(key, str) else tuple(key)
            n = getattr(spec.space, "n", 0) if not spec.dtype.is_floating_point else 0
            out[path] = EntrySpec(spec.dtype, tuple(spec.shape[n_batch:]), low, high, int(n))
    return out


def _bound(spec: Any, name: str, n_batch: int) -> Tensor | None:
    bound = getattr(getattr(spec, "space", None), name, None)
    if not isinstance(bound, Tensor) or spec.dtype == torch.bool:
        return None
    bound = bound.expand(spec.shape)
    return bound[(0,) * n_batch].detach().cpu()


def random_inputs(
    specs: Mapping[Key, EntrySpec], batch: int, generator: torch.Generator
) -> TensorDict:
    """Random entries ``[batch, ...]``: normal numbers within their bounds, masks with an action per row."""
    out = TensorDict({}, [batch])
    for key, spec in specs.items():
        out.set(key, _random(key, spec, batch, generator))
    return out


def _random(key: Key, spec: EntrySpec, batch: int, generator: torch.Generator) -> Tensor:
    shape = (batch, *spec.shape)
    if key[-1] == MASK:
        score = torch.rand(shape, generator=generator)
        return (score > 0.4) | (score == score.amax(-1, keepdim=True))
    if spec.dtype == torch.bool:
        return torch.rand(shape, generator=generator) > 0.5
    if not spec.dtype.is_floating_point:
        first = 0 if spec.low is None or spec.low.min() < -WIDE else int(spec.low.min())
        last = first + 7 if spec.high is None or spec.high.max() > WIDE else int(spec.high.max())
        last = spec.n - 1 if spec.n else min(last, first + 255)
        return torch.randint(first, last + 1, shape, generator=generator, dtype=spec.dtype)
    value = torch.randn(shape, generator=generator, dtype=spec.dtype)
    if spec.low is None or spec.high is None:
        return value
    low, high = spec.low.clamp(min=-WIDE), spec.high.clamp(max=WIDE)
    middle, half = (high + low) / 2, (high - low) / 2
    filled = middle + half * torch.tanh(value)
    return torch.where(half < NARROW, filled, value.clamp(low, high))


@torch.no_grad()
def policy_outputs(
    policy: TensorDictModuleBase, inputs: TensorDict, names: Mapping[str, Key], group: str
) -> dict[str, Tensor]:
    """What the training policy writes for ``inputs``, by the actor's output names, all agents together.

    Args:
        policy: of the group.
        inputs: what it reads.
        names: the actor's outputs and their keys.
        group: name of the group.
    """
    device = next((p.device for p in policy.parameters()), torch.device("cpu"))
    was_training = policy.training
    with isolated_rng(), set_exploration_type(ExplorationType.DETERMINISTIC):
        policy.eval()
        try:
            found = policy(inputs.clone().to(device)).cpu()
        finally:
            policy.train(was_training)
    out = {}
    for name, key in names.items():
        if name == "scores":
            out[name] = _scores(policy, found, group)
        elif key[-1].startswith("drawn_"):
            out[name] = found.get((group, key[-1].removeprefix("drawn_")))
        else:
            out[name] = found.get(key)
    return out


def _scores(policy: TensorDictModuleBase, found: TensorDict, group: str) -> Tensor:
    """Values or logits, or logarithms of probabilities of a floored softmax; the lowest if unavailable.

    Numbers that are not finite stay so, though acting takes them for others: nothing is as good as them.
    """
    value = found.get((group, "action_value"), None)
    if value is None and not found.get((group, "logits")).isfinite().all():
        value = found.get((group, "logits"))
    elif value is None:
        heads = [part for part in policy.modules() if isinstance(part, FlooredSoftmax)]
        value = finite(found.get((group, "logits")))
        value = heads[0].get_dist(found).logits if heads else value
    return mask_unavailable(value, found.get((group, MASK), None))


def of_agent(
    values: Mapping[str, Tensor], keys: Mapping[str, Key], group: str, agent: int
) -> dict[str, Tensor]:
    """What belongs to one agent of entries of all; entries of the root belong to everybody."""
    return {
        name: values[name][:, agent] if group in keys[name][:2] else values[name] for name in values
    }


def parameters_of(policies: Iterable[nn.Module]) -> list[Tensor]:
    """A copy of every parameter and buffer, to see that nothing was changed."""
    return [
        value.detach().clone()
        for policy in policies
        for value in [*policy.parameters(), *policy.buffers()]
    ]
