"""TorchRL specs of an environment, from what its agent groups see and do.

The one place that knows the layout of keys (``docs/shapes.md``)::

    (group, "observation")  [n_envs, n_agents, d_obs]        float32
    (group, "action")       [n_envs, n_agents(, d_action)]   float32 or int64
    (group, "action_mask")  [n_envs, n_agents, n_actions]    bool, masked groups only
    (group, "mask")         [n_envs, n_agents]               bool, true = alive, mortal groups only
    (group, "info", name)   [n_envs, n_agents, d]            float32, where there is one
    (group, "reward")       [n_envs, n_agents, 1]            float32
    "state"                 [n_envs, d_state]                float32, where there is one
    ("info", name)          [n_envs, 1]                      float32, this step's raw quantities
    "terminated" "truncated" "done"  [n_envs, 1]             bool
    (group, the same three)          [n_envs, n_agents, 1]   bool, mortal groups of adapted environments
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from marl_td.tasks.base import Box, Discrete, GroupSpec

DONE_KEYS = ("done", "terminated", "truncated")


def set_specs(
    env: EnvBase,
    groups: Mapping[str, GroupSpec],
    d_state: int | None = None,
    info_keys: Iterable[str] = (),
    own_ends: bool = False,
) -> None:
    """Set the four specs of ``env``, whose batch size is ``[n_envs]``.

    Args:
        env: the environment.
        groups: what its agents see and do.
        d_state: width of the global state, where there is one.
        info_keys: names of the raw quantities.
        own_ends: whether each agent of a mortal group has ends of its own beside the environment's.

    Raises:
        ValueError: if a group has an action mask and continuous actions.
    """
    shape = tuple(env.batch_size)
    observation: dict[str, Any] = {}
    action: dict[str, Any] = {}
    reward: dict[str, Any] = {}
    for group, spec in groups.items():
        inner = (*shape, spec.n_agents)
        observation[group] = _observation_spec(group, spec, inner)
        action[group] = Composite(action=action_spec(spec.action, inner), shape=inner)
        reward[group] = Composite(reward=Unbounded((*inner, 1)), shape=inner)
    if d_state is not None:
        observation["state"] = Unbounded((*shape, d_state))
    info = {key: Unbounded((*shape, 1)) for key in info_keys}
    if info:
        observation["info"] = Composite(info, shape=shape)
    done: dict[str, Any] = _done_spec(shape)
    for group, spec in groups.items():
        if own_ends and spec.mortal:
            inner = (*shape, spec.n_agents)
            done[group] = Composite(_done_spec(inner), shape=inner)
    env.observation_spec = Composite(observation, shape=shape).to(env.device)
    env.action_spec = Composite(action, shape=shape).to(env.device)
    env.reward_spec = Composite(reward, shape=shape).to(env.device)
    env.done_spec = Composite(done, shape=shape).to(env.device)


def action_spec(action: Box | Discrete, shape: tuple[int, ...]) -> Any:
    """Spec of the actions of agents ``shape``; a box without finite bounds is unbounded."""
    if isinstance(action, Discrete):
        return Categorical(action.n, shape=shape, dtype=torch.long)
    full = (*shape, len(action.low))
    if not _is_finite(action):
        return Unbounded(full)
    low, high = torch.tensor(action.low), torch.tensor(action.high)
    return Bounded(low=low.expand(full), high=high.expand(full), shape=full)


def read_action(
    tensordict: TensorDictBase, group: str, shape: tuple[int, ...], action: Box | Discrete
) -> Tensor:
    """The actions of ``group``, which must have ``shape`` and be of the kind of ``action``.

    Values are looked at on a CPU only, since a look at a GPU's would wait for it: indices must lie in their
    range, numbers must be finite. Out of a box is no error: tasks clip. Neither is the answer to an
    observation that is not finite itself: whoever reads the batch can say where it began.

    Raises:
        ValueError: if it is missing, has another shape, or holds values that are no actions.
        TypeError: if it is of a type that holds no such actions.
    """
    taken: Tensor | None = tensordict.get((group, "action"), None)
    if taken is None or taken.shape != shape:
        got = "none" if taken is None else str(list(taken.shape))
        raise ValueError(
            f"the action of group '{group}' must have shape {list(shape)} at key "
            f"('{group}', 'action'); got {got}. Check the policy against env.action_spec."
        )
    what = f"the action of group '{group}' must hold"
    if isinstance(action, Box):
        if not taken.is_floating_point():
            raise TypeError(f"{what} continuous actions, floats; got {taken.dtype}.")
        finite = taken.isfinite() if taken.is_cpu else None
        if finite is not None and not bool(finite.all()) and _sees_finite(tensordict, group):
            raise ValueError(f"{what} finite numbers; {_first(taken, ~finite, tensordict.ndim)}.")
        return taken
    if taken.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{what} indices of discrete actions, int64; got {taken.dtype}.")
    if taken.is_cpu:
        low, high = taken.aminmax()
        if int(low) < 0 or int(high) >= action.n:
            wrong = (taken < 0) | (taken >= action.n)
            raise ValueError(
                f"{what} indices in [0, {action.n}); {_first(taken, wrong, tensordict.ndim)}."
            )
    return taken


def _first(taken: Tensor, wrong: Tensor, batch_dims: int) -> str:
    """Where the first wrong action is, in words."""
    where = wrong.nonzero()[0].tolist()
    environment = f" of environment {where[0]}" if batch_dims else ""
    return f"got {taken[tuple(where)].item()} from agent {where[batch_dims]}{environment}"


def _sees_finite(tensordict: TensorDictBase, group: str) -> bool:
    """Whether what a group observes is finite."""
    observed = tensordict.select((group, "observation"), strict=False).values(True, True)
    return all(bool(value.isfinite().all()) for value in observed)


def random_available(mask: Tensor) -> Tensor:
    """A uniformly random available action ``[*B]`` for each row of ``mask`` ``[*B, n_actions]``."""
    score = torch.rand(mask.shape, device=mask.device)
    return torch.where(mask, score, -1.0).argmax(-1)


class RandomActions:
    """A policy of uniformly random actions for groups, drawn among the available ones where there is a mask.

    Of a box without finite bounds, actions are normal with standard deviation 1. It draws from torch's global
    stream.

    Args:
        groups: what their agents do.
        device: where their actions are wanted.
    """

    def __init__(self, groups: Mapping[str, GroupSpec], device: torch.device) -> None:
        self.groups, self.device = groups, device
        self.bounds = {
            group: (
                torch.tensor(spec.action.low, device=device),
                torch.tensor(spec.action.high, device=device),
            )
            for group, spec in groups.items()
            if isinstance(spec.action, Box) and _is_finite(spec.action)
        }

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the actions of all groups."""
        for group, spec in self.groups.items():
            shape = (*tensordict.batch_size, spec.n_agents)
            mask = tensordict.get((group, "action_mask"), None)
            if mask is not None:
                action = random_available(mask)
            elif isinstance(spec.action, Discrete):
                action = torch.randint(spec.action.n, shape, device=self.device)
            elif group in self.bounds:
                low, high = self.bounds[group]
                drawn = torch.rand((*shape, len(low)), device=self.device)
                action = low + (high - low) * drawn
            else:
                action = torch.randn((*shape, len(spec.action.low)), device=self.device)
            tensordict.set((group, "action"), action)
        return tensordict


def _is_finite(box: Box) -> bool:
    """Whether all bounds are numbers."""
    return all(math.isfinite(bound) for bound in box.low + box.high)


def _done_spec(shape: tuple[int, ...]) -> dict[str, Any]:
    return {key: Binary(1, (*shape, 1), dtype=torch.bool) for key in DONE_KEYS}


def _observation_spec(group: str, spec: GroupSpec, shape: tuple[int, ...]) -> Composite:
    entries: dict[str, Any] = {"observation": Unbounded((*shape, *spec.observation_shape))}
    if spec.masked:
        if isinstance(spec.action, Box):
            raise ValueError(f"an action mask needs discrete actions; group '{group}' has a Box.")
        n_actions = spec.action.n
        entries["action_mask"] = Binary(n_actions, (*shape, n_actions), dtype=torch.bool)
    if spec.mortal:
        entries["mask"] = Categorical(2, shape=shape, dtype=torch.bool)
    if spec.info:
        info = {name: Unbounded((*shape, width)) for name, width in spec.info.items()}
        entries["info"] = Composite(info, shape=shape)
    return Composite(entries, shape=shape)
