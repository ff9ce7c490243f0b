"""A shield around any TorchRL environment in our layout of keys, such as an adapted PettingZoo one."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from torchrl.data import Binary, Bounded, Categorical, Composite, TensorSpec, Unbounded
from torchrl.envs import EnvBase, Transform, TransformedEnv

from marl_td.tasks.base import Box, Discrete, Groups, GroupSpec, require
from marl_td.tasks.shield.corrector import CHANGED, SIZE, Corrector, summary
from marl_td.tasks.shield.settings import Shield


class ShieldTransform(Transform):
    """Corrects actions before the environment below takes its step; what a policy wrote stays in the data.

    It does what :class:`marl_td.tasks.shield.ShieldedTask` does, for environments that are no batched task.
    Put it nearest to the environment; :func:`shielded_env` does.

    Args:
        shield: what to keep.
        env: the environment, for its groups.

    Raises:
        ValueError: if the shield does not fit the environment's groups.
    """

    def __init__(self, shield: Shield, env: EnvBase) -> None:
        super().__init__()
        self.corrector = Corrector(shield, groups_of(env), env.device or "cpu")
        self._wanted: Groups = {}
        self._sizes: Groups = {}

    def _inv_call(self, tensordict: TensorDictBase) -> TensorDictBase:
        groups = self.corrector.groups
        self._wanted = {name: tensordict.get((name, "action")) for name in groups}
        allowed = {name: tensordict.get((name, "action_mask")) for name in self.corrector.masked}
        taken, self._sizes = self.corrector.correct(self._seen(tensordict), self._wanted, allowed)
        for name, value in taken.items():
            tensordict.set((name, "action"), value)
        return tensordict

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        for name, value in self._wanted.items():
            tensordict.set((name, "action"), value)
            penalty = self.corrector.shield.penalty * self._sizes[name].unsqueeze(-1)
            reward = next_tensordict.get((name, "reward"), None)
            if reward is not None:
                next_tensordict.set((name, "reward"), reward - penalty)
        for key, value in summary(self._sizes).items():
            next_tensordict.set(("info", key), value.unsqueeze(-1))
        return self._masked(next_tensordict)

    def _reset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        for key in (CHANGED, SIZE):
            zero = torch.zeros((*tensordict_reset.batch_size, 1), device=tensordict_reset.device)
            tensordict_reset.set(("info", key), zero)
        return self._masked(tensordict_reset)

    def _masked(self, tensordict: TensorDictBase) -> TensorDictBase:
        found = {
            name: tensordict.get((name, "action_mask"), None) for name in self.corrector.masked
        }
        available = {name: mask for name, mask in found.items() if mask is not None}
        masks = self.corrector.mask(self._seen(tensordict), available, tensordict.batch_size)
        for name, mask in masks.items():
            tensordict.set((name, "action_mask"), mask)
        return tensordict

    def _seen(self, tensordict: TensorDictBase) -> Groups:
        if not self.corrector.reads_observations:
            return {}
        return {name: tensordict.get((name, "observation")) for name in self.corrector.groups}

    def transform_observation_spec(self, observation_spec: TensorSpec) -> TensorSpec:
        """The environment's specs with the two raw quantities and the masks."""
        shape, device = observation_spec.shape, observation_spec.device
        for key in (CHANGED, SIZE):
            if "info" not in observation_spec.keys():
                observation_spec["info"] = Composite(shape=shape, device=device)
            observation_spec["info", key] = Unbounded((*shape, 1), device=device)
        for name in self.corrector.masked:
            spec = self.corrector.groups[name]
            n_actions = spec.action.n if isinstance(spec.action, Discrete) else 0
            full = (*shape, spec.n_agents, n_actions)
            observation_spec[name, "action_mask"] = Binary(
                n_actions, full, dtype=torch.bool, device=device
            )
        return observation_spec


def shielded_env(env: EnvBase, shield: Any) -> EnvBase:
    """``env`` behind ``shield`` (:class:`Shield`, or settings of one); itself if that is None.

    Raises:
        ValueError: if the shield cannot be read, or does not fit the environment's groups.
    """
    return env if shield is None else TransformedEnv(env, ShieldTransform(Shield.of(shield), env))


def groups_of(env: EnvBase) -> dict[str, GroupSpec]:
    """The agent groups of an environment, as far as its specs tell.

    Raises:
        ValueError: for actions that are neither bounded vectors, alike for all agents, nor categorical.
    """
    found = {}
    for name, agents in getattr(env, "group_map").items():  # noqa: B009 - TorchRL's class lacks it
        spec = env.full_action_spec_unbatched[name, "action"]
        action: Box | Discrete
        if isinstance(spec, Categorical):
            action = Discrete(int(spec.space.n))
        else:
            bounded = isinstance(spec, Bounded) and spec.ndim == 2
            require(
                bounded, f"a shield needs actions with bounds; those of group '{name}' have none."
            )
            low, high = spec.space.low, spec.space.high
            alike = bool((low == low[0]).all() and (high == high[0]).all())
            require(alike, f"a shield needs agents with equal bounds; those of '{name}' differ.")
            action = Box(tuple(low[0].tolist()), tuple(high[0].tolist()))
        shape = env.full_observation_spec_unbatched[name].get("observation", None)
        width = 0 if shape is None else int(shape.shape[-1])
        found[name] = GroupSpec(len(agents), width, action)
    return found
