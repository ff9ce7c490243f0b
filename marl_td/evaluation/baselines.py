"""The table a learned policy is judged by: random, the domain's classical policies, the optimum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from torchrl.envs import EnvBase

from marl_td.collect.episodes import batched_task
from marl_td.evaluation.scores import evaluate_policy
from marl_td.evaluation.statistics import mean_interval, normalised_score
from marl_td.evaluation.workers import evaluations, fewer_episodes, n_workers
from marl_td.tasks.base import Optimum, Task

RANDOM = "random"

Notify = Callable[[str], None]


@dataclass(frozen=True)
class BaselineRow:
    """Mean score of a policy with the ends of its 95 % interval."""

    policy: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class BaselineTable:
    """A task's yardstick: rows (the random policy first), and the optimum or bound if one is known."""

    task: str
    unit: str
    higher_is_better: bool
    rows: list[BaselineRow]
    optimum: Optimum | None
    fewer_episodes: dict[str, int] = field(default_factory=dict)
    """Episodes of policies that played fewer than the others, because they are slow."""

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "task": self.task,
            "unit": self.unit,
            "higher_is_better": self.higher_is_better,
            "rows": [asdict(row) for row in self.rows],
            "optimum": None if self.optimum is None else asdict(self.optimum),
            "fewer_episodes": self.fewer_episodes,
        }

    def remarks(self) -> list[str]:
        """A sentence for each policy that played fewer episodes."""
        fewer = self.fewer_episodes.items()
        return [f"{name}: {n} episodes only, since it plans agent by agent." for name, n in fewer]

    def best_row(self, rows: list[BaselineRow] | None = None) -> BaselineRow:
        """The best of ``rows``, or of all rows."""
        choose = max if self.higher_is_better else min
        return choose(self.rows if rows is None else rows, key=lambda row: row.value)

    def reference(self) -> tuple[str, float]:
        """What counts as 1 on the normalised scale: the optimum or bound, or else the best row."""
        if self.optimum is not None:
            name = "optimum" if self.optimum.kind == "exact" else f"{self.optimum.kind} bound"
            return name, self.optimum.value
        best = self.best_row()
        return best.policy, best.value

    def normalised(self, value: float) -> float | None:
        """``value`` between the random policy (0) and the reference (1)."""
        random = next(row.value for row in self.rows if row.policy == RANDOM)
        return normalised_score(value, random, self.reference()[1])


def baseline_table(
    name: str,
    task_or_env: Task[Any, Any] | EnvBase,
    n_episodes: int,
    seed: int,
    notify: Notify | None = None,
    **options: Any,
) -> BaselineTable:
    """Evaluate the random policy and every classical policy of the task, and look up its optimum.

    Args:
        name: registry name, for the report.
        task_or_env: one of our tasks, or any environment (which has the random policy only).
        n_episodes: episodes per policy, at least 2.
        seed: the same for every policy.
        notify: told the name of each policy before it runs.
        options: of :func:`~marl_td.evaluation.scores.evaluate_policy`.
    """
    task = task_or_env if isinstance(task_or_env, Task) else batched_task(task_or_env)
    tell = notify or (lambda _: None)
    if task is None:
        tell(RANDOM)
        scores = evaluate_policy(task_or_env, None, n_episodes, seed, **options)
        rows = [BaselineRow(RANDOM, *mean_interval(scores))]
        optimum = None
    else:
        rows, optimum = _evaluate(task, n_episodes, seed, tell, options)
    return BaselineTable(
        task=name,
        unit="return" if task is None else task.unit,
        higher_is_better=True if task is None else task.higher_is_better,
        rows=rows,
        optimum=optimum,
        fewer_episodes={} if task is None else fewer_episodes(task, n_episodes),
    )


def _evaluate(
    task: Task[Any, Any], n_episodes: int, seed: int, tell: Notify, options: dict[str, Any]
) -> tuple[list[BaselineRow], Optimum | None]:
    """The rows and the optimum of a task, on all cores where that pays."""
    names: dict[str, str | None] = {RANDOM: None, **{name: name for name in task.baselines()}}
    n_processes = n_workers(task, len(names), n_episodes)
    with evaluations(task, n_processes, n_episodes, seed, **options) as evaluate:
        scores = {name: evaluate(policy) for name, policy in names.items()}
        tell("optimum or bound")  # first: other processes are at work meanwhile
        optimum = task.optimum()
        rows = []
        for name, wait in scores.items():
            tell(name)
            rows.append(BaselineRow(name, *mean_interval(wait())))
    return rows, optimum
