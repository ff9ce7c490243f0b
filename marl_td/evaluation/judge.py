"""From a run folder to its report."""

from __future__ import annotations

from pathlib import Path

from marl_td.collect.episodes import batched_task
from marl_td.evaluation.baselines import BaselineRow, Notify, baseline_table
from marl_td.evaluation.episode import draw_episode
from marl_td.evaluation.report import LEARNED, RunReport, totals_of, training_curve
from marl_td.evaluation.scores import MAX_COPIES, evaluate_episodes
from marl_td.evaluation.statistics import mean_interval
from marl_td.training.setup import METRICS_FILE
from marl_td.training.trained import load_run

REPORT_FOLDER = "report"
EVALUATION_SEED = 20_000_003
"""Default seed of reports: neither a training seed nor one of the evaluations during training."""


def judge_run(
    folder: Path,
    n_episodes: int,
    seed: int = EVALUATION_SEED,
    notify: Notify | None = None,
    env: str | None = None,
    *,
    deterministic: bool = True,
) -> RunReport:
    """Evaluate a run's policy and everything it is compared with.

    Args:
        folder: what ``marl-td train --out`` wrote.
        n_episodes: episodes per policy, at least 2.
        seed: of all evaluations.
        notify: told what is being evaluated.
        env: import path of the environment, for a run on one of the user's own.
        deterministic: take the policy's best actions; draw them otherwise.

    Raises:
        ValueError: if the folder holds no finished run, or ``n_episodes`` is below 2.
    """
    if n_episodes < 2:
        raise ValueError(f"--episodes must be at least 2, for an interval; got {n_episodes}.")
    run = load_run(folder, min(n_episodes, MAX_COPIES), env=env)
    max_steps = run.settings.task_config.max_steps(run.env)
    if notify is not None:
        notify(LEARNED)
    episodes = evaluate_episodes(
        run.env, run.policy, n_episodes, seed, deterministic=deterministic, max_steps=max_steps
    )
    task = batched_task(run.env)
    scores = episodes.totals["return"] if task is None else task.score(episodes.totals)
    name = run.settings.task if env is None else f"{run.settings.task} ({env})"
    table = baseline_table(name, task or run.env, n_episodes, seed, notify, max_steps=max_steps)
    frames, seconds = totals_of(folder / METRICS_FILE)
    return RunReport(
        table=table,
        learned=BaselineRow(LEARNED, *mean_interval(scores)),
        mean_return=mean_interval(episodes.totals["return"]),
        algorithm=run.settings.algorithm,
        frames=frames,
        train_seconds=seconds,
        episodes=n_episodes,
        seed=seed,
        deterministic=deterministic,
        curve=training_curve(folder / METRICS_FILE),
        drawing=draw_episode(
            load_run(folder, 1).env if task else run.env, run.policy, seed, deterministic
        ),
    )
