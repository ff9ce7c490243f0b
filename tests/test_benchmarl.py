"""Unchanged BenchMARL finds, runs, resumes and evaluates our algorithms and tasks."""

import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException

from marl_td import register
from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.registry import ALGORITHMS, algorithm_config
from marl_td.tasks.adapters.by_name import ADAPTED
from marl_td.tasks.registry import TASKS

SMALL = [
    "experiment.loggers=[]",
    "experiment.render=false",
    "experiment.evaluation=false",
    "experiment.max_n_iters=2",
    "experiment.max_n_frames=null",
    "experiment.on_policy_collected_frames_per_batch=40",
    "experiment.on_policy_n_envs_per_worker=10",
    "experiment.on_policy_minibatch_size=40",
    "experiment.on_policy_n_minibatch_iters=1",
    "model.num_cells=[8]",
    "critic_model.num_cells=[8]",
]
OURS = ["algorithm=marl_td/mappo", "task=marl_td/matrix_game", "task.max_steps=2"]


def benchmarl(module: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``python -m benchmarl.<module>`` as a user would, with every warning shown."""
    return subprocess.run(
        [sys.executable, "-W", "default", "-m", f"benchmarl.{module}", *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_run_evaluate_and_resume(tmp_path):
    done = benchmarl("run", *OURS, *SMALL, "experiment.checkpoint_at_end=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "marl_td" not in "\n".join(x for x in done.stderr.splitlines() if "Warning" in x)
    assert "TaskConfig python dataclass not found" not in done.stderr
    (checkpoint,) = tmp_path.rglob("checkpoint_*.pt")
    evaluated = benchmarl("evaluate", str(checkpoint), cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "Algorithm: marl_td/mappo, Task: marl_td/matrix_game" in evaluated.stdout
    resumed = benchmarl("resume", str(checkpoint), cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr


def test_multirun_mixes_ours_and_theirs(tmp_path):
    sweep = ["algorithm=marl_td/mappo,mappo", "task=marl_td/matrix_game", "task.max_steps=2"]
    done = benchmarl("run", "-m", *sweep, *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("multirun/*/*/[0-9]"))) == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("algorithm.clip_epsilo=0.1", "Key 'clip_epsilo' not in 'MappoConfig'"),
        ("algorithm.clip_epsilon=abc", "full_key: algorithm.clip_epsilon"),
        ("task.repeats=three", "full_key: task.repeats"),
        ("algorithm.lmbda=2", r"lmbda must be in \[0, 1\]; got 2"),
        ("task.repeats=0", "repeats must be at least 1; got 0"),
    ],
)
def test_bad_settings_are_refused_by_name(override, message, compose):
    with pytest.raises((ConfigCompositionException, ValueError)) as caught:
        compose(*OURS, override)
    # Hydra wraps the sentence that names the field.
    sentences = f"{caught.value} {caught.value.__cause__}"
    assert re.search(message, sentences)


@pytest.fixture
def compose():
    """Compose BenchMARL's own configuration in this process and build the dataclasses."""
    import benchmarl
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    folder = str(Path(benchmarl.__file__).parent / "conf")

    def run(*overrides: str):
        with initialize_config_dir(version_base=None, config_dir=folder):
            config = compose(config_name="config", overrides=list(overrides))
            return OmegaConf.to_object(config.algorithm), OmegaConf.to_object(config.task)

    return run


@pytest.mark.parametrize("name", ALGORITHMS)
def test_hydra_composes_the_dataclass_defaults(name, compose):
    algorithm, _ = compose(f"algorithm=marl_td/{name}", "task=marl_td/matrix_game")
    assert algorithm == algorithm_config(name)()
    assert algorithm == algorithm_config(name).get_from_yaml()


@pytest.mark.parametrize("name", [*TASKS, *ADAPTED])
def test_every_task_composes_and_is_enumerated(name, compose):
    _, task = compose("algorithm=marl_td/mappo", f"task=marl_td/{name}")
    params = MarlTdTask[name.upper()].params
    assert task == params()
    assert MarlTdTask[name.upper()].get_task().config == asdict(params())


def test_tables_and_enumeration_agree():
    assert {member.name.lower() for member in MarlTdTask} == {*TASKS, *ADAPTED}


def test_register_is_idempotent_and_shadows_nothing():
    from benchmarl.algorithms import algorithm_config_registry
    from benchmarl.environments import task_config_registry

    register()
    before = dict(algorithm_config_registry), dict(task_config_registry)
    register()
    assert before == (dict(algorithm_config_registry), dict(task_config_registry))
    assert {f"marl_td/{name}" for name in ALGORITHMS} <= set(algorithm_config_registry)
    assert algorithm_config_registry["mappo"].__module__.startswith("benchmarl")


def test_unknown_algorithm_names_the_closest():
    with pytest.raises(ValueError, match=r"unknown algorithm 'mapo'. Did you mean 'mappo'"):
        algorithm_config("mapo")


def test_benchmark_runs_ours_beside_theirs(tmp_path):
    from benchmarl.algorithms import MappoConfig
    from benchmarl.benchmark import Benchmark
    from benchmarl.eval_results import load_and_merge_json_dicts
    from benchmarl.experiment import ExperimentConfig
    from benchmarl.models.mlp import MlpConfig

    register()
    config = ExperimentConfig.get_from_yaml()
    config.loggers = []
    config.create_json = True
    config.render = False
    config.evaluation_episodes = 2
    config.max_n_iters, config.max_n_frames = 1, None
    config.on_policy_collected_frames_per_batch = 20
    config.on_policy_minibatch_size = 20
    config.on_policy_n_minibatch_iters = 1
    config.save_folder = tmp_path
    experiments = []
    benchmark = Benchmark(
        algorithm_configs=[algorithm_config("mappo")(), MappoConfig.get_from_yaml()],
        tasks=[MarlTdTask.MATRIX_GAME.get_task()],
        seeds={0},
        experiment_config=config,
        model_config=MlpConfig.get_from_yaml(),
        critic_model_config=MlpConfig.get_from_yaml(),
    )
    for experiment in benchmark.get_experiments():
        experiment.run()
        experiments.append(experiment)
    assert [e.total_frames for e in experiments] == [20, 20]
    files = [str(path) for path in tmp_path.glob("*/*.json")]
    merged = load_and_merge_json_dicts(files)["marl_td"]["matrix_game"]
    assert set(merged) == {"marl_td_mappo", "mappo"}  # under one name one replaced the other
    assert all("step_0" in runs["seed_0"] for runs in merged.values())
