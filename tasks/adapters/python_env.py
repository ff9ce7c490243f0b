"""One TorchRL environment over copies of a plain Python environment.

PettingZoo and NumPy environments advance one by one, in Python. What they report is written row by
row into NumPy arrays, which become tensors once a step: that costs little beside the environments
themselves, and gives one batch ``[n_envs]`` in the layout of :mod:`marl_td.tasks.specs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.envs import EnvBase

from marl_td.tasks.adapters.copies import (
    Array,
    Copy,
    Row,
    arrays_of,
    ends_of,
    make_arrays,
    row_of,
)
from marl_td.tasks.base import require
from marl_td.tasks.specs import DONE_KEYS, random_available, read_action, set_specs


class PythonEnv(EnvBase):
    """A batch of Python environments. Built by ``from_pettingzoo``, ``from_mpe``, ``from_numpy``.

    A copy whose episode is over waits, with reward 0, until it is reset. Each copy has its own seed,
    derived from ``seed``.

    Args:
        copies: the environments; all report in the same layout.
        seed: seed from which each copy gets its own; None leaves each to seed itself.
        max_steps: time limit in steps beside the environments' own; reaching it truncates.
        device: where the tensors go; the environments stay on the CPU.
    """

    _seeds: list[int | None]

    def __init__(
        self,
        copies: Sequence[Copy],
        *,
        seed: int | None,
        max_steps: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        n_envs = len(copies)
        limit = max_steps
        require(limit is None or limit >= 1, f"max_steps must be at least 1; got {limit}.")
        super().__init__(device=device, batch_size=torch.Size([n_envs]))
        self.n_envs = n_envs
        self.copies = list(copies)
        self.layout = copies[0].layout
        for copy in copies:
            require(
                copy.layout == self.layout,
                f"all copies must have the same agents and spaces; got {self.layout} and "
                f"{copy.layout}.",
            )
        groups = self.layout.groups
        self.group_map = {group: list(spec.agents) for group, spec in groups.items()}
        set_specs(self, groups, self.layout.d_state, self.layout.info_keys, own_ends=True)
        actions = self.full_action_spec
        self._action_shape = {group: actions[group, "action"].shape for group in groups}
        self.max_steps = max_steps
        self.step_count = np.zeros(n_envs, dtype=np.int64)
        self._terminated = np.zeros(n_envs, dtype=np.bool_)
        self._truncated = np.zeros(n_envs, dtype=np.bool_)
        self._batch = make_arrays(self.layout, n_envs)
        self._rows = [row_of(self._batch, i) for i in range(n_envs)]
        self._set_seed(seed)

    # --------------------------------------------------------------- dynamics
    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        wanted = [True] * self.n_envs if mask is None else mask.reshape(self.n_envs).tolist()
        for i in (i for i, reset in enumerate(wanted) if reset):
            self.copies[i].reset(self._seeds[i], self._rows[i])
            self._seeds[i] = None
            self.step_count[i] = 0
            self._terminated[i] = self._truncated[i] = False
            for ends in ends_of(self._rows[i]):
                ends[...] = False
        for values in self._batch.info.values():
            values[:] = 0
        return self._publish(with_reward=False)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        action = {
            group: read_action(tensordict, group, self._action_shape[group], spec.action)
            .detach()
            .cpu()
            .numpy()
            for group, spec in self.layout.groups.items()
        }
        over = self._terminated | self._truncated
        for i, row in enumerate(self._rows):
            if over[i]:
                for values in (*row.reward.values(), *row.info.values()):
                    values[...] = 0
                continue
            own = {group: values[i] for group, values in action.items()}
            terminated, truncated = self.copies[i].step(own, row)
            self.step_count[i] += 1
            at_limit = self.max_steps is not None and self.step_count[i] >= self.max_steps
            self._terminated[i] = terminated
            self._truncated[i] = (truncated or at_limit) and not terminated
            for group, cut in row.truncated.items():
                cut |= bool(self._truncated[i]) & ~row.terminated[group]
        return self._publish(with_reward=True)

    def _publish(self, with_reward: bool) -> TensorDict:
        """The arrays' present content as tensors; the next step overwrites the arrays."""
        batch: Row = self._batch
        out: dict[str, Any] = {}
        for group, spec in self.layout.groups.items():
            self._require_finite("observation", group, batch.observation[group])
            entries = {"observation": batch.observation[group]}
            if spec.masked:
                entries["action_mask"] = batch.action_mask[group]
            if spec.mortal:
                entries["mask"] = batch.mask[group]
                own = batch.terminated[group], batch.truncated[group]
                entries |= zip(DONE_KEYS, (own[0] | own[1], *own), strict=True)
            if with_reward:
                self._require_finite("reward", group, batch.reward[group])
                entries["reward"] = batch.reward[group]
            shape = (self.n_envs, spec.n_agents)
            tensors = {key: self._tensor(value) for key, value in entries.items()}
            out[group] = TensorDict(tensors, batch_size=shape, device=self.device)
        if self.layout.d_state is not None:
            out["state"] = self._tensor(batch.state)
        if self.layout.info_keys:
            info = {key: self._tensor(values) for key, values in batch.info.items()}
            out["info"] = TensorDict(info, batch_size=self.batch_size, device=self.device)
        done = self._terminated | self._truncated
        for key, value in zip(DONE_KEYS, (done, self._terminated, self._truncated), strict=True):
            out[key] = self._tensor(value).unsqueeze(-1)
        return TensorDict(out, batch_size=self.batch_size, device=self.device)

    def _tensor(self, array: Array) -> torch.Tensor:
        return torch.from_numpy(array.copy()).to(self.device)

    def _require_finite(self, what: str, group: str, values: Array) -> None:
        if np.isfinite(values).all():
            return
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        env, agent, index = where[0], self.group_map[group][where[1]], list(where[2:])
        raise ValueError(
            f"{what} of agent '{agent}' is {values[where]} at index {index} (copy {env}, step "
            f"{self.step_count[env]}). Check what the environment computes there."
        )

    # ----------------------------------------------------------------- saving
    def snapshot(self) -> dict[str, Any] | None:
        """Where all copies are; None unless the environments can say so themselves.

        One that has ``state_dict()`` (tensors, numbers, text, lists, dictionaries; its random stream among
        them) and ``load_state_dict(state)`` can.
        """
        envs = [getattr(copy, "env", None) for copy in self.copies]
        if not all(callable(getattr(env, "load_state_dict", None)) for env in envs):
            return None
        return {
            "envs": [env.state_dict() for env in envs],  # type: ignore[union-attr]
            "copies": [copy.snapshot() for copy in self.copies],
            "arrays": [torch.from_numpy(array.copy()) for array in arrays_of(self._batch)],
            "ends": [torch.from_numpy(array.copy()) for array in ends_of(self._batch)],
            "step_count": self.step_count.tolist(),
            "terminated": self._terminated.tolist(),
            "truncated": self._truncated.tolist(),
            "seeds": list(self._seeds),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`snapshot` gave."""
        for copy, env_state, own in zip(self.copies, state["envs"], state["copies"], strict=True):
            copy.env.load_state_dict(env_state)  # type: ignore[attr-defined]
            copy.restore(own)
        for array, saved in zip(arrays_of(self._batch), state["arrays"], strict=True):
            array[...] = saved.numpy()
        ends = ends_of(self._batch)
        for array, saved in zip(ends, state.get("ends", []), strict=False):  # newer than the rest
            array[...] = saved.numpy()
        self.step_count[:] = state["step_count"]
        self._terminated[:] = state["terminated"]
        self._truncated[:] = state["truncated"]
        self._seeds = list(state["seeds"])

    # ---------------------------------------------------------------- helpers
    def rand_action(self, tensordict: TensorDictBase | None = None) -> TensorDictBase:
        """Write uniformly random actions, drawn among the available ones where there is a mask."""
        out = super().rand_action(tensordict)
        for group, spec in self.layout.groups.items():
            if spec.masked:
                mask = self._tensor(self._batch.action_mask[group])
                out.set((group, "action"), random_available(mask))
        return out

    def _set_seed(self, seed: int | None) -> None:
        """Give each copy its own seed; it takes effect at the copy's next reset."""
        self._seeds = [None] * self.n_envs
        if seed is not None:
            words = np.random.SeedSequence(seed).generate_state(self.n_envs)
            self._seeds = [int(word) for word in words]

    @property
    def render_mode(self) -> str | None:
        """What the environments can draw, if they say so: ``"rgb_array"`` makes :meth:`render` work."""
        return getattr(getattr(self.copies[0], "env", None), "render_mode", None)

    def render(self, mode: str = "rgb_array", index: int = 0) -> Array:
        """Picture of copy ``index`` as ``uint8 [height, width, 3]``."""
        require(mode == "rgb_array", f"render mode must be 'rgb_array'; got '{mode}'.")
        return self.copies[index].render()

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Close the environments."""
        for copy in self.copies:
            copy.close()
        super().close(raise_if_closed=raise_if_closed)
