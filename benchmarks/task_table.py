"""Every task beside its yardstick: random play, classical policies, optimum or bound, and what was learned.

    python benchmarks/task_table.py                          # whole table
    python benchmarks/task_table.py --tasks pricing --seeds 0
    python benchmarks/task_table.py --summary                # only the table, from the rows

The learned policy is that of the task's preset (`marl_td/conf/preset/<task>_<algorithm>.yaml`), or of
the settings below where it has none; the presets are made for at most 10 minutes on a CPU core. It is judged
on fresh episodes, the same ones as the classical policies, with its most likely actions and with actions
drawn from it (robots that jam get free by chance only). The normalised score is 0 for random play and 1 for
the optimum or bound (or, without one, for the best classical policy), of the way to act that is better in the
mean over seeds; its interval is over seeds.

A row is written when its run has ended, and runs whose row is there are skipped. Rows do not tell one state
of a preset from the next: delete a task's rows when its preset changes. The table is written into
docs/tasks/README.md, between the markers.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from common import RESULTS, append, markdown, read_rows
from registry_runs import missing, over_seeds, train_into, with_progress

from marl_td import register
from marl_td.cli.listing import PRESETS
from marl_td.evaluation.baselines import RANDOM, BaselineTable, baseline_table
from marl_td.evaluation.scores import evaluate_policy
from marl_td.evaluation.statistics import mean_interval, normalised_score
from marl_td.tasks.registry import TASKS
from marl_td.tasks.vector_env import batched_task
from marl_td.training.compose import compose
from marl_td.training.files import write_atomic
from marl_td.training.trained import build_run, load_run

NAME = "task_table"
PAGE = RESULTS.parents[1] / "docs" / "tasks" / "README.md"
START, END = "<!-- learned -->", "<!-- /learned -->"
"""Where the page has the table."""
SMALL = [
    "model.num_cells=[64,64]",
    "critic_model.num_cells=[64,64]",
    "experiment.lr=0.001",
]
SETTINGS: dict[str, list[str]] = {
    "two_step": ["algorithm=marl_td/qmix", "experiment.max_n_frames=60000", *SMALL],
    "recall": [
        "algorithm=marl_td/mappo",
        "model=layers/marl_td/gru",
        "critic_model.num_cells=[64,64]",
        "experiment.max_n_frames=300000",
        "experiment.lr=0.003",
    ],
}
"""Settings of tasks without a preset."""
BESIDE_PRESET = {
    "levers": ["level=levers_easy", "task.see_others=true"],
    "retail": ["experiment.max_n_frames=1000000"],
}
"""Settings beside a preset: levers where its optimum can be reached, with the others' numbers heard; retail
for as long as this table allows (the preset is the demo's)."""
NOT_HERE = {
    "matrix_game": "whatever payoff it is given: matrix_table.py",
    "sharing_game": "sharing_table.py",
    "simple_tag": "two teams: particle_table.py",
    "simple_adversary": "two teams: particle_table.py",
    "pong": "two sides: docs/tasks/pong.md, best_response.py",
}
"""Tasks that are no task for one policy to be good at, and where they are judged."""
CELL = ("task", "preset", "seed")


def preset_of(task: str) -> str:
    """The first preset made for ``task``, or nothing."""
    names = sorted(path.stem for path in PRESETS.glob(f"{task}_*.yaml"))
    return names[0] if names else ""


def settings_of(task: str) -> list[str]:
    """How ``task``, none of those that are judged elsewhere, is learned."""
    preset = preset_of(task)
    if preset:
        return [f"preset={preset}", *BESIDE_PRESET.get(task, [])]
    return [f"task=marl_td/{task}", *SETTINGS[task]]


def wanted(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The runs asked for; all tasks of a seed before the next seed."""
    for seed in args.seeds:
        for task in args.tasks:
            yield {"task": task, "preset": preset_of(task), "seed": seed}


def run(cell: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Train, and play with the trained policy."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        seconds = train_into(path, [*settings_of(cell["task"]), f"seed={cell['seed']}", *args.set])
        trained = load_run(path, args.episodes)
    scores = [
        evaluate_policy(
            trained.env, trained.policy, args.episodes, seed=10_000, deterministic=deterministic
        )
        for deterministic in (True, False)
    ]
    score, drawn = (f"{mean_interval(values).value:.6g}" for values in scores)
    algorithm = trained.settings.algorithm.removeprefix("marl_td/")
    frames = trained.settings.experiment_config.max_n_frames
    learned = {"algorithm": algorithm, "frames": frames, "score": score, "drawn": drawn}
    return cell | learned | {"seconds": round(seconds, 1)}


def yardstick(task: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows of random play, the classical policies and the optimum, at the settings of the preset."""
    made = batched_task(build_run(compose(settings_of(task)), 1).env)
    table = baseline_table(task, made, args.episodes, seed=10_000)
    for row in table.rows:
        yield _yard(task, table, row.policy, row.value, f"{row.high - row.value:.2g}", "")
    if table.optimum is not None:
        yield _yard(task, table, table.reference()[0], table.optimum.value, "", table.optimum.how)


def _yard(
    task: str, table: BaselineTable, policy: str, value: float, error: str, how: str
) -> dict[str, Any]:
    better = "higher" if table.higher_is_better else "lower"
    label = {"task": task, "preset": preset_of(task), "unit": table.unit, "better": better}
    return label | {"policy": policy, "value": f"{value:.6g}", "+-": error, "how": how}


def summary(
    rows: list[dict[str, Any]], yards: list[dict[str, Any]], tasks: list[str]
) -> list[dict[str, Any]]:
    """A line per task."""
    out = []
    for task in tasks:
        known = [row for row in yards if row["task"] == task]
        if task in NOT_HERE or not known:
            continue
        values = {row["policy"]: float(row["value"]) for row in known}
        best = known[-1] if known[-1]["how"] else None
        choose = max if known[0]["better"] == "higher" else min
        classical = {
            row["policy"]: values[row["policy"]]
            for row in known
            if row["policy"] != RANDOM and not row["how"]
        }
        top = choose(classical, key=lambda name: classical[name]) if classical else None
        runs = [row for row in rows if row["task"] == task]
        scores, drawn = ([float(row[key]) for row in runs] for key in ("score", "drawn"))
        better = choose([scores, drawn], key=mean) if runs else scores
        reference = values[best["policy"]] if best else values[top] if top else None
        unit = known[0]["unit"] + (", lower is better" if choose is min else "")
        by = ", ".join(sorted({row["algorithm"].upper() for row in runs}))
        learned = f"{over_seeds(scores, 4, 'g')} ({by})"
        out.append(
            {
                "task": f"[{task}]({task}.md), {unit}",
                "random": f"{values[RANDOM]:.4g}",
                "best classical policy": f"{classical[top]:.4g} ({top})" if top else "-",
                "learned: mean (least to most over seeds)": learned if runs else "-",
                "with drawn actions": f"{mean(drawn):.4g}" if runs else "-",
                "optimum or bound": f"{reference:.4g} ({best['policy']})" if best else "-",
                "normalised": _interval(better, values[RANDOM], reference),
                "seeds": len(runs),
                "minutes": f"{mean(float(r['seconds']) for r in runs) / 60:.1f}" if runs else "-",
            }
        )
    return out


def _interval(scores: list[float], random: float, reference: float | None) -> str:
    """Mean normalised score over seeds with its 95 % interval (of Student's t)."""
    if not scores or reference is None:
        return "-"
    found = [normalised_score(score, random, reference) for score in scores]
    values = torch.tensor([value for value in found if value is not None], dtype=torch.float64)
    if len(values) < 2:
        return ", ".join(f"{value:.3f}" for value in values.tolist()) or "-"
    centre = mean_interval(values)
    return f"{centre.value:.3f} +- {centre.high - centre.value:.3f}"


def table_of_rows() -> str:
    """The table from the rows that are there, those of earlier presets left out."""
    learned, known = (
        [row for row in read_rows(RESULTS / name) if row["preset"] == preset_of(row["task"])]
        for name in (f"{NAME}.csv", f"{NAME}_yardsticks.csv")
    )
    return markdown(summary(learned, known, list(TASKS)))


def filled(page: str, table: str) -> str:
    """The text of ``page`` with ``table`` between the markers, which must be there."""
    before, rest = page.split(START, 1)
    return f"{before}{START}\n{table}\n{END}{rest.split(END, 1)[1]}"


def main() -> None:
    """Train what is missing, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=256, help="that a policy is judged by")
    parser.add_argument("--set", nargs="*", default=[], help="settings, as experiment.lr=1e-3")
    parser.add_argument("--summary", action="store_true", help="train nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    register()
    path, yards = RESULTS / f"{NAME}.csv", RESULTS / f"{NAME}_yardsticks.csv"
    args.tasks = [task for task in args.tasks if task not in NOT_HERE]
    if not args.summary:
        there = {(row["task"], row["preset"]) for row in read_rows(yards)}
        for task in args.tasks:
            if (task, preset_of(task)) not in there:
                for row in yardstick(task, args):
                    append(yards, row)
        for cell in with_progress(missing(wanted(args), read_rows(path), CELL), CELL):
            append(path, run(cell, args))
    text = table_of_rows()
    write_atomic(PAGE, filled(PAGE.read_text(), text).encode())
    print(text)


if __name__ == "__main__":
    main()
