"""Our experiment: BenchMARL's, with a run folder that survives a crash and evaluation that is only a look.

Same constructor as ``benchmarl.experiment.Experiment``. What differs: a fixed run folder without pickled
files, one ``metrics.csv``, atomic checkpoints, the policy saved for use elsewhere, evaluation that leaves
every random stream as it was, and a stop with a clear sentence when numbers stop being finite.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from benchmarl.utils import seed_everything
from tensordict import TensorDictBase
from tensordict.nn import TensorDictSequential

from marl_td.collect.collector import CompiledCollector
from marl_td.losses.common import MultiAgentLoss
from marl_td.models.compiling import is_worthwhile
from marl_td.training.checkpoints import load_checkpoint
from marl_td.training.estimate import ESTIMATES_TO_PAY, compile_estimate
from marl_td.training.periodic_evaluation import evaluate, metrics
from marl_td.training.policy_files import policy_signature, save_policy
from marl_td.training.progress import Progress
from marl_td.training.settings import CONFIG_FILE, RunSettings, describe
from marl_td.training.setup import RunSetup
from marl_td.training.update import UPDATES_TO_PAY, CompiledUpdate, compiled_update


class Experiment(RunSetup):
    """A training run in a folder of its own.

    ``config.save_folder`` is the run folder itself (BenchMARL makes a folder with a random name below
    it); without it, ``<algorithm>_<task>_<seed>`` in the current folder. Videos are made by
    ``marl-td evaluate --video``, not in training: ``config.render`` has no effect here.

    Raises:
        ValueError: if the folder already holds a run, or a setting is out of range.
    """

    show_progress: bool | None = None
    """Progress bar on stderr; None shows it on a terminal only."""

    def _setup(self) -> None:
        self._compiled_updates: dict[str, CompiledUpdate | None] = {}
        super()._setup()
        n_iters = self.config.get_max_n_iters(self.on_policy)
        if is_worthwhile(self.compile_mode, n_iters, ESTIMATES_TO_PAY):
            for group in self.train_group_map:
                compile_estimate(self.algorithm, group)

    # --------------------------------------------------------------- training
    def run(self) -> None:
        """Train until the last iteration; an interrupted run saves a checkpoint first."""
        seed_everything(self.seed)
        try:
            self._collection_loop()
        except KeyboardInterrupt:
            self._save_experiment()
            raise
        finally:
            self.close()

    def _collection_loop(self) -> None:
        n_iters = self.config.get_max_n_iters(self.on_policy)
        per_iter = self.config.collected_frames_per_batch(self.on_policy)
        batches = iter(self.collector)
        label = f"{self.algorithm_name} {self.task_name}"
        with Progress(n_iters * per_iter, self.total_frames, self.show_progress, label) as bar:
            if isinstance(self.collector, CompiledCollector) or self._compile_updates():
                bar.say("compiling")
            for iteration in range(self.n_iters_performed, n_iters):
                frames = self._iteration(batches, last=iteration == n_iters - 1)
                bar.say("")
                bar.update(frames, **{"return": self.mean_return}, **self._shown)
        if self.config.checkpoint_at_end:
            self._save_experiment()

    _shown: dict[str, float] = {}  # noqa: RUF012 - replaced, never changed in place

    def _iteration(self, batches: Iterator[TensorDictBase], last: bool) -> int:
        """Collect, train, evaluate if due, write the row of metrics, save if due."""
        start = time.perf_counter()
        batch = next(batches)
        collected = time.perf_counter()
        frames = batch.numel()
        self.total_frames += frames
        step = self.n_iters_performed
        self.mean_return = self.logger.log_collection(
            batch, total_frames=self.total_frames, task=self.task, step=step
        )
        self._on_batch_collected(batch)
        batch = batch.detach()
        self._set_learning_rate()
        for group in self.train_group_map:
            self._train_group(group, batch, frames)
        self.collector.update_policy_weights_()
        trained = time.perf_counter()
        if self.config.evaluation and (step == 0 or last or self._due("evaluation", frames)):
            self._evaluation_loop()
        self._log_counters(frames, collected - start, trained - collected, start)
        self.n_iters_performed += 1
        self.logger.commit()
        if self._due("checkpoint", frames) and not (last and self.config.checkpoint_at_end):
            self._save_experiment()
        return frames

    def _due(self, what: str, frames: int) -> bool:
        """Whether the iteration that collected ``frames`` passed a multiple of the interval."""
        interval = getattr(self.config, f"{what}_interval")
        before = self.total_frames - frames
        return bool(interval > 0 and self.total_frames // interval > before // interval)

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

    def _train_group(self, group: str, batch: TensorDictBase, frames: int) -> None:
        data = batch.exclude(*self._get_excluded_keys(group)).to(self.config.train_device)
        data = self.algorithm.process_batch(group, data)
        if not self.algorithm.has_rnn:
            data = data.reshape(-1)
        buffer = self.replay_buffers[group]
        buffer.extend(data.to(buffer.storage.device))
        training = self._update(group)
        self._check_losses(group, training)
        self.logger.log_training(group, training, step=self.n_iters_performed)
        self._on_train_end(training, group)
        policy = self.group_policies[group]
        explore = policy[-1] if isinstance(policy, TensorDictSequential) else policy
        if hasattr(explore, "step"):
            explore.step(frames)

    def _update(self, group: str) -> TensorDictBase:
        """All optimiser steps of this iteration, compiled or one by one; metrics ``[n_updates]``."""
        n_updates = self._n_updates()
        if group not in self._compiled_updates:
            worth = self._compile_updates()
            self._compiled_updates[group] = compiled_update(self, group) if worth else None
        compiled = self._compiled_updates[group]
        if compiled is not None:
            return compiled.run(n_updates)
        return torch.stack([self._optimizer_loop(group) for _ in range(n_updates)])

    def _compile_updates(self) -> bool:
        n_iters = self.config.get_max_n_iters(self.on_policy) - self.n_iters_performed
        return is_worthwhile(self.compile_mode, n_iters * self._n_updates(), UPDATES_TO_PAY)

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

    def _check_losses(self, group: str, training: TensorDictBase) -> None:
        """Stop on the first loss that is not finite; one look at the device per iteration and loss."""
        for name, value in training.items():
            if name.startswith("loss") and not bool(value.isfinite().all()):
                saved = self.checkpoints.files()
                kept = f"the last checkpoint is {saved[-1]}" if saved else "no checkpoint was saved"
                raise FloatingPointError(
                    f"'{name}' of group '{group}' is no longer finite in iteration "
                    f"{self.n_iters_performed} ({self.total_frames} frames); {kept}. Lower "
                    "experiment.lr, or set experiment.clip_grad_val."
                )

    def _log_counters(self, frames: int, collecting: float, training: float, start: float) -> None:
        passed = time.perf_counter() - start
        self.total_time += passed
        self.logger.log(
            {
                "timers/collection_time": collecting,
                "timers/training_time": training,
                "timers/iteration_time": passed,
                "timers/total_time": self.total_time,
                "timers/compile_time": self._compile_time(),
                "counters/current_frames": frames,
                "counters/total_frames": self.total_frames,
                "counters/iter": self.n_iters_performed,
            },
            step=self.n_iters_performed,
        )

    # ------------------------------------------------------------- evaluation
    def _evaluation_loop(self) -> None:
        start = time.perf_counter()
        episodes, rollouts = evaluate(self)
        logged = metrics(self.test_env, episodes)
        self.logger.log(logged, step=self.n_iters_performed)
        passed = time.perf_counter() - start
        self.logger.log({"timers/evaluation_time": passed}, step=self.n_iters_performed)
        key = (
            "eval/score_mean" if "eval/score_mean" in logged else "eval/reward/episode_reward_mean"
        )
        self._shown = {"eval": logged[key]}
        self._write_json(episodes)
        if rollouts:
            self._on_evaluation_end(rollouts)

    def _write_json(self, episodes: Any) -> None:
        """The marl-eval JSON file, where ``create_json`` asks for it."""
        writer = self.logger.json_writer
        if writer is not None:
            groups = {f"{name}_return": value for name, value in episodes.group_return.items()}
            writer.write(
                metrics={**groups, "return": episodes.totals["return"]},
                total_frames=self.total_frames,
                evaluation_step=self.total_frames // self.config.evaluation_interval,
            )

    # ------------------------------------------------------------------ files
    def _save_experiment(self) -> None:
        """Save a checkpoint, then the policy."""
        self.checkpoints.save(self.state_dict(), self.total_frames)
        run = {"algorithm": describe(self).algorithm, "task": describe(self).task}
        signature = policy_signature(
            self.group_map, self.test_env.observation_spec_unbatched, self.action_spec, run
        )
        save_policy(self.folder_name / "policy", self.policy, signature)

    def _load_experiment(self) -> Experiment:
        config = self.config
        self.load_state_dict(load_checkpoint(config.restore_file, config.restore_map_location))
        self.logger.metrics.keep_before(self.n_iters_performed)
        return self

    @staticmethod
    def reload_from_file(
        restore_file: str,
        experiment_patch: dict[str, Any] | None = None,
        env: str | None = None,
    ) -> Experiment:
        """The experiment of a checkpoint ``DIR/checkpoints/checkpoint_<frames>.pt``.

        Settings come from ``DIR/config.yaml``, weights from the file; neither can run code.

        Args:
            restore_file: the checkpoint.
            experiment_patch: experiment settings to change, such as ``{"max_n_frames": 200_000}``.
            env: import path of the environment, for a run on one of the user's own.

        Raises:
            ValueError: for a folder that holds no run, or an unknown setting.
        """
        settings = RunSettings.load(Path(restore_file).parent.parent / CONFIG_FILE, env)
        settings.experiment_config.restore_file = str(restore_file)
        for key, value in (experiment_patch or {}).items():
            if not hasattr(settings.experiment_config, key):
                raise ValueError(f"the experiment has no setting '{key}'.")
            setattr(settings.experiment_config, key, value)
        return Experiment(**settings.arguments())
