"""Our experiment: BenchMARL's, with a run folder that survives a crash and evaluation that is only a look.

Same constructor as ``benchmarl.experiment.Experiment``. What differs: a fixed run folder without pickled
files, one ``metrics.csv``, checkpoints from which a run goes on to the last bit, the policy saved for use
elsewhere, evaluation that leaves every random stream as it was, and a stop with a clear sentence when numbers
stop being finite or the disk is full.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarl.utils import seed_everything
from tensordict import TensorDictBase

from marl_td.collect.collector import CompiledCollector
from marl_td.training.check import check_longer
from marl_td.training.checkpoint_folder import Checkpoint
from marl_td.training.checkpoints import Checkpoints
from marl_td.training.config import RunConfig
from marl_td.training.history import History
from marl_td.training.learning import RunLearning
from marl_td.training.lock import FolderLock
from marl_td.training.memory import keep_freed_memory
from marl_td.training.periodic_evaluation import evaluate, metrics
from marl_td.training.policy_files import policy_signature, save_policy
from marl_td.training.progress import Progress
from marl_td.training.resume import Resumable
from marl_td.training.settings import CONFIG_FILE, RunSettings, describe
from marl_td.training.stopping import RunStopped, StopSignals, Terminated

CHECKPOINT_FOLDER = "checkpoints"


class Experiment(RunLearning):
    """A training run in a folder of its own.

    ``config.save_folder`` is the run folder itself (BenchMARL makes a folder with a random name below
    it); without it, ``<algorithm>_<task>_<seed>`` in the current folder. Videos are made by
    ``marl-td evaluate --video``, not in training: ``config.render`` has no effect here, which a warning says
    where it was set.

    Raises:
        ValueError: if the folder already holds a run, or a setting is out of range.
    """

    show_progress: bool | None = None
    """Progress bar on stderr; None shows it on a terminal only."""

    def _setup(self) -> None:
        super()._setup()
        # A plain ExperimentConfig is BenchMARL's, where true is the default that nobody chose.
        if isinstance(self.config, RunConfig) and self.config.render:
            warnings.warn(
                "experiment.render=true has no effect in training; draw what was learned with "
                "`marl-td evaluate RUN --video FILE`.",
                stacklevel=2,
            )
        self._shown: dict[str, float] = {}
        self._score: float | None = None  # of this iteration's evaluation
        self.history = History(self.checkpoints)
        self.resumable = Resumable(self, self.checkpoints)

    # --------------------------------------------------------------- training
    def run(self) -> None:
        """Train until the last iteration.

        SIGTERM and Ctrl-C end it after the present iteration, with a checkpoint.

        Raises:
            Terminated: after SIGTERM.
            KeyboardInterrupt: after Ctrl-C.
            ValueError: if another process trains in the folder.
            RunStopped: if the disk is full.
        """
        keep_freed_memory()
        if self.resumable.rng is None:
            seed_everything(self.seed)
        self.resumable.start()
        self.lock.take()
        try:
            with StopSignals() as signals:
                self._collection_loop(signals)
        except (KeyboardInterrupt, Terminated):
            raise
        except Exception as error:
            step = f"stopped by {type(error).__name__} in iteration {self.n_iters_performed}"
            self.history.say(self.total_frames, f"{step}; {self.history.remedy()}")
            raise
        finally:
            self.lock.release()
            self.close()

    def _collection_loop(self, signals: StopSignals) -> None:
        n_iters = self.n_iters
        n_frames = (
            self.total_frames + (n_iters - self.n_iters_performed) * self.frames_per_iteration
        )
        batches = iter(self.collector)
        label = f"{self.short_name} {self.task_name}"
        with Progress(n_frames, self.total_frames, self.show_progress, label) as bar:
            if isinstance(self.collector, CompiledCollector) or self._compile_updates():
                bar.say("compiling")
            for iteration in range(self.n_iters_performed, n_iters):
                frames = self._iteration(batches, last=iteration == n_iters - 1)
                bar.say("")
                bar.update(frames, **{"return": self.mean_return}, **self._shown)
                if signals.received is not None and iteration < n_iters - 1:
                    self._save_experiment()
                    self.history.say(self.total_frames, f"stopped by {signals.received.name}")
                    signals.raise_if_received()
        if self.config.checkpoint_at_end:
            self._save_experiment()

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
        self._learn(batch, frames)
        self.collector.update_policy_weights_()
        trained = time.perf_counter()
        self._score = None
        if self.config.evaluation and (step == 0 or last or self._due("evaluation", frames)):
            self._evaluation_loop()
        self._log_counters(frames, collected - start, trained - collected, start)
        self.n_iters_performed += 1
        self._write_row()
        if not (last and self.config.checkpoint_at_end) and self._checkpoint_is_due(frames):
            self._save_experiment()
        return frames

    def _due(self, what: str, frames: int) -> bool:
        """Whether the iteration that collected ``frames`` passed a multiple of the interval."""
        interval = getattr(self.config, f"{what}_interval")
        before = self.total_frames - frames
        return bool(interval > 0 and self.total_frames // interval > before // interval)

    def _checkpoint_is_due(self, frames: int) -> bool:
        """By frames, by the clock, or because the policy was never judged better."""
        minutes = getattr(self.config, "checkpoint_minutes", None)
        if self._due("checkpoint", frames) or self.resumable.is_due(minutes):
            return True
        if not self.checkpoints.keep_best or self._score is None:
            return False
        best = sorted(self.checkpoints.scores().values())[-self.checkpoints.keep_best :]
        return len(best) < self.checkpoints.keep_best or self._score > best[0]

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
        self._score = logged[key]
        self._shown = {"eval": logged[key]}
        self.logger.write_json(episodes, self.total_frames)
        if rollouts:
            self._on_evaluation_end(rollouts)

    # ------------------------------------------------------------------ files
    def _write_row(self) -> None:
        try:
            self.logger.commit()
        except OSError as error:
            raise RunStopped(self.history.cannot_write("metrics.csv", error)) from error

    def _save_experiment(self) -> None:
        """Save the policy, then a checkpoint; what is saved already is not saved again.

        In this order a run that was killed between them writes both again.
        """
        last = self.resumable.last
        if last is not None and last.summary.iteration == self.n_iters_performed:
            return
        try:
            self._save_policy()
            self.resumable.save(self._score)
        except OSError as error:
            what = f"the checkpoint at {self.total_frames} frames"
            raise RunStopped(self.history.cannot_write(what, error)) from error

    def _save_policy(self) -> None:
        run = {"algorithm": describe(self).algorithm, "task": describe(self).task}
        signature = policy_signature(
            self.group_map, self.test_env.observation_spec_unbatched, self.action_spec, run
        )
        save_policy(self.folder_name / "policy", self.policy, signature)

    def close(self) -> None:
        """Close environments, loggers and buffers; one that fails does not keep the others open."""
        parts = [self.collector.shutdown, self.test_env.close, self.logger.finish]
        with contextlib.ExitStack() as stack:
            for close in (*self._disk_buffers(), *reversed(parts)):
                stack.callback(close)

    # --------------------------------------------------------------- resuming
    def _load_experiment(self) -> Experiment:
        path = Path(self.config.restore_file)
        if path.is_file():
            raise ValueError(self.checkpoints.nothing_to_resume([]))
        self.resumable.restore(Checkpoint(path))
        self._count_iterations(self.n_iters_performed, self.total_frames)
        self.logger.keep_before(self.n_iters_performed, self.total_frames)
        remarks = self.resumable.remarks
        told = ["resumed, not exactly:", *remarks] if remarks else ["resumed exactly"]
        self.history.say(self.total_frames, " ".join(told))
        return self

    @staticmethod
    def reload_from_file(
        restore_file: str,
        experiment_patch: dict[str, Any] | None = None,
        env: str | None = None,
    ) -> Experiment:
        """The experiment of a checkpoint ``DIR/checkpoints/checkpoint_<frames>``.

        Settings come from ``DIR/config.yaml``, everything else from the checkpoint; neither can run code.

        Args:
            restore_file: the checkpoint.
            experiment_patch: experiment settings to change, such as ``{"max_n_frames": 200_000}``.
            env: import path of the environment, for a run on one of the user's own.

        Raises:
            ValueError: for a folder that holds no run, a damaged checkpoint, an unknown setting, or one that
                cannot be.
        """
        settings = RunSettings.load(Path(restore_file).parent.parent / CONFIG_FILE, env)
        config = settings.experiment_config
        config.restore_file = str(restore_file)
        for key, value in (experiment_patch or {}).items():
            if not hasattr(config, key):
                raise ValueError(f"the experiment has no setting '{key}'.")
            if key == "max_n_frames":
                check_longer(Path(restore_file), value, config.max_n_frames)
            setattr(config, key, value)
        return Experiment(**settings.arguments())

    @staticmethod
    def resume(
        folder: str | Path,
        experiment_patch: dict[str, Any] | None = None,
        env: str | None = None,
    ) -> Experiment:
        """The experiment of a run folder, where its newest intact checkpoint left it.

        Args:
            folder: what ``marl-td train --out`` wrote.
            experiment_patch: as for :meth:`reload_from_file`.
            env: as for :meth:`reload_from_file`.

        Raises:
            ValueError: for a folder that holds no run or no intact checkpoint.
        """
        folder = Path(folder)
        RunSettings.load(folder / CONFIG_FILE, env)
        checkpoints = Checkpoints(folder / CHECKPOINT_FOLDER, keep=None)
        FolderLock(folder).check()
        checkpoints.sweep()
        newest, complaints = checkpoints.newest_intact()
        for complaint in complaints:
            History(checkpoints).say(0, f"skipped: {complaint}")
        if newest is None:
            raise ValueError(checkpoints.nothing_to_resume(complaints))
        return Experiment.reload_from_file(str(newest.folder), experiment_patch, env)
