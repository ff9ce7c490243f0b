"""All algorithms of the registry on the four particle tasks; competing teams by cross-play.

    python benchmarks/particle_table.py                                 # whole table
    python benchmarks/particle_table.py --tasks simple_tag --algorithms mappo maddpg --seeds 0
    python benchmarks/particle_table.py --summary                       # only the tables, from the rows

Trains every algorithm with every seed and evaluates the policy without exploration. In simple_spread and
simple_speaker_listener, where all want the same, the score of the task counts. In simple_tag and
simple_adversary it says nothing, as both teams may be weak: there every team meets the opponents of every
other run (and random and rule-driven ones), and what counts is its mean return over them.

Runs lie in `--runs`, from which the teams are read for cross-play; rows and matches are written as they end,
and what is there is not done again. Writes `results/particle_table.csv`, `..._matches.csv` and for
each task `..._<task>.md`.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, append, markdown, read_rows
from match_tables import RULE, matches_of, matrix, strength_table
from registry_runs import (
    add_options,
    fitting,
    is_on_policy,
    missing,
    over_seeds,
    train_into,
    with_progress,
)
from tqdm import tqdm

from marl_td import register
from marl_td.evaluation.baselines import RANDOM, baseline_table
from marl_td.evaluation.cross_play import (
    Player,
    cross_play,
    random_player,
    rule_player,
    trained_player,
)
from marl_td.evaluation.scores import evaluate_policy
from marl_td.evaluation.statistics import mean_interval
from marl_td.tasks import make_task
from marl_td.training.trained import load_run

NAME = "particle_table"
COOPERATIVE = ("simple_spread", "simple_speaker_listener")
COMPETING = ("simple_tag", "simple_adversary")
CELL = ("task", "actions", "algorithm", "seed", "frames")
LABEL = ("task", "actions", "frames")
"""What all matches of a table have in common."""
SETTINGS = [
    "model.num_cells=[64,64]",
    "critic_model.num_cells=[64,64]",
    "experiment.gamma=0.95",
    "experiment.clip_grad_val=10.0",
    "experiment.lr=0.0007",
    "experiment.on_policy_n_envs_per_worker=128",
    "experiment.on_policy_collected_frames_per_batch=3200",
    "experiment.on_policy_n_minibatch_iters=5",
    "experiment.on_policy_minibatch_size=800",
    "experiment.off_policy_n_envs_per_worker=128",
    "experiment.off_policy_collected_frames_per_batch=3200",
    "experiment.off_policy_n_optimizer_steps=160",
    "experiment.off_policy_train_batch_size=256",
    "experiment.off_policy_memory_size=100000",
    "experiment.off_policy_init_random_frames=6400",
    "experiment.soft_target_update=true",
    "experiment.polyak_tau=0.01",
    "experiment.exploration_eps_init=1.0",
    "experiment.exploration_eps_end=0.05",
]
"""Of every run: whole episodes of 128 environments, then 160 updates off-policy, or 20 on-policy."""


def frames_of(name: str, args: argparse.Namespace) -> int:
    """Environment steps of a run."""
    return int(args.on_policy_frames if is_on_policy(name) else args.off_policy_frames)


def wanted(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The runs asked for; all algorithms of a seed before the next seed."""
    actions = "continuous" if args.continuous else "discrete"
    for seed in args.seeds:
        for task in args.tasks:
            for name in fitting(args.algorithms, args.continuous):
                row = {"task": task, "actions": actions, "algorithm": name, "seed": seed}
                yield row | {"frames": frames_of(name, args)}


def folder_of(cell: dict[str, Any], args: argparse.Namespace) -> Path:
    """Where the run of a cell lies."""
    folder: Path = args.runs
    return folder.joinpath(*(str(cell[name]) for name in CELL))


def run(cell: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Train, unless the run is there, and play with the trained policy."""
    folder = folder_of(cell, args)
    seconds: Any = ""
    if not folder.exists():
        overrides = [
            *SETTINGS,
            f"algorithm=marl_td/{cell['algorithm']}",
            f"task=marl_td/{cell['task']}",
            f"seed={cell['seed']}",
            f"experiment.prefer_continuous_actions={args.continuous}",
            f"experiment.max_n_frames={cell['frames']}",
            f"experiment.exploration_anneal_frames={cell['frames'] // 2}",
            *args.set,
        ]
        seconds = round(train_into(folder, overrides), 1)
    trained = load_run(folder, args.episodes)
    mean = mean_interval(evaluate_policy(trained.env, trained.policy, args.episodes, seed=10_000))
    score = {"score": round(mean.value, 3), "score +-": round(mean.high - mean.value, 3)}
    return cell | score | {"seconds": seconds}


def label_of(task: str, args: argparse.Namespace) -> dict[str, str]:
    """What tells the matches of this table from others."""
    actions = "continuous" if args.continuous else "discrete"
    frames = f"{args.on_policy_frames} or {args.off_policy_frames}"
    return dict(zip(LABEL, (task, actions, frames), strict=True))


def labelled(rows: list[dict[str, Any]], label: dict[str, str]) -> list[dict[str, Any]]:
    """The rows of these matches."""
    return [row for row in rows if all(row[name] == value for name, value in label.items())]


def players(cells: list[dict[str, Any]], args: argparse.Namespace) -> list[Player]:
    """The runs of one task, and a random and a rule-driven player beside them."""
    task = make_task(cells[0]["task"], continuous=args.continuous)
    (rule,) = task.baselines().values()
    found = [random_player(), rule_player(RULE, rule, task.groups)]
    for cell in cells:
        folder = folder_of(cell, args)
        if folder.exists():
            found.append(trained_player(f"{cell['algorithm']} {cell['seed']}", load_run(folder, 1)))
    return found


def play_matches(cells: list[dict[str, Any]], path: Path, args: argparse.Namespace) -> None:
    """All matches of one task that are not there yet."""
    label = label_of(cells[0]["task"], args)
    task = make_task(label["task"], continuous=args.continuous)
    teams = players(cells, args)
    done = {(row["first"], row["second"]) for row in labelled(read_rows(path), label)}
    names = [team.name for team in teams]
    n_left = sum((first, second) not in done for first in names for second in names)
    matches = cross_play(task, teams, args.match_episodes, seed=20_000, skip=done)
    for match in tqdm(matches, f"cross-play of {label['task']}", n_left, unit=" matches"):
        found = {"first": match.first, "second": match.second}
        for place, mean in zip(("first", "second"), match.group_return.values(), strict=True):
            found |= {
                f"{place} return": round(mean.value, 4),
                f"{place} +-": round(mean.high - mean.value, 4),
            }
        append(path, label | found)


def cooperative_table(
    task: str, rows: list[dict[str, Any]], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Score by algorithm, over seeds, with random and the rules beneath."""
    lines = []
    for name in dict.fromkeys(row["algorithm"] for row in rows):
        scores = [float(row["score"]) for row in rows if row["algorithm"] == name]
        lines.append({"policy": name, "score": over_seeds(scores)})
    made = make_task(task, continuous=args.continuous)
    for row in baseline_table(task, made, args.episodes, seed=10_000).rows:
        lines.append({"policy": row.policy, "score": f"{row.value:.2f}"})
    return lines


def report(task: str, rows: list[dict[str, Any]], path: Path, args: argparse.Namespace) -> str:
    """The tables of one task as Markdown."""
    if task in COOPERATIVE:
        parts = ["Score, mean over seeds (worst to best)"]
        return "\n\n".join([*parts, markdown(cooperative_table(task, rows, args))]) + "\n"
    groups = list(make_task(task).groups)
    known = {f"{row['algorithm']} {row['seed']}" for row in rows} | {RANDOM, RULE}
    found = labelled(read_rows(path), label_of(task, args))
    found = [row for row in found if {row["first"], row["second"]} <= known]
    matches = matches_of(found, groups)
    if len({match.first for match in matches} - {RANDOM, RULE}) < 2:
        return ""  # nobody to meet
    parts = []
    for group in groups:
        parts += [f"{task}, {group}: return against teams of other runs"]
        parts += [markdown(strength_table(matches, group))]
        parts += [f"{task}, {group}: by row, against opponents by column"]
        parts += [markdown(matrix(matches, group))]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Train what is missing, play the matches that are missing, write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, NAME, range(3))
    every = [*COOPERATIVE, *COMPETING]
    parser.add_argument("--tasks", nargs="+", choices=every, default=every)
    parser.add_argument("--continuous", action="store_true", help="continuous actions")
    parser.add_argument("--on-policy-frames", type=int, default=480_000)
    parser.add_argument("--off-policy-frames", type=int, default=80_000)
    parser.add_argument("--episodes", type=int, default=256, help="to judge a run by")
    parser.add_argument("--match-episodes", type=int, default=64, help="of each match")
    parser.add_argument("--runs", type=Path, default=Path("runs") / NAME, help="folder of the runs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    register()
    path = RESULTS / f"{args.name}.csv"
    path_of_matches = RESULTS / f"{args.name}_matches.csv"
    cells = list(wanted(args))
    if not args.summary:
        for cell in with_progress(missing(cells, read_rows(path), CELL), CELL[:4]):
            append(path, run(cell, args))
        for task in (task for task in args.tasks if task in COMPETING):
            play_matches([cell for cell in cells if cell["task"] == task], path_of_matches, args)
    asked = {tuple(str(cell[name]) for name in CELL) for cell in cells}
    rows = [row for row in read_rows(path) if tuple(row[name] for name in CELL) in asked]
    for task in args.tasks:
        own = [row for row in rows if row["task"] == task]
        text = report(task, own, path_of_matches, args)
        if text:
            (RESULTS / f"{args.name}_{task}.md").write_text(text)
            print(text)


if __name__ == "__main__":
    main()
