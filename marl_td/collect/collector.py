"""A collector that runs a policy in a batched task, a whole batch of steps as one compiled graph.

It yields what ``torchrl.collectors.Collector`` yields: the same keys, shapes and bookkeeping, and the same
values for the same random numbers. :func:`make_collector` takes TorchRL's for other environments.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torch.utils._pytree import tree_map
from torchrl.collectors import Collector
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from marl_td.collect.bookkeeping import Bookkeeping
from marl_td.collect.chunk import Act, Carry, Chunk, Layout, Rows
from marl_td.collect.nested import Shapes, nest
from marl_td.collect.rng import put_back_torch, torch_streams
from marl_td.collect.start_states import StartStates
from marl_td.models.compiling import Compiled, NotCompilable, compiled_or_none
from marl_td.models.straight import require_straight
from marl_td.tasks.base import Noise
from marl_td.tasks.vector_env import Entries


class CompiledCollector:
    """Collects ``[n_envs, T]`` batches: policy, step, bookkeeping and reset as one compiled loop.

    Args:
        env: a batched task's environment, bare or under RewardSum, InitTracker, TensorDictPrimer and
            LastAction.
        policy: reads root entries, writes the groups' actions; its parameters are used as they are, so it
            follows every optimiser step.
        frames_per_batch: frames of a batch, ``n_envs * T``; rounded up to whole steps.
        total_frames: stop after so many frames; -1 for never.
        init_random_frames: frames at the start with random actions instead of the policy's; rounded up to
            whole batches.
        n_starts: start states of every environment in a batch, from the first again if more are needed.
            None takes as many as its episodes usually need, and collects a batch that needs more anew.
        backend: of ``torch.compile``.
        what: its name, where a warning says that it is not compiled.

    Raises:
        NotCompilable: for an environment or transform that cannot be compiled.
        ValueError: for numbers out of range.
    """

    exploration: ExplorationType = ExplorationType.RANDOM
    """How the policy acts while a batch is collected."""

    def __init__(
        self,
        env: EnvBase,
        policy: Act,
        *,
        frames_per_batch: int,
        total_frames: int = -1,
        init_random_frames: int = 0,
        n_starts: int | None = None,
        backend: str = "inductor",
        what: str = "rollout",
    ) -> None:
        if frames_per_batch < 1 or init_random_frames < 0:
            raise ValueError(
                "frames_per_batch must be at least 1 and init_random_frames at least 0; got "
                f"{frames_per_batch} and {init_random_frames}."
            )
        self.env = env
        self.policy = policy
        self.bookkeeping = Bookkeeping(env)
        self.base = self.bookkeeping.env
        if self.base.task.uncompilable:
            raise NotCompilable(self.base.task.uncompilable)
        if isinstance(policy, torch.nn.Module):
            require_straight(policy)
        self.n_steps = -(-frames_per_batch // self.base.n_envs)
        self.starts = StartStates(self.base.task, self.base.n_envs, self.n_steps, n_starts)
        self.requested_frames_per_batch = frames_per_batch
        self.frames_per_batch = self.n_steps * self.base.n_envs
        self.total_frames = float("inf") if total_frames < 0 else total_frames
        self.init_random_frames = init_random_frames
        self.backend = backend
        self.what = what
        self._compiled: Compiled[tuple[Carry, Rows]] | None = None
        self._compiled_before = 0.0
        self._frames = 0
        self._iter = -1
        self._carry: Carry | None = None
        self._clock = torch.arange(self.n_steps, device=self.base.device)
        self._traj_ids = torch.arange(self.base.n_envs, device=self.base.device)
        self._n_trajs: int | Tensor = self.base.n_envs

    # ------------------------------------------------------------- iteration
    def __iter__(self) -> Iterator[TensorDictBase]:
        while self._frames < self.total_frames:
            self._iter += 1
            batch = self.rollout()
            self._frames += batch.numel()
            yield batch

    @torch.no_grad()
    def rollout(self) -> TensorDictBase:
        """The next batch ``[n_envs, T]``."""
        before = self._start() if self._carry is None else self._carry
        noise, rng = self._noise(), self.base.rng
        streams = (torch_streams(), rng.get_state()) if self.starts.may_run_out else None
        carry, columns = self._steps(before, noise, self.starts.noise(rng))
        while streams and self.starts.run_out(columns["next", "done"]):
            self._forget_graph()  # another number of start states makes another
            put_back_torch(streams[0])
            if not self.starts.keeps:  # those that are kept were drawn from here
                rng.set_state(streams[1])
            carry, columns = self._steps(before, noise, self.starts.noise(rng))
        self.starts.use(columns["next", "done"], self.base.rng)
        self._carry = carry
        self.base.state, self.base.step_count = carry.state, carry.step_count
        return self._as_batch(columns)

    def reset(self) -> None:
        """Start fresh episodes in all environments."""
        self._carry = None

    @property
    def compile_seconds(self) -> float:
        """What compiling took so far."""
        return self._compiled_before + (0.0 if self._compiled is None else self._compiled.seconds)

    # ----------------------------------------------------- TorchRL's interface
    def update_policy_weights_(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: the policy is the trained one itself."""

    def set_seed(self, seed: int, static_seed: bool = False) -> int:
        """Seed the environment's random stream; the next batch starts fresh episodes."""
        self._carry = None
        self.starts.forget()
        return int(self.base.set_seed(seed, static_seed=static_seed))

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        """Close the environment."""
        if not self.env.is_closed:
            self.env.close()

    def state_dict(self) -> OrderedDict[str, Any]:
        """Counters and weights, as TorchRL's collector keeps them."""
        state: OrderedDict[str, Any] = OrderedDict()
        if isinstance(self.policy, torch.nn.Module):
            state["policy_state_dict"] = self.policy.state_dict()
        state["env_state_dict"] = OrderedDict()
        state.update(frames=self._frames, iter=self._iter)
        return state

    def load_state_dict(self, state_dict: dict[str, Any], **kwargs: Any) -> None:
        """Go on from :meth:`state_dict`, or from the one of TorchRL's collector."""
        if isinstance(self.policy, torch.nn.Module):
            self.policy.load_state_dict(state_dict["policy_state_dict"])
        self._frames, self._iter = state_dict["frames"], state_dict["iter"]

    # ----------------------------------------------------------------- saving
    def snapshot(self) -> dict[str, Any]:
        """Counters, and where every environment is in its episode, as tensors and numbers."""
        carry = self._carry
        held = carry and {
            "state": list(carry.state),
            "step_count": carry.step_count,
            "entries": [[list(key), value] for key, value in carry.entries.items()],
        }
        return {
            "frames": self._frames,
            "iter": self._iter,
            "carry": held,
            "traj_ids": self._traj_ids,
            "n_trajs": int(self._n_trajs),
            "n_starts": self.starts.number,
            "starts": self.starts.snapshot(),
            "env": self.base.snapshot(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`snapshot` gave, to the last bit."""
        device = self.base.device
        held = state["carry"]
        if held is not None:
            kind = type(self._start().state)
            self._carry = Carry(
                kind(*(value.to(device) for value in held["state"])),
                held["step_count"].to(device),
                {tuple(key): value.to(device) for key, value in held["entries"]},
            )
        self.base.restore(state["env"])
        self._frames, self._iter = state["frames"], state["iter"]
        self._traj_ids = state["traj_ids"].to(device)
        self._n_trajs = torch.tensor(state["n_trajs"], device=device)
        n_starts = self.starts.number
        self.starts.restore(state["n_starts"], state.get("starts", {}))  # older runs have none
        if n_starts != self.starts.number:
            self._forget_graph()

    # ------------------------------------------------------------------ parts
    def _start(self) -> Carry:
        """Fresh episodes, in the memory layout that a batch leaves: another would compile a second graph."""
        drawn = self.base.task.draw_reset(self.base.n_envs, self.base.rng)
        carry = Chunk(self.bookkeeping, self.policy).start(drawn)
        return tree_map(lambda value: Layout(value).restore(Layout(value).store(value)), carry)

    def _steps(self, carry: Carry, step: Noise, fresh: Noise) -> tuple[Carry, Entries]:
        """The carry after a batch, and its rows ``[T, n_envs, ...]``, by noise of steps and of resets."""
        chunk = self._chunk(at_random=self._frames < self.init_random_frames)
        with set_exploration_type(self.exploration):
            carry, rows = chunk(carry, step, fresh, self._clock)
        return carry, rows.entries()

    def _forget_graph(self) -> None:
        """Compile anew."""
        self._compiled_before = self.compile_seconds
        self._compiled = None

    def _chunk(self, at_random: bool) -> Callable[..., tuple[Carry, Rows]]:
        """The compiled steps of the policy; the few random ones at the start are not worth a graph."""
        if at_random:
            return Chunk(self.bookkeeping, self.base.rand_action, self.starts.number)
        if self._compiled is None:
            chunk = Chunk(self.bookkeeping, self.policy, self.starts.number)
            self._compiled = Compiled(self.what, chunk, self.backend)
        return self._compiled

    def _noise(self) -> Noise:
        """Noise of a batch's steps, ``[T, n_envs, ...]``."""
        shape = (self.n_steps, self.base.n_envs)
        drawn = self.base.task.draw_step(math.prod(shape), self.base.rng)
        return {n: v.reshape(*shape, *v.shape[1:]).contiguous() for n, v in drawn.items()}

    def _as_batch(self, rows: Entries) -> TensorDict:
        columns = {key: value.transpose(0, 1) for key, value in rows.items()}
        columns["collector", "traj_ids"] = self._trajectories(columns["next", "done"].squeeze(-1))
        shapes: Shapes = {(group,): (g.n_agents,) for group, g in self.base.task.groups.items()}
        following: Shapes = {("next", *path): extra for path, extra in shapes.items()}
        batch_size = (self.base.n_envs, self.n_steps)
        return nest(columns, {**shapes, ("next",): (), **following}, batch_size, self.base.device)

    def _trajectories(self, done: Tensor) -> Tensor:
        """Trajectory numbers ``[n_envs, T]``: a new one after each end, counted step by step."""
        ended = done.transpose(0, 1)  # [T, n_envs]
        number = ended.flatten().cumsum(0).reshape(ended.shape) + (self._n_trajs - 1)
        begun = torch.cat([self._traj_ids.unsqueeze(0), torch.where(ended, number, 0)])
        ids = begun.cummax(0).values  # the numbers only grow
        self._traj_ids, self._n_trajs = ids[-1], self._n_trajs + ended.sum()
        return ids[:-1].transpose(0, 1)


def make_collector(
    make_env: Callable[[], EnvBase],
    policy: Any,
    *,
    device: Any,
    frames_per_batch: int,
    total_frames: int,
    init_random_frames: int = 0,
    compiled: bool = True,
) -> CompiledCollector | Collector:
    """The compiled collector, or TorchRL's where it is not wanted or something cannot be compiled.

    Warns:
        CompileWarning: naming the component that cannot be compiled, and why.
    """
    frames: dict[str, Any] = {
        "frames_per_batch": frames_per_batch,
        "total_frames": total_frames,
        "init_random_frames": init_random_frames,
    }
    if compiled:
        collector = compiled_or_none(
            "rollout", lambda: CompiledCollector(make_env().to(device), policy, **frames)
        )
        if collector is not None:
            return collector
    return Collector(make_env, policy, device=device, storing_device=device, **frames)
