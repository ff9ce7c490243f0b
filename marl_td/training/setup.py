"""How a run is put together: the folder, the environments, the collector, the logger."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarl.experiment import Experiment as BenchmarlExperiment
from benchmarl.utils import seed_everything

from marl_td.algorithms.naming import PREFIX
from marl_td.collect.collector import make_collector
from marl_td.models.compiling import is_worthwhile
from marl_td.training.buffer_place import buffer_device
from marl_td.training.check import check_algorithm, check_experiment, check_loggers, check_model
from marl_td.training.checkpoints import Checkpoints
from marl_td.training.files import remove, sweep, write_atomic
from marl_td.training.lock import FolderLock
from marl_td.training.periodic_evaluation import compiled_episodes
from marl_td.training.run_logger import RunLogger
from marl_td.training.settings import CONFIG_FILE, describe

METRICS_FILE = "metrics.csv"
EVALUATION_SEED_OFFSET = 1_000_003
"""Added to the run's seed for the evaluation environment: its episodes are not the training ones."""


ROLLOUT_STEPS_TO_PAY = 8_000
"""Steps of all environments together after which a compiled rollout is ahead: 30 s at 4 ms saved by each."""


class RunSetup(BenchmarlExperiment):
    """The set-up of :class:`marl_td.training.experiment.Experiment`, step by step as in BenchMARL."""

    config: Any
    env_func: Callable[[], Any]
    test_env: Any
    frames_per_iteration: int
    n_iters: int

    def _setup(self) -> None:
        check_experiment(self.config)
        check_loggers(self.config.loggers)
        check_algorithm(self.algorithm_config)
        check_model("model", self.model_config)
        check_model("critic_model", self.critic_model_config)
        seed_everything(self.seed)
        self._perform_checks()
        self._set_action_type()
        self._setup_name()
        self._setup_task()
        with self._own_folder():
            self._place_buffers()
            self._setup_algorithm()
            self._setup_collector()
            self.compiled_episodes = compiled_episodes(self, ROLLOUT_STEPS_TO_PAY)
            self._setup_logger()
            self._on_setup()

    @property
    def compile_mode(self) -> str:
        """``compile`` of :class:`~marl_td.training.config.RunConfig`; plain settings do not compile."""
        return str(getattr(self.config, "compile", "off"))

    @property
    def short_name(self) -> str:
        """The algorithm in folders and on the terminal; in results ours are told from BenchMARL's."""
        return str(self.algorithm_name).removeprefix(PREFIX)

    @property
    def evaluation_seed(self) -> int:
        """Seed of the evaluation environment's own random stream."""
        return int(self.seed) + EVALUATION_SEED_OFFSET

    def _setup_name(self) -> None:
        self.algorithm_name = self.algorithm_config.associated_class().__name__.lower()
        self.model_name = self.model_config.associated_class().__name__.lower()
        self.critic_model_name = self.critic_model_config.associated_class().__name__.lower()
        self.environment_name = self.task.env_name().lower()
        self.task_name = self.task.name.lower()
        config = self.config
        if config.save_folder is not None:
            self.folder_name = Path(config.save_folder)
        elif config.restore_file is not None:
            self.folder_name = Path(config.restore_file).resolve().parent.parent
        else:
            self.folder_name = Path(f"{self.short_name}_{self.task_name}_{self.seed}")
        self.name = self.folder_name.resolve().name
        self.checkpoints = Checkpoints(
            self.folder_name / "checkpoints",
            config.keep_checkpoints_num,
            getattr(config, "keep_best_checkpoints", 0),
        )

    @contextmanager
    def _own_folder(self) -> Iterator[None]:
        """Open the run folder; if the set-up fails, leave nothing in it that was not there."""
        folder = self.folder_name
        before = set(folder.iterdir()) if folder.is_dir() else None
        self._open_folder()
        try:
            yield
        except BaseException:
            for path in set(folder.iterdir()) - (before or set()):
                remove(path)
            if before is None:
                folder.rmdir()
            raise

    def _open_folder(self) -> None:
        """Make the run folder and write its settings; nothing of an earlier run is overwritten."""
        if (self.folder_name / METRICS_FILE).exists() and self.config.restore_file is None:
            raise ValueError(
                f"'{self.folder_name}' already holds a run; choose another folder, or remove it."
            )
        settings = describe(self).as_yaml()  # may refuse one: nothing is there yet
        self.folder_name.mkdir(parents=True, exist_ok=True)
        self.lock = FolderLock(self.folder_name)
        self.lock.check()
        self.checkpoints.sweep()
        for folder in (self.folder_name, self.folder_name / "policy"):
            sweep(folder)
        for (
            group
        ) in self.group_map:  # a killed run's buffers on the disk are behind its checkpoints
            shutil.rmtree(self.folder_name / f"buffer_{group}", ignore_errors=True)
        write_atomic(self.folder_name / CONFIG_FILE, settings)

    def _setup_task(self) -> None:
        with _nested_environments():
            super()._setup_task()
        self.test_env.set_seed(self.evaluation_seed)
        self.env_func = _nested_environments()(self.env_func)
        if not self.test_env.batch_size:  # BenchMARL gives all copies of such a task one seed
            make: Callable[[], Any] = self.env_func
            seed = self.seed
            self.env_func = lambda: _seeded(make(), seed)

    def _place_buffers(self) -> None:
        """Settle ``buffer_device=auto``; the settings that were given, and their file, still say auto."""
        device = buffer_device(
            self.config, self.test_env, len(self.group_map), on_policy=self.on_policy
        )
        if device != self.config.buffer_device:
            self.config = replace(self.config, buffer_device=device)

    def _setup_collector(self) -> None:
        config = self.config
        self.policy = self.algorithm.get_policy_for_collection()
        self.group_policies = {
            group: self.policy.select_subsequence(out_keys=[(group, "action")])[0]
            for group in self.group_map
        }
        n_frames = config.get_max_n_frames(self.on_policy)
        n_steps = n_frames // config.n_envs_per_worker(self.on_policy)
        self.collector = make_collector(
            self.env_func,
            self.policy,
            device=config.sampling_device,
            frames_per_batch=config.collected_frames_per_batch(self.on_policy),
            total_frames=n_frames,
            init_random_frames=0 if self.on_policy else config.off_policy_init_random_frames,
            compiled=is_worthwhile(self.compile_mode, n_steps, ROLLOUT_STEPS_TO_PAY),
        )
        n_envs = max(1, self.collector.env.batch_size.numel())
        steps = -(-config.collected_frames_per_batch(self.on_policy) // n_envs)
        self.frames_per_iteration = steps * n_envs  # whole steps of all environments
        self._count_iterations()

    def _count_iterations(self, made: int = 0, frames: int = 0) -> None:
        """Set how many iterations the run has in all, where those ``made`` so far gave ``frames``."""
        left = max(0, self.config.get_max_n_frames(self.on_policy) - frames)
        self.n_iters = made + -(-left // self.frames_per_iteration)

    def _disk_buffers(self) -> list[Callable[[], None]]:
        """What removes the files of buffers on the disk."""
        folders = [getattr(b.storage, "scratch_dir", None) for b in self.replay_buffers.values()]
        return [
            partial(shutil.rmtree, folder, ignore_errors=True)
            for folder in folders
            if folder is not None
        ]

    def _setup_logger(self) -> None:
        settings = {
            "experiment_config": vars(self.config),
            "algorithm_config": vars(self.algorithm_config),
            "model_config": vars(self.model_config),
            "critic_model_config": vars(self.critic_model_config),
            "task_config": self.task.config,
            "continuous_actions": self.continuous_actions,
            "on_policy": self.on_policy,
        }
        names = {
            "algorithm_name": self.algorithm_name,
            "model_name": self.model_name,
            "environment_name": self.environment_name,
            "task_name": self.task_name,
            "seed": self.seed,
        }
        self.logger = RunLogger(
            self.folder_name / METRICS_FILE,
            experiment_name=self.name,
            folder_name=str(self.folder_name),
            experiment_config=self.config,
            group_map=self.group_map,
            project_name=self.config.project_name,
            wandb_extra_kwargs={**self.config.wandb_extra_kwargs, "config": {**settings, **names}},
            **names,
        )
        self.logger.log_hparams(**settings, **names, critic_model_name=self.critic_model_name)


@contextmanager
def _nested_environments() -> Iterator[None]:
    """No warning of torchrl's about them: BenchMARL 1.5.2 wraps those of recurrent policies twice."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The default behavior of TransformedEnv")
        yield


def _seeded(env: Any, seed: int) -> Any:
    env.set_seed(seed)
    return env
