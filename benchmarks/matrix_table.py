"""Where every algorithm of the registry ends on the climbing and penalty games, repeated 25 times.

    python benchmarks/matrix_table.py                                  # whole table
    python benchmarks/matrix_table.py --own-settings                   # each at its own, matrix_table_own
    python benchmarks/matrix_table.py --algorithms mappo --games climbing --seeds 0
    python benchmarks/matrix_table.py --summary                        # only the table, from the rows

Two agents with three actions each; the state is constant, a game is played 25 times in an episode. A run ends
at one joint action, so its return is 25 times a payoff. In climbing 275 is the best and 175 the other joint
action that no agent would leave alone; with a penalty 250 is the best and 50 the safe one. Beside it stand
the returns of Papoudakis et al. 2021 (https://arxiv.org/abs/2006.07869), as far as remembered: the largest
mean returns during training, over 5 seeds. They were not checked against the paper here.

A row is written when its run has ended, and runs whose row is there are skipped.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, append, markdown, read_rows
from registry_runs import (
    add_options,
    fitting,
    is_on_policy,
    missing,
    train_into,
    with_progress,
)

from marl_td import register
from marl_td.evaluation.scores import evaluate_episodes
from marl_td.registry import algorithm_config
from marl_td.training.trained import load_run

NAME = "matrix_table"
REPEATS = 25
CLIMBING = [[11, -30, 0], [-30, 7, 0], [0, 6, 5]]


def penalty(k: int) -> list[list[int]]:
    """The penalty game: two best joint actions, and ``k`` where the agents mean different ones."""
    return [[k, 0, 10], [0, 2, 0], [10, 0, k]]


GAMES: dict[str, list[list[int]]] = {
    "climbing": CLIMBING,
    **{f"penalty {k}": penalty(k) for k in (0, -25, -50, -75, -100)},
}
RECALLED: dict[str, dict[str, str]] = {
    "climbing": {
        "iql": "195.00 ± 67.82",
        "ippo": "175",
        "maddpg": "170 ± 10",
        "coma": "185 ± 48.99",
        "mappo": "175",
        "vdn": "175 ± 54.77",
        "qmix": "175 ± 54.77",
    },
    "penalty 0": dict.fromkeys(("iql", "ippo", "coma", "mappo", "vdn", "qmix"), "250")
    | {"maddpg": "249.98"},
    **{
        f"penalty {k}": dict.fromkeys(("iql", "ippo", "coma", "mappo", "vdn", "qmix"), "50")
        | {"maddpg": "49.97"}
        for k in (-25, -50, -75, -100)
    },
}
"""Papoudakis et al. 2021, parameters shared, from memory."""
CELL = ("game", "algorithm", "seed", "frames")
SETTINGS = [
    "task=marl_td/matrix_game",
    f"task.repeats={REPEATS}",
    "model.num_cells=[64,64]",
    "critic_model.num_cells=[64,64]",
    "experiment.prefer_continuous_actions=false",
    "experiment.lr=0.003",
    "experiment.gamma=0.0",  # nothing that is done changes what comes later
    "experiment.compile=off",
    "experiment.on_policy_n_envs_per_worker=50",
    "experiment.on_policy_collected_frames_per_batch=1250",
    "experiment.on_policy_n_minibatch_iters=8",
    "experiment.on_policy_minibatch_size=625",
    "experiment.off_policy_n_envs_per_worker=50",
    "experiment.off_policy_collected_frames_per_batch=1250",
    "experiment.off_policy_n_optimizer_steps=25",
    "experiment.off_policy_train_batch_size=128",
    "experiment.off_policy_memory_size=2500",  # what the others do now, not what they did once
    "experiment.exploration_eps_init=1.0",
    "experiment.exploration_eps_end=0.05",
]
"""Of every run: 50 environments, an episode of each between updates; too short to compile."""
AGAINST_CERTAINTY = {"entropy_coef": 0.01, "regularisation_coef": 0.1}
"""Settings of the algorithms that have them: without, policies are certain, and their gradients gone, before
the other agent has changed its mind."""


@dataclass(frozen=True)
class Own:
    """How one algorithm is run with ``--own-settings``: what it needs to end at an equilibrium."""

    frames: int | None = None
    """Environment steps; None for those of all."""
    settings: tuple[str, ...] = ()
    """After those of all."""


EXACT_MEAN = Own(settings=("algorithm.discrete_gradient=expected",))
"""The slope that straight-through Gumbel-softmax takes at drawn actions may lead back."""
MORE_SAMPLES = Own(200_000, ("experiment.off_policy_memory_size=12500",))
"""What is rare under epsilon 0.05 is estimated from too few plays otherwise."""
OWN: dict[str, Own] = {
    **dict.fromkeys(("maddpg", "matd3", "iddpg"), EXACT_MEAN),
    **dict.fromkeys(("vdn", "qmix", "roma", "facmac", "ow_qmix", "isac"), MORE_SAMPLES),
    "belief_ppo": Own(200_000),
    "hasac": Own(settings=("algorithm.alpha_init=1.0",)),
    "mat": Own(settings=("algorithm.entropy_coef=0.05",)),
    "coma": Own(
        200_000,
        (
            "algorithm.entropy_coef=1.0",  # in units of payoffs: its advantages are not normalised
            "experiment.exploration_eps_init=0.05",  # it explores by its softmax, as MAPPO does
            "experiment.lr=0.001",
        ),
    ),
    "pqn_vdn": Own(
        500_000,
        (
            "experiment.on_policy_collected_frames_per_batch=12500",
            "experiment.on_policy_minibatch_size=1250",
        ),
    ),
}


def own_of(name: str, args: argparse.Namespace) -> Own:
    """What is the algorithm's own, if that is asked for."""
    return OWN.get(name, Own()) if args.own_settings else Own()


def frames_of(name: str, args: argparse.Namespace) -> int:
    """Environment steps of a run."""
    frames = own_of(name, args).frames
    return frames or int(args.on_policy_frames if is_on_policy(name) else args.off_policy_frames)


def wanted(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The runs asked for; all algorithms of a seed before the next seed."""
    for seed in args.seeds:
        for game in args.games:
            for name in fitting(args.algorithms, continuous=False):
                frames = frames_of(name, args)
                yield {"game": game, "algorithm": name, "seed": seed, "frames": frames}


def against_certainty(name: str) -> list[str]:
    """The settings of ``AGAINST_CERTAINTY`` that an algorithm has."""
    config = algorithm_config(name)
    found = AGAINST_CERTAINTY.items()
    return [f"algorithm.{key}={value}" for key, value in found if hasattr(config, key)]


def run(cell: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """Train, and play one episode without exploration."""
    payoff = str(GAMES[cell["game"]]).replace(" ", "")
    overrides = [
        *SETTINGS,
        f"algorithm=marl_td/{cell['algorithm']}",
        f"task.payoff={payoff}",
        f"seed={cell['seed']}",
        f"experiment.max_n_frames={cell['frames']}",
        f"experiment.exploration_anneal_frames={cell['frames'] // 2}",
        *against_certainty(cell["algorithm"]),
        *settings,
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        seconds = train_into(path, overrides)
        trained = load_run(path, 1)
    value = evaluate_episodes(trained.env, trained.policy, 1, seed=10_000).totals["return"].item()
    return cell | {"return": round(value, 3), "seconds": round(seconds, 1)}


def ends(returns: list[float]) -> str:
    """How many runs ended at which return, the best first: ``275 x 2, 175 x 3``."""
    counts = Counter(f"{value:g}" for value in returns)
    return ", ".join(f"{value} x {counts[value]}" for value in sorted(counts, key=float)[::-1])


def summary(rows: list[dict[str, Any]], games: list[str]) -> list[dict[str, Any]]:
    """A row per algorithm, for each game where its runs ended, and the paper's return beneath."""
    out = []
    for name in dict.fromkeys(row["algorithm"] for row in rows):
        line = {"algorithm": name}
        for game in games:
            found = [
                float(row["return"])
                for row in rows
                if (row["algorithm"], row["game"]) == (name, game)
            ]
            recalled = RECALLED[game].get(name)
            line[game] = (ends(found) or "-") + (f" (**{recalled}**)" if recalled else "")
        out.append(line)
    return out


def main() -> None:
    """Train what is missing, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, NAME, range(5))
    parser.add_argument("--games", nargs="+", choices=GAMES, default=list(GAMES))
    parser.add_argument(
        "--own-settings",
        action="store_true",
        help="what each algorithm needs (OWN), not one for all",
    )
    parser.add_argument("--on-policy-frames", type=int, default=100_000)
    parser.add_argument("--off-policy-frames", type=int, default=100_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    register()
    if args.own_settings and args.name == NAME:
        args.name = f"{NAME}_own"  # rows of other settings count as these otherwise
    path = RESULTS / f"{args.name}.csv"
    cells = list(wanted(args))
    if not args.summary:
        todo = missing(cells, read_rows(path), CELL)
        for cell in with_progress(todo, CELL[:3]):
            own = own_of(cell["algorithm"], args).settings
            append(path, run(cell, [*own, *args.set]))
    asked = [tuple(str(cell[name]) for name in CELL) for cell in cells]
    rows = [row for row in read_rows(path) if tuple(row[name] for name in CELL) in asked]
    text = markdown(summary(rows, args.games))
    path.with_suffix(".md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
