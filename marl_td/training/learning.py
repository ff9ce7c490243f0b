"""What an iteration learns from its batch: schedules, replay, optimiser steps, checks of the numbers."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictSequential

from marl_td.collect.window_replay import WindowReplayBuffer
from marl_td.losses.common import MultiAgentLoss
from marl_td.models.compiling import is_worthwhile
from marl_td.training.estimate import ESTIMATES_TO_PAY, compile_estimate
from marl_td.training.guard import Guard
from marl_td.training.history import History
from marl_td.training.setup import RunSetup
from marl_td.training.update import UPDATES_TO_PAY, CompiledUpdate, compiled_update


class RunLearning(RunSetup):
    """The learning part of :class:`marl_td.training.experiment.Experiment`."""

    history: History

    def _setup(self) -> None:
        self._compiled_updates: dict[str, CompiledUpdate | None] = {}
        self.restored_updates: dict[str, Any] = {}
        self.guard = Guard(self)
        super()._setup()
        if is_worthwhile(self.compile_mode, self.n_iters, ESTIMATES_TO_PAY):
            for group in self.train_group_map:
                compile_estimate(self.algorithm, group)

    def _set_learning_rate(self) -> None:
        """Lower the learning rate linearly to ``lr_end`` of it; BenchMARL's plain settings keep it."""
        end = getattr(self.config, "lr_end", 1.0)
        if end == 1.0:
            return
        done = min(1.0, self.total_frames / self.config.get_max_n_frames(self.on_policy))
        lr = self.config.lr * (1.0 - (1.0 - end) * done)
        for optimisers in self.optimizers.values():
            for optimiser in optimisers.values():
                for parameters in optimiser.param_groups:
                    parameters["lr"] = lr
        for loss in self.losses.values():
            if isinstance(loss, MultiAgentLoss):
                loss.set_learning_rate(lr)

    def _learn(self, batch: TensorDictBase, frames: int) -> None:
        """Train every group on the collected batch ``[n_envs, T]``, unless it is left out."""
        self.guard.begin()
        if self.guard.takes_batch(batch):
            self._on_batch_collected(batch)
            batch = batch.detach()
            self._set_learning_rate()
            for group in self.train_group_map:
                self._train_group(group, batch, frames)
        if self.guard.skips:
            skipped = {"counters/skipped": float(self.guard.n_skipped)}
            self.logger.log(skipped, step=self.n_iters_performed)

    def _train_group(self, group: str, batch: TensorDictBase, frames: int) -> None:
        data = batch.exclude(*self._get_excluded_keys(group)).to(self.config.train_device)
        data = self.algorithm.process_batch(group, data)
        if not self.algorithm.has_rnn:
            data = data.reshape(-1)
        self._store(group, data)
        training = self._update(group)
        self.guard.check_training(group, training, data)
        self.logger.log_training(group, training, step=self.n_iters_performed)
        self._on_train_end(training, group)
        policy = self.group_policies[group]
        explore = policy[-1] if isinstance(policy, TensorDictSequential) else policy
        if hasattr(explore, "step"):
            explore.step(frames)

    def _store(self, group: str, data: TensorDictBase) -> None:
        """Put the steps or rows of a batch into the group's buffer: the last, where it cannot hold them all.

        With more rows than places, some would be written to one place, by several threads in any order.
        """
        buffer = self.replay_buffers[group]
        if not isinstance(buffer, WindowReplayBuffer):
            data = data[-buffer.storage.max_size :]
        buffer.extend(data.to(buffer.storage.device))

    def _update(self, group: str) -> TensorDictBase:
        """All optimiser steps of this iteration, compiled or one by one; metrics ``[n_updates]``."""
        if self._waits(group):
            return TensorDict({}, batch_size=[0])
        n_updates = self._n_updates()
        if group not in self._compiled_updates:
            worth = self._compile_updates()
            update = compiled_update(self, group, self.guard.skips) if worth else None
            if update is not None and self.restored_updates.get(group) is not None:
                update.restore(self.restored_updates[group])
            self._compiled_updates[group] = update
        compiled = self._compiled_updates[group]
        if compiled is not None:
            return self.guard.without_skipped(compiled.run(n_updates))
        rows = [self._optimizer_loop(group) for _ in range(n_updates)]
        made = [row for row in rows if row is not None]
        return torch.stack(made) if made else TensorDict({}, batch_size=[0])

    def _waits(self, group: str) -> bool:
        """Whether no window or whole episode to learn from has been collected yet; it is said once.

        Raises:
            RuntimeError: if the run ends before there can be one.
        """
        buffer = self.replay_buffers[group]
        if not isinstance(buffer, WindowReplayBuffer) or len(buffer):
            return False
        n_envs = max(1, self.collector.env.batch_size.numel())
        if self.n_iters * self.frames_per_iteration // n_envs < buffer.length:
            buffer.check_filled()
        if self.n_iters_performed == 0:
            begins = f"once an episode has ended or lasted {buffer.length} steps"
            self.history.say(self.total_frames, f"group '{group}' begins to learn {begins}")
        return True

    def _optimizer_loop(self, group: str) -> TensorDictBase | None:
        """BenchMARL's optimiser step, with a look at every gradient before it moves anything.

        None if something was left out.
        """
        buffer = self.replay_buffers[group]
        minibatch = buffer.sample().to(self.config.train_device)
        losses = self.losses[group](minibatch)
        metrics = losses.detach()
        losses = self.algorithm.process_loss_vals(group, losses)
        made = self.guard.took_steps(group, metrics, minibatch)
        for name, value in losses.items():
            optimiser = self.optimizers[group].get(name)
            if optimiser is None:
                continue
            value.backward()
            norm = self._grad_clip(optimiser)
            metrics.set(f"grad_norm_{name}", torch.tensor(norm, device=self.config.train_device))
            if self.guard.takes_step(group, name, value, norm, minibatch):
                optimiser.step()
            else:
                made = False
            optimiser.zero_grad()
        if made:
            buffer.update_tensordict_priority(minibatch)
        if self.target_updaters[group] is not None:
            self.target_updaters[group].step()
        extra = self._on_train_step(minibatch, group)
        if extra is not None:
            metrics.update(extra)
        return metrics if made else None

    def _compile_updates(self) -> bool:
        """Whether updates are compiled; a resumed run decides as the one that it goes on from did."""
        return is_worthwhile(self.compile_mode, self.n_iters * self._n_updates(), UPDATES_TO_PAY)

    def _compile_time(self) -> float:
        parts = [self.collector, self.compiled_episodes, *self._compiled_updates.values()]
        compiled = [*parts, *getattr(self.algorithm, "estimators", {}).values()]
        return sum(getattr(part, "compile_seconds", 0.0) for part in compiled)

    def _n_updates(self) -> int:
        config = self.config
        minibatches = -(
            -config.train_batch_size(self.on_policy) // config.train_minibatch_size(self.on_policy)
        )
        return int(config.n_optimizer_steps(self.on_policy) * minibatches)
