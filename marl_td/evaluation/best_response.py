"""How much a frozen policy can be exploited: a fresh learner's best response to it, group by group.

What a group gains by switching to its best response, the others frozen, says how far the whole is from an
equilibrium; summed over groups it is NashConv (Lanctot et al. 2017, https://arxiv.org/abs/1711.00832), 0 in
equilibria and nowhere else. A learned response need not be the best one: figures are lower bounds::

    run = load_run(folder, 64)
    for response in exploitability(run, Path("runs/responses"), max_n_frames=1_000_000):
        print(response.group, response.gain)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torchrl.envs import Compose, EnvBase, TransformedEnv

from marl_td.benchmarl_tasks import FunctionTask
from marl_td.evaluation.cross_play import Player, Teams, teams_env, trained_player
from marl_td.evaluation.frozen import against_frozen
from marl_td.evaluation.scores import MAX_COPIES, evaluate_episodes
from marl_td.evaluation.statistics import Interval, mean_interval
from marl_td.tasks.base import Box, Task
from marl_td.tasks.vector_env import batched_task
from marl_td.training.experiment import Experiment
from marl_td.training.settings import RunSettings
from marl_td.training.trained import TrainedRun


@dataclass(frozen=True)
class Response:
    """What a group makes against the frozen others: its own player, and a fresh learner."""

    group: str
    own: Interval
    """Mean return of the frozen player itself."""
    response: Interval
    """Mean return of the learned response."""

    @property
    def gain(self) -> float:
        """What the group gains by switching: a lower bound of how much the others can be exploited."""
        return self.response.value - self.own.value


def train_response(
    task: Task[Any, Any],
    group: str,
    teams: Mapping[str, Player],
    settings: RunSettings,
    folder: Path,
    *,
    deterministic: bool = False,
) -> Experiment:
    """Train ``group`` from scratch against the frozen ``teams``, into ``folder``.

    Args:
        task: one of our tasks.
        group: who learns.
        teams: the frozen player of every other group.
        settings: algorithm, networks, budget and seed of the learner; its task does not count.
        folder: run folder of the learner; must not hold a run.
        deterministic: see :class:`~marl_td.evaluation.frozen.FrozenTask`.
    """

    def make_env(n_envs: int, continuous: bool, seed: int | None, device: Any) -> EnvBase:
        return against_frozen(task, n_envs, group, teams, seed, deterministic)

    continuous = isinstance(task.groups[group].action, Box)
    own_task = FunctionTask(
        f"response_{group}",
        make_env,
        max_steps=task.params.max_steps,
        continuous=continuous,
        discrete=not continuous,
    )
    config = replace(settings.experiment_config, save_folder=str(folder), evaluation=False)
    experiment = Experiment(**{**settings.arguments(), "task": own_task, "config": config})
    experiment.run()
    return experiment


def respond(
    task: Task[Any, Any],
    teams: Mapping[str, Player],
    group: str,
    settings: RunSettings,
    folder: Path,
    *,
    n_episodes: int,
    seed: int,
    deterministic: bool = False,
) -> Response:
    """Train a response of ``group`` to the other ``teams`` and judge it beside the group's own player.

    Args:
        task: one of our tasks.
        teams: the frozen player of every group.
        group: who switches.
        settings: see :func:`train_response`.
        folder: see :func:`train_response`.
        n_episodes: of each judgement, at least 2.
        seed: of the judgements.
        deterministic: see :class:`~marl_td.evaluation.frozen.FrozenTask`.

    Raises:
        ValueError: if ``n_episodes`` is below 2, or ``teams`` does not name the groups of the task.
    """
    if n_episodes < 2:
        raise ValueError(
            f"a judgement needs at least 2 episodes, for an interval; got {n_episodes}."
        )
    experiment = train_response(task, group, teams, settings, folder, deterministic=deterministic)
    n_envs = min(n_episodes, MAX_COPIES)

    def make_env() -> TransformedEnv:
        env = against_frozen(task, n_envs, group, teams, seed, deterministic)
        return TransformedEnv(env, Compose())

    env = experiment.algorithm.process_env_fun(make_env)()  # with what the learner remembers
    limit = task.params.max_steps
    learned = evaluate_episodes(env, experiment.policy, n_episodes, seed, max_steps=limit)
    whole = teams_env(task, n_envs, teams)
    own = evaluate_episodes(
        whole, Teams(task, teams), n_episodes, seed, deterministic=deterministic
    )
    returns = own.group_return[group], learned.group_return[group]
    return Response(group, *(mean_interval(value) for value in returns))


def exploitability(
    run: TrainedRun,
    folder: Path | str,
    *,
    max_n_frames: int | None = None,
    n_episodes: int = 256,
    seed: int = 0,
    deterministic: bool = False,
) -> Iterator[Response]:
    """For every group of a trained run, a fresh learner's response to the frozen others, one by one.

    The learner has the run's own algorithm, networks and settings, and the seed ``seed``.

    Args:
        run: what was trained, on one of our tasks with several groups.
        folder: a run folder for each group is made in it.
        max_n_frames: environment steps of each learner; None takes the run's own.
        n_episodes: of each judgement, at least 2.
        seed: of learners and judgements.
        deterministic: see :class:`~marl_td.evaluation.frozen.FrozenTask`.

    Raises:
        ValueError: if the run's task is none of ours or has a single group.
    """
    task = batched_task(run.env)
    if task is None or len(task.groups) < 2:
        raise ValueError("exploitability needs a run on one of our tasks with several groups.")
    config = run.settings.experiment_config
    if max_n_frames is not None:
        config = replace(config, max_n_frames=max_n_frames)
    settings = replace(run.settings, experiment_config=config, seed=seed)
    teams = dict.fromkeys(task.groups, trained_player("frozen", run))
    for group in task.groups:
        yield respond(
            task,
            teams,
            group,
            settings,
            Path(folder) / group,
            n_episodes=n_episodes,
            seed=seed,
            deterministic=deterministic,
        )
