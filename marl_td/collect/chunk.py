"""Some steps of a policy in a batched task as one pure function of tensors: what gets compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torch._higher_order_ops.scan import scan
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from marl_td.collect.bookkeeping import Bookkeeping
from marl_td.collect.nested import Shapes, entries_of, nest
from marl_td.tasks.base import Noise
from marl_td.tasks.specs import DONE_KEYS
from marl_td.tasks.vector_env import Entries, observed, outcome, where_state

Act = Callable[[TensorDictBase], TensorDictBase]
WIDE = 64
"""Numbers of an episode beyond which each lies in one piece in memory."""


class Carry(NamedTuple):
    """What one step hands to the next: the task's state, its step count, the entries policies read."""

    state: Any
    step_count: Tensor
    entries: Entries


class Fresh(NamedTuple):
    """Episodes that may begin in a batch: states and entries ``[n_starts * n_envs, ...]``."""

    state: Any
    entries: Entries


class Rows(NamedTuple):
    """What a chunk keeps of its steps, ``[T, n_envs, ...]``; those that are true or false as bytes."""

    numbers: Entries
    truths: Entries

    def entries(self) -> Entries:
        """All of it in the types of the environment; nothing is copied."""
        return {
            **self.numbers,
            **{key: value.view(torch.bool) for key, value in self.truths.items()},
        }


def packed(value: Tensor) -> Tensor:
    """``value``, as bytes if it is bool.

    The compiler takes bools in and out of memory one by one, which takes as long as the rest of a small
    task's step; bytes, by way of float, it takes as vectors.
    """
    return value.float().to(torch.uint8) if value.dtype == torch.bool else value


def unpacked(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The ``value`` of this type that was :func:`packed`."""
    return value.float() > 0 if dtype == torch.bool else value


class Layout:
    """How a tensor lies in memory while a graph's loop carries it.

    The loop carries contiguous tensors; tasks keep their state in the order in which they are fast.
    """

    def __init__(self, like: Tensor) -> None:
        self.dtype = like.dtype
        strides = like.stride()
        self.order = sorted(range(like.ndim), key=lambda dim: -strides[dim])
        self.inverse = [self.order.index(dim) for dim in range(like.ndim)]

    def store(self, value: Tensor) -> Tensor:
        """A contiguous copy of ``value`` with its dimensions in this order."""
        return packed(value).permute(self.order).clone(memory_format=torch.contiguous_format)

    def restore(self, stored: Tensor) -> Tensor:
        """``stored`` with its dimensions in the usual order."""
        return unpacked(stored.permute(self.inverse), self.dtype)


class Starts:
    """Fresh episodes as one matrix per type of number, from which a loop picks.

    A loop in a graph reads few large tensors faster than many small ones. Nor may the ones it reads be views:
    kernels called from C++ free those after the first step (torch 2.13). Episodes are side by side in
    memory, as environments are in the kernels of a step, unless they are so wide that the numbers of one
    would lie far apart.

    Args:
        fresh: a nest of tensors ``[n_starts * n_envs, ...]``.
        n_envs: number of environments.
    """

    def __init__(self, fresh: Any, n_envs: int) -> None:
        leaves, self.structure = tree_flatten(fresh)
        self.kinds = [(leaf.dtype, leaf.shape[1:]) for leaf in leaves]
        self.n_envs = n_envs
        self.n_starts = len(leaves[0]) // n_envs
        parts: dict[torch.dtype, list[Tensor]] = {}
        for leaf in map(packed, leaves):
            parts.setdefault(leaf.dtype, []).append(leaf.reshape(len(leaf), leaf[0].numel()))
        self.wide = {
            dtype: sum(part.shape[1] for part in found) > WIDE for dtype, found in parts.items()
        }
        self.matrices = {dtype: self._side_by_side(dtype, found) for dtype, found in parts.items()}

    def _side_by_side(self, dtype: torch.dtype, parts: list[Tensor]) -> Tensor:
        """A copy of ``parts``, with something added so that one alone is copied, too."""
        parts = [*parts, parts[0].new_zeros(len(parts[0]), 1)]
        return torch.cat(parts, 1) if self.wide[dtype] else torch.cat([part.T for part in parts])

    def pick(self, turn: Tensor, done: Tensor) -> Any:
        """The nest ``[n_envs, ...]`` of the episodes number ``turn`` of environments that are ``done``.

        For the others it is anything: all of them read the same episode, which stays in the cache.

        Args:
            turn: which of an environment's episodes is next, ``[n_envs]``.
            done: whose episode has ended, ``[n_envs]`` bool.
        """
        seats = torch.arange(self.n_envs, device=turn.device)
        place = torch.where(done, turn * self.n_envs + seats, 0)
        begin = dict.fromkeys(self.matrices, 0)
        leaves = []
        for kind, shape in self.kinds:
            dtype = torch.uint8 if kind == torch.bool else kind
            end = begin[dtype] + shape.numel()
            part = slice(begin[dtype], end)
            if self.wide[dtype]:
                value = self.matrices[dtype][:, part][place]
            else:
                rows = self.matrices[dtype][part]
                value = (rows[:, place] if self.n_starts > 1 else rows).T
            leaves.append(unpacked(value.reshape(self.n_envs, *shape), kind))
            begin[dtype] = end
        return tree_unflatten(leaves, self.structure)

    def after(self, turn: Tensor, done: Tensor) -> Tensor:
        """The next ``turn``, after the last the first again; a division would take longer than a step."""
        return torch.where(done, torch.where(turn + 1 < self.n_starts, turn + 1, 0), turn)


def _loop(body: Callable[..., Any], carry: Any, inputs: Any) -> tuple[Any, Any]:
    """``torch.scan`` without the compiler."""
    rows = []
    for t in range(len(tree_leaves(inputs)[0])):
        carry, row = body(carry, tree_map(lambda value, t=t: value[t], inputs))
        rows.append(row)
    return carry, tree_map(lambda *values: torch.stack(values), *rows)


class Chunk:
    """Some steps of policy, task, bookkeeping and automatic reset.

    It computes what TorchRL's collector computes with the same environment and policy, given the same noise.
    Everything random of the task comes in as tensors; a policy draws from torch's global stream.

    Args:
        bookkeeping: the environment and what its transforms add.
        policy: reads root entries ``[n_envs, ...]`` and writes the groups' actions.
        n_starts: for how many ends of an environment's episodes a batch holds fresh ones.
    """

    def __init__(self, bookkeeping: Bookkeeping, policy: Act, n_starts: int = 1) -> None:
        self.bookkeeping = bookkeeping
        self.env = bookkeeping.env
        self.task = bookkeeping.env.task
        self.policy = policy
        self.n_starts = n_starts
        self.shapes: Shapes = {
            (group,): (spec.n_agents,) for group, spec in self.task.groups.items()
        }

    def __call__(
        self, carry: Carry, step_noise: Noise, reset_noise: Noise, clock: Tensor
    ) -> tuple[Carry, Rows]:
        """The carry after ``T`` steps, and every entry of every step, ``[T, n_envs, ...]``.

        Compiled, the steps are a loop in the graph: the compiler sees one of them whatever ``T``.

        Args:
            carry: where to start.
            step_noise: of the task's steps, each ``[T, n_envs, ...]``.
            reset_noise: of ``n_starts`` resets of every environment, each ``[n_starts * n_envs, ...]``; if
                more of its episodes end, it begins again with the first.
            clock: anything ``[T]``; it says how many steps there are where a task has no noise.
        """
        n_envs = self.env.n_envs
        starts = Starts(self._fresh(n_envs * self.n_starts, reset_noise), n_envs)
        turn = torch.zeros(n_envs, dtype=torch.long, device=self.env.device)
        leaves, structure = tree_flatten((carry, turn))
        layouts = [Layout(leaf) for leaf in leaves]

        def stored(leaves: list[Tensor]) -> list[Tensor]:
            return [layout.store(leaf) for layout, leaf in zip(layouts, leaves, strict=True)]

        def restored(stored: list[Tensor]) -> Any:
            pairs = zip(layouts, stored, strict=True)
            return tree_unflatten([layout.restore(leaf) for layout, leaf in pairs], structure)

        def body(before: list[Tensor], drawn: Any) -> tuple[list[Tensor], tuple[Entries, Entries]]:
            step_noise, _ = drawn
            now, turn = restored(before)
            after, row = self.step(now, step_noise, lambda done: starts.pick(turn, done))
            turn = starts.after(turn, row["next", "done"].squeeze(-1))
            numbers: Entries = {}
            truths: Entries = {}
            for key, value in row.items():
                kept = truths if value.dtype == torch.bool else numbers
                kept[key] = packed(value).clone(memory_format=torch.contiguous_format)
            return stored(tree_leaves((after, turn))), (numbers, truths)

        loop = scan if torch.compiler.is_compiling() else _loop
        final, rows = loop(body, stored(leaves), (step_noise, clock))
        return restored(final)[0], Rows(*rows)

    def step(
        self, carry: Carry, step_noise: Noise, begun: Callable[[Tensor], Fresh]
    ) -> tuple[Carry, Entries]:
        """One step: the next carry, and this step's entries with those under ``"next"``.

        Args:
            carry: where to start.
            step_noise: of the task's step.
            begun: the episodes that begin in the environments that are done, ``[n_envs]`` bool.
        """
        data = nest(carry.entries, self.shapes, (self.env.n_envs,), self.env.device)
        row = entries_of(self.policy(data))
        action = {group: row[group, "action"] for group in self.task.groups}
        step = self.task.step(carry.state, action, step_noise)
        step_count = carry.step_count + 1
        following = {key[1:]: value for key, value in row.items() if key[0] == "next"}
        following.update(observed(self.task, step.state, step.info))
        following.update(outcome(self.task, step, step_count))
        following.update(self.bookkeeping.after_step(carry.entries, following, action))
        row.update({("next", *key): value for key, value in following.items()})
        return self._reset_done(carry, step.state, step_count, following, begun), row

    def start(self, reset_noise: Noise) -> Carry:
        """Fresh episodes in all environments, from noise ``[n_envs, ...]``."""
        n_envs, device = self.env.n_envs, self.env.device
        fresh = self._fresh(n_envs, reset_noise)
        step_count = torch.zeros(n_envs, dtype=torch.long, device=device)
        return Carry(fresh.state, step_count, fresh.entries)

    # ------------------------------------------------------------------ parts
    def _fresh(self, n_envs: int, noise: Noise) -> Fresh:
        """Fresh episodes: states and root entries."""
        device = self.env.device
        state = self.task.reset(n_envs, noise)
        zero = torch.zeros(n_envs, device=device)
        never = torch.zeros((n_envs, 1), dtype=torch.bool, device=device)
        entries: Entries = {
            **observed(self.task, state, dict.fromkeys(self.task.info_keys, zero)),
            **{(key,): never for key in DONE_KEYS},
            **self.bookkeeping.at_reset(n_envs, device),
        }
        return Fresh(state, entries)

    def _reset_done(
        self,
        carry: Carry,
        state: Any,
        step_count: Tensor,
        following: Entries,
        begun: Callable[[Tensor], Fresh],
    ) -> Carry:
        """Go on from ``following``, or from a fresh episode where one has ended."""
        done = following["done",].squeeze(-1)
        fresh = begun(done)
        entries = {}
        for key in carry.entries:
            mask = done.reshape(-1, *[1] * (following[key].ndim - 1))
            entries[key] = torch.where(mask, fresh.entries[key], following[key])
        state = where_state(done, fresh.state, state)
        return Carry(state, torch.where(done, 0, step_count), entries)
