"""What an environment's transforms add to a step, as pure functions.

Reward sums, first steps, hidden states, last actions, members of ensembles and histories: the compiled
rollout cannot run transforms, it knows what these six do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torchrl.envs import Compose, EnvBase, InitTracker, RewardSum, TensorDictPrimer, TransformedEnv

from marl_td.collect.history import ActionHistory
from marl_td.collect.last_action import NO_ACTION, LastAction, last_action
from marl_td.collect.nested import Path, as_path
from marl_td.collect.sub_policy import DrawSubPolicy, draw_sub_policy
from marl_td.models.compiling import NotCompilable
from marl_td.models.sub_policies import SUB_POLICY
from marl_td.tasks.adapters.tracing import Untraceable
from marl_td.tasks.vector_env import Entries, VectorEnv


class Bookkeeping:
    """The transforms around a batched task's environment, taken apart.

    Args:
        env: a :class:`~marl_td.tasks.vector_env.VectorEnv`, bare or under transforms.

    Raises:
        NotCompilable: for another environment or transform.
    """

    def __init__(self, env: EnvBase) -> None:
        self.sums: dict[Path, Path] = {}
        self.init_key: Path | None = None
        self.primers: dict[Path, tuple[tuple[int, ...], float]] = {}
        self.last_actions: dict[str, bool] = {}
        self.ensembles: dict[str, int] = {}
        self.histories: list[ActionHistory] = []
        transforms: list[Any] = []
        self.observation_spec = env.observation_spec
        while isinstance(env, TransformedEnv):
            transforms = [*_flat(env.transform), *transforms]
            env = env.base_env
        self.env = _batched_task(env)
        for transform in transforms:
            self._add(transform)

    def _add(self, transform: Any) -> None:
        if type(transform) is RewardSum:
            pairs = zip(transform.in_keys, transform.out_keys, strict=True)
            self.sums.update({as_path(reward): as_path(total) for reward, total in pairs})
        elif type(transform) is InitTracker:
            self.init_key = as_path(transform.init_key)
        elif type(transform) is TensorDictPrimer:
            self._add_primers(transform)
        elif type(transform) is LastAction:
            self.last_actions.update(transform.groups)
        elif type(transform) is DrawSubPolicy:
            self.ensembles.update(transform.sizes)
        elif type(transform) is ActionHistory:
            self.histories.append(transform)
        else:
            raise NotCompilable(f"the environment has the transform {type(transform).__name__}")

    def _add_primers(self, transform: Any) -> None:
        if transform.random:
            raise NotCompilable("the environment's TensorDictPrimer draws random values")
        default = transform.default_value
        for key in transform.primers.keys(True, True):
            path = as_path(key)
            value = default.get(key, 0.0) if isinstance(default, dict) else default
            if not isinstance(value, float | int):
                raise NotCompilable(f"the TensorDictPrimer's default of {path} is not a number")
            shape = self.observation_spec[key].shape[1:]
            self.primers[path] = (tuple(shape), float(value))

    # --------------------------------------------------------------- entries
    def at_reset(self, n_envs: int, device: torch.device) -> Entries:
        """What the transforms add to the entries of a fresh episode."""
        groups = self.env.task.groups
        out: Entries = {}
        for reward, total in self.sums.items():
            n_agents = groups[reward[0]].n_agents
            out[total] = torch.zeros((n_envs, n_agents, 1), device=device)
        if self.init_key is not None:
            out[self.init_key] = torch.ones((n_envs, 1), dtype=torch.bool, device=device)
        for key, (shape, value) in self.primers.items():
            out[key] = torch.full((n_envs, *shape), value, device=device)
        for group in self.last_actions:
            shape = (n_envs, groups[group].n_agents)
            out[group, "last_action"] = torch.full(shape, NO_ACTION, device=device)
        for group, size in self.ensembles.items():
            shape = (n_envs, groups[group].n_agents)
            out[group, SUB_POLICY] = draw_sub_policy(size, shape, device)
        for history in self.histories:
            for key in history.keys:
                spec = self.observation_spec[key if len(key) > 1 else key[0]]
                shape = (n_envs, *spec.shape[1:])
                out[key] = torch.zeros(shape, dtype=spec.dtype, device=device)
        return out

    def after_step(self, before: Entries, following: Entries, action: dict[str, Tensor]) -> Entries:
        """What the transforms add to the entries ``following`` a step from ``before`` by ``action``.

        Hidden states are the policy's own output; one that it does not write stays as it was.
        """
        out: Entries = {
            total: before[total] + following[reward] for reward, total in self.sums.items()
        }
        if self.init_key is not None:
            out[self.init_key] = torch.zeros_like(before[self.init_key])
        for key in self.primers:
            out[key] = following.get(key, before[key])
        for group, mortal in self.last_actions.items():
            alive = following[group, "mask"] if mortal else None
            out[group, "last_action"] = last_action(action[group], alive)
        for group in self.ensembles:
            out[group, SUB_POLICY] = before[group, SUB_POLICY]
        now: Entries = dict(before)
        now.update({(group, "action"): taken for group, taken in action.items()})
        for history in self.histories:
            out.update(history.advance(now.__getitem__))
        return out


def _batched_task(env: EnvBase) -> VectorEnv:
    """``env`` itself, or what it says is the same as a batched task."""
    if isinstance(env, VectorEnv):
        return env
    if not hasattr(type(env), "as_batched_task"):
        name = type(env).__name__
        hint = " (task=marl_td/vmas task.scenario=... is one)" if name == "VmasEnv" else ""
        raise NotCompilable(f"the environment is a {name}, not a batched task of marl_td{hint}")
    try:
        batched: VectorEnv = env.as_batched_task()
    except Untraceable as reason:
        raise NotCompilable(str(reason)) from reason
    return batched


def _flat(transform: Any) -> Iterable[Any]:
    if isinstance(transform, Compose):
        for inner in transform:
            yield from _flat(inner)
    else:
        yield transform
