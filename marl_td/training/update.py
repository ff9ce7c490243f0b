"""One optimiser step as one compiled graph (batch, loss, gradients, norms, metrics) and Adam's fused kernel.

The kernel is called beside the graph: inside, Adam was a fifth of a step of MADDPG, and a graph that changes
parameters which a frozen view shares copies them. Together they do what BenchMARL's ``_optimizer_loop``
does with the same minibatch, and change the same parameters and optimiser states in place, so that
checkpoints, evaluation and callbacks see nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from benchmarl.experiment import Callback
from tensordict import TensorDict
from torch import Tensor
from torchrl.data import LazyTensorStorage
from torchrl.data.replay_buffers import RandomSampler, SamplerWithoutReplacement

from marl_td.algorithms.replay import EvenMinibatches
from marl_td.collect.nested import Shapes, entries_of, nest, shapes_of
from marl_td.collect.prioritised import ProportionalSampler
from marl_td.collect.window_replay import WindowReplayBuffer
from marl_td.losses.common import MultiAgentLoss
from marl_td.losses.targets import FrozenView, TargetUpdater
from marl_td.models.compiling import Compiled, NotCompilable, compiled_or_none
from marl_td.models.straight import require_straight
from marl_td.tasks.vector_env import Entries
from marl_td.training.adam import adam_step

SAMPLERS = (RandomSampler, SamplerWithoutReplacement, EvenMinibatches, ProportionalSampler)
"""What may choose the minibatches."""

UPDATES_TO_PAY = 6_000
"""Optimiser steps after which compiled ones are ahead: 40 s of compiling at 7 ms saved by each."""


LONGEST_SEQUENCE = 32
"""A recurrent network's loop over a sequence is written out in the graph: longer ones compile for minutes."""


@dataclass(frozen=True)
class Clip:
    """How gradients are clipped: by their norm, by value, or not at all (``limit`` None)."""

    limit: float | None
    by_norm: bool


Step = tuple[Tensor, dict[str, list[Tensor]], dict[str, Tensor], list[Tensor]]
"""Metrics as one vector; of each loss the gradients, and what divides them; priorities ``[k]``, if asked."""


class CompiledUpdate:
    """Optimiser steps of one group of agents.

    A loss that is stepped less often than others (``loss.delays``) has a graph of the steps without it: its
    optimiser is not touched there, its gradient is not computed, and its last norm is reported.

    Args:
        loss: its loss module; ``compute`` is traced.
        optimisers: one Adam per loss name; every loss name of theirs is minimised.
        target_updater: moves the target networks, or None.
        buffer: where minibatches come from: a tensor storage, sampled by one of ``SAMPLERS``.
        clip: gradient clipping.
        device: where the training happens; the storage must be there.
        skips: leave out steps whose gradients are not finite.
        backend: of ``torch.compile``.

    Raises:
        NotCompilable: naming what is not supported.
    """

    def __init__(
        self,
        loss: MultiAgentLoss,
        optimisers: dict[str, torch.optim.Optimizer],
        target_updater: TargetUpdater | None,
        buffer: Any,
        *,
        clip: Clip,
        device: Any,
        skips: bool = False,
        backend: str = "inductor",
    ) -> None:
        _check(loss, buffer, device)
        _straighten(loss)
        self.loss = loss
        self.buffer = buffer
        self.adams = {
            name: adam_step(optimiser, device, loss) for name, optimiser in optimisers.items()
        }
        self.target_updater = target_updater
        self.clip = clip
        self.skips = skips
        self.names: list[str] = []
        self._shapes: Shapes = {}
        self._inner: tuple[int, ...] = ()  # of the stored rows: steps, where a row is a sequence
        self.backend = backend
        self.n_steps = 0 if target_updater is None else target_updater.n_steps
        self._graphs: dict[tuple[str, ...], Compiled[Step]] = {}
        self._norms = {name: torch.zeros((), device=device) for name in loss.delays}

    def run(self, n_updates: int) -> TensorDict:
        """``n_updates`` optimiser steps; metrics ``[n_updates]`` of each.

        Raises:
            RuntimeError: if no window or episode to learn from has been collected yet.
        """
        if isinstance(self.buffer, WindowReplayBuffer):
            self.buffer.check_filled()
        stored = self.buffer.storage._storage
        self._shapes, self._inner = shapes_of(stored), tuple(stored.batch_size[1:])
        entries = entries_of(stored)
        for adam in self.adams.values():
            adam.begin()
        rows = []
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            for _ in range(n_updates):
                rows.append(self._sample_and_step(entries))
                if self.target_updater is not None:
                    self.target_updater.step()
        for adam in self.adams.values():
            adam.end()
        columns = torch.stack(rows).unbind(-1)
        return TensorDict(dict(zip(self.names, columns, strict=True)), batch_size=[n_updates])

    def snapshot(self) -> dict[str, Any]:
        """Where in the periods of delayed losses it is, and the norms that it last reported for them."""
        return {"n_steps": self.n_steps, "norms": dict(self._norms)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`snapshot` gave."""
        self.n_steps = state["n_steps"]
        for name, norm in self._norms.items():
            norm.copy_(state["norms"][name])

    @property
    def compile_seconds(self) -> float:
        """What compiling took so far."""
        return sum(graph.seconds for graph in self._graphs.values())

    # ------------------------------------------------------------------ parts
    def _changed(self) -> Iterator[Tensor]:
        """Every tensor that the graph may change: running statistics, and PopArt's output layer."""
        yield from self.loss.parameters()
        yield from self.loss.buffers()
        yield from self._norms.values()

    def _due(self) -> tuple[str, ...]:
        """The losses whose optimisers are due at the coming step."""
        self.n_steps += 1
        delays = self.loss.delays
        return tuple(name for name in self.adams if self.n_steps % delays.get(name, 1) == 0)

    def _graph(self, due: tuple[str, ...]) -> Compiled[Step]:
        """The graph of the gradients of the losses ``due``."""
        if due not in self._graphs:
            gradients = partial(self._gradients, due)
            self._graphs[due] = Compiled(
                "update", gradients, self.backend, self._changed, lent=True
            )
        return self._graphs[due]

    def _sample_and_step(self, entries: Entries) -> Tensor:
        """One optimiser step on a minibatch, whose priorities go back to the sampler; its metrics."""
        sampler = self.buffer.sampler
        index, info = sampler.sample(self.buffer.storage, self.buffer._batch_size)
        index = torch.as_tensor(index)
        prioritised = isinstance(sampler, ProportionalSampler)
        weight = (info["priority_weight"],) if prioritised else ()
        due = self._due()
        metrics, gradients, divisors, priority = self._graph(due)(entries, index, *weight)
        for name in due:
            if self.skips:
                told = [metrics[self.names.index(key)] for key in (name, f"grad_norm_{name}")]
                self.adams[name].bad = (~torch.stack(told).isfinite().all()).float()
            self.adams[name](gradients[name], divisors.get(name))
        if prioritised and self.skips:
            priority = [torch.nan_to_num(value, nan=0.0, posinf=0.0) for value in priority]
        if prioritised:
            sampler.update_priority(index, *priority)
        return metrics.clone()  # the next step may overwrite it

    def _gradients(
        self, due: tuple[str, ...], entries: Entries, index: Tensor, *weight: Tensor
    ) -> Step:
        """Gradients of the losses ``due`` on the rows ``index``; with weights ``[k]``, priorities too."""
        rows = {key: value[index] for key, value in entries.items()}
        batch_size = (*index.shape, *self._inner)
        if weight:
            ones = [1] * len(self._inner)
            rows["priority_weight",] = weight[0].reshape(-1, *ones).expand(batch_size)
        batch = nest(rows, self._shapes, batch_size, index.device)
        values = self.loss.compute(batch)
        params = [param for name in due for param in self.adams[name].params]
        total = torch.stack([values[name] for name in due]).sum()
        found = list(torch.autograd.grad(total, params))
        metrics = {name: value.detach() for name, value in values.items() if name != "priority"}
        gradients, divisors = {}, {}
        for name in due:
            n_params = len(self.adams[name].params)
            own, found = [gradient.contiguous() for gradient in found[:n_params]], found[n_params:]
            norm = torch.stack([gradient.square().sum() for gradient in own]).sum().sqrt()
            metrics[f"grad_norm_{name}"] = norm
            if self.clip.limit is not None and self.clip.by_norm:
                divisors[name] = ((norm + 1e-6) / self.clip.limit).clamp(min=1.0)
            elif self.clip.limit is not None:
                own = [gradient.clamp(-self.clip.limit, self.clip.limit) for gradient in own]
            gradients[name] = own
        for name, norm in self._norms.items():
            if name in due:  # a step that was left out is told of once
                now = metrics[f"grad_norm_{name}"]
                norm.copy_(torch.where(now.isfinite(), now, norm))
            else:
                metrics[f"grad_norm_{name}"] = norm.clone()
        self.names = sorted(metrics)
        row = torch.stack([metrics[name].float() for name in self.names])
        error = [values["priority"].detach()] if weight else []
        return row, gradients, divisors, [self.loss.item_priority(batch, e) for e in error]


def compiled_update(experiment: Any, group: str, skips: bool = False) -> CompiledUpdate | None:
    """The compiled update of a group of a BenchMARL experiment, whose buffer has been filled.

    Warns:
        CompileWarning: if it cannot be compiled; the result is None then.
    """
    config = experiment.config

    def build() -> CompiledUpdate:
        for callback in experiment.callbacks:
            if type(callback).on_train_step is not Callback.on_train_step:
                raise NotCompilable(f"{type(callback).__name__} looks at every minibatch")
        return CompiledUpdate(
            experiment.losses[group],
            experiment.optimizers[group],
            experiment.target_updaters[group],
            experiment.replay_buffers[group],
            clip=Clip(config.clip_grad_val, config.clip_grad_norm),
            device=config.train_device,
            skips=skips,
        )

    return compiled_or_none("update", build)


def _straighten(loss: MultiAgentLoss) -> None:
    """Straighten the loss's networks, and those that it reads without owning them."""
    require_straight(loss)
    for part in loss.modules():
        for value in vars(part).values():
            if isinstance(value, FrozenView):
                require_straight(value.module)
            elif isinstance(value, dict):  # other groups' target actors
                for module in value.values():
                    if isinstance(module, torch.nn.Module):
                        require_straight(module)


def _check(loss: Any, buffer: Any, device: Any) -> None:
    if not isinstance(loss, MultiAgentLoss):
        raise NotCompilable(f"the loss is {type(loss).__name__}, not one of marl_td")
    if loss.not_compilable is not None:
        raise NotCompilable(f"{type(loss).__name__} {loss.not_compilable}")
    sampler = type(buffer.sampler)
    if sampler not in SAMPLERS:
        raise NotCompilable(f"the replay buffer has a {sampler.__name__}")
    storage = buffer.storage
    if type(storage) is not LazyTensorStorage:
        raise NotCompilable(f"the replay buffer keeps a {type(storage).__name__}")
    if torch.device(storage.device).type != torch.device(device).type:
        raise NotCompilable(
            f"the replay buffer is on {storage.device} and training on {device}; set "
            "experiment.buffer_device to the training device"
        )
    inner = storage._storage.batch_size[1:] if storage._storage is not None else ()
    if inner and max(inner) > LONGEST_SEQUENCE:
        raise NotCompilable(
            f"its sequences have {max(inner)} steps; set algorithm.chunk_length to {LONGEST_SEQUENCE} or "
            "less (value-based: algorithm.sequence=window, and window_length + burn_in)"
        )
    if getattr(buffer, "_transform", None) is not None and len(buffer._transform):
        raise NotCompilable("the replay buffer has transforms")
