"""The one TorchRL environment that serves every batched task.

It holds what a task must not know: specs, the step counter and time limit, partial resets, and the
random stream. The layout of keys is that of :mod:`marl_td.tasks.specs`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase, TransformedEnv

from marl_td.tasks.base import Noise, Step, Task, checked_n_envs, require
from marl_td.tasks.shield import shielded
from marl_td.tasks.specs import DONE_KEYS, random_available, read_action, set_specs

Entries = dict[tuple[str, ...], Tensor]
"""Leaves of a TensorDict by their full key, each ``[n_envs, ...]``."""


class VectorEnv(EnvBase):
    """A TorchRL environment over ``n_envs`` copies of a task, all advanced by one tensor program.

    The environment owns its generator: no other environment, evaluation or policy disturbs its
    random numbers, and it disturbs none.

    Args:
        task: the task; its device is the environment's.
        n_envs: number of copies, the batch size.
        seed: seed of the environment's own random stream.

    Raises:
        ValueError: if ``n_envs`` is no whole number of at least 1, or an action has a wrong shape or value.
        TypeError: if an action has a wrong type.
        RuntimeError: for a step before the first reset.
    """

    rng: torch.Generator

    def __init__(self, task: Task[Any, Any], n_envs: int, seed: int | None = 0) -> None:
        n_envs = checked_n_envs(n_envs)
        super().__init__(device=task.device, batch_size=torch.Size([n_envs]))
        self.task = task = shielded(task)
        self.n_envs = n_envs
        self.group_map = {
            group: [f"{group}_{i}" for i in range(spec.n_agents)]
            for group, spec in task.groups.items()
        }
        self.rng = torch.Generator(device=task.device)
        set_specs(self, task.groups, task.d_state, task.info_keys)
        actions = self.full_action_spec
        self._action_shape = {group: actions[group, "action"].shape for group in task.groups}
        self._set_seed(seed)
        self.state: Any = None
        self.step_count = torch.zeros(n_envs, dtype=torch.long, device=task.device)
        self.next_noise: Noise | None = None

    # --------------------------------------------------------------- dynamics
    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        fresh = self.task.reset(self.n_envs, self.task.draw_reset(self.n_envs, self.rng))
        mask = None if tensordict is None else tensordict.get("_reset", None)
        if mask is None or self.state is None:
            self.state = fresh
            self.step_count = torch.zeros_like(self.step_count)
        else:
            mask = mask.reshape(self.n_envs)
            self.state = where_state(mask, fresh, self.state)
            self.step_count = torch.where(mask, 0, self.step_count)
        never = torch.zeros((self.n_envs, 1), dtype=torch.bool, device=self.device)
        zero = torch.zeros(self.n_envs, device=self.device)
        out = self._observation(dict.fromkeys(self.task.info_keys, zero))
        return out.update({key: never.clone() for key in DONE_KEYS})

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        action = {
            group: read_action(tensordict, group, self._action_shape[group], spec.action)
            for group, spec in self.task.groups.items()
        }
        noise = self.next_noise
        if noise is None:
            noise = self.task.draw_step(self.n_envs, self.rng)
        self.next_noise = None
        step = self.task.step(self._ready(), action, noise)
        self.state = step.state
        self.step_count = self.step_count + 1
        out = self._observation(step.info)
        return out.update(outcome(self.task, step, self.step_count))

    def _observation(self, info: dict[str, Tensor]) -> TensorDict:
        out = TensorDict({}, batch_size=self.batch_size, device=self.device)
        for group, spec in self.task.groups.items():
            shape = (self.n_envs, spec.n_agents)
            out.set(group, TensorDict({}, batch_size=shape, device=self.device))
        for key, value in observed(self.task, self.state, info).items():
            out.set(key, value)
        return out

    def _ready(self) -> Any:
        if self.state is None:
            raise RuntimeError("the environment has no state yet; call env.reset() first.")
        return self.state

    # ----------------------------------------------------------------- saving
    def snapshot(self) -> dict[str, Any]:
        """Where all copies are and where the random stream is, as tensors and numbers."""
        return {
            "state": None if self.state is None else [value.clone() for value in self.state],
            "step_count": self.step_count.clone(),
            "rng": self.rng.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`snapshot` gave, to the last bit.

        Raises:
            ValueError: if it is of another task or another number of copies.
        """
        if state["state"] is not None:
            fresh = self.task.reset(self.n_envs, self.task.draw_reset(self.n_envs, self.rng))
            saved = [value.to(self.device) for value in state["state"]]
            kinds = [[(v.shape, v.dtype) for v in values] for values in (fresh, saved)]
            require(
                kinds[0] == kinds[1],
                f"the saved state is not one of {self.n_envs} copies of '{self.task.name}' with these "
                "parameters.",
            )
            self.state = type(fresh)(*saved)
        self.step_count = state["step_count"].to(self.device)
        self.rng.set_state(state["rng"].cpu())

    # ---------------------------------------------------------------- helpers
    def inject_noise(self, noise: Noise) -> None:
        """Use ``noise``, as :meth:`Task.draw_step` returns it, in the next step."""
        self.next_noise = noise

    def rand_action(self, tensordict: TensorDictBase | None = None) -> TensorDictBase:
        """Write uniformly random actions, drawn among the available ones where there is a mask.

        A policy's randomness is not the environment's: this draws from torch's global generator.
        """
        out = super().rand_action(tensordict)
        for group, spec in self.task.groups.items():
            if spec.masked:
                mask = out.get((group, "action_mask"), None)
                if mask is None:
                    mask = self.task.action_mask(self._ready())[group]
                out.set((group, "action"), random_available(mask))
        return out

    def to(self, device: torch.device | str) -> VectorEnv:
        """Itself, if ``device`` is its own; a task cannot move, its constants live on one device.

        Raises:
            ValueError: for another device.
        """
        wanted, own = torch.device(device), self.task.device
        same = wanted.type == own.type and (wanted.index or 0) == (own.index or 0)
        require(
            same,
            f"this environment lives on {own} and cannot move to {wanted}; build the task there: "
            f"make_env('{self.task.name}', n_envs={self.n_envs}, device='{wanted}').",
        )
        return self

    def _set_seed(self, seed: int | None) -> None:
        if seed is None:
            self.rng.seed()
        else:
            self.rng.manual_seed(seed)

    def render(self, mode: str = "rgb_array", index: int = 0) -> np.ndarray[Any, Any]:
        """Picture of copy ``index`` as ``uint8 [height, width, 3]``.

        Raises:
            ValueError: if ``mode`` is not ``"rgb_array"``.
        """
        require(mode == "rgb_array", f"render mode must be 'rgb_array'; got '{mode}'.")
        return self.task.render(self._ready(), index)


def batched_task(env: EnvBase) -> Task[Any, Any] | None:
    """The batched task behind an environment and its transforms, or None for any other environment."""
    while isinstance(env, TransformedEnv):
        env = env.base_env
    return env.task if isinstance(env, VectorEnv) else None


def observed(task: Task[Any, Any], state: Any, info: dict[str, Tensor]) -> Entries:
    """What an environment shows of ``state``: observations, masks, global state, raw quantities."""
    groups = {
        "observation": task.observe(state),
        "action_mask": task.action_mask(state),
        "mask": task.alive(state),
    }
    out: Entries = {
        (group, name): value for name, found in groups.items() for group, value in found.items()
    }
    if task.d_state is not None:
        out["state",] = task.team_state(state)
    out.update({("info", key): info[key].unsqueeze(-1) for key in task.info_keys})
    for name, values in task.agent_info(state).items():
        out.update({(group, "info", name): value for group, value in values.items()})
    return out


def outcome(task: Task[Any, Any], step: Step[Any], step_count: Tensor) -> Entries:
    """What a step gives beside the next observation: rewards and ends; ``step_count`` includes it."""
    terminated = step.terminated.unsqueeze(-1)
    at_limit = (step_count >= task.params.max_steps).unsqueeze(-1)
    out: Entries = {
        (group, "reward"): reward.unsqueeze(-1) for group, reward in step.reward.items()
    }
    out["terminated",] = terminated
    out["truncated",] = at_limit & ~terminated
    out["done",] = at_limit | terminated
    return out


def where_state(mask: Tensor, new: Any, old: Any) -> Any:
    """Rows of ``new`` where ``mask`` ``[n_envs]`` is true, of ``old`` elsewhere, field by field."""
    fields = [
        torch.where(mask.reshape(-1, *[1] * (o.ndim - 1)), n, o)
        for n, o in zip(new, old, strict=True)
    ]
    return type(new)(*fields)
