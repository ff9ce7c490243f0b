"""How often independent learners with tables end at an optimal joint action, beside the published shares.

``python benchmarks/matignon_table.py`` re-runs the table of Matignon, Laurent and Le Fort-Piat 2012
(*Independent reinforcement learners in cooperative Markov games: a survey regarding coordination problems*,
https://doi.org/10.1017/S0269888912000057) with 95 % intervals. The text that states its settings was not at
hand. The schedule of the temperature is published; trials, epsilon and rates are inferred: see
``docs/algorithms/iql_tabular.md``. ``--sensitivity`` changes one setting at a time.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from common import RESULTS, markdown, write_csv
from tqdm import tqdm

from marl_td.evaluation.statistics import share_interval
from marl_td.evaluation.tabular import train_tabular
from marl_td.evaluation.tabular_methods import METHODS
from marl_td.evaluation.tabular_settings import TabularSettings

Tables = list[list[list[float]]]

CLIMBING = [[11.0, -30.0, 0.0], [-30.0, 7.0, 6.0], [0.0, 0.0, 5.0]]


def penalty(k: float) -> Tables:
    """The penalty game with the two best joint actions on the diagonal."""
    return [[[10.0, 0.0, k], [0.0, 2.0, 0.0], [k, 0.0, 10.0]]]


GAMES: dict[str, Tables] = {
    "penalty 0": penalty(0.0),
    "penalty -100": penalty(-100.0),
    "climbing": [CLIMBING],
    "partially stochastic": [
        [[11.0, -30.0, 0.0], [-30.0, 14.0, 6.0], [0.0, 0.0, 5.0]],
        [[11.0, -30.0, 0.0], [-30.0, 0.0, 6.0], [0.0, 0.0, 5.0]],
    ],
    "fully stochastic": [
        [[10.0, 5.0, 8.0], [5.0, 14.0, 12.0], [8.0, 12.0, 10.0]],
        [[12.0, -65.0, -8.0], [-65.0, 0.0, 0.0], [-8.0, 0.0, 0.0]],
    ],
}
"""Payoff tables of each game; where there are two, each trial pays by one of them, chosen evenly."""

PUBLISHED: dict[str, list[int | None]] = {
    "iql_tabular": [100, 97, 16, None, None],
    "distributed_q": [100, 100, 100, 7, None],
    "wolf_phc": [100, 0, 0, None, None],
    "hysteretic_q": [100, 100, 100, 82, 0],
    "recursive_fmq": [100, 100, 100, 100, 58],
    "fmq": [None] * 5,
}
"""Percent of the runs, in the order of ``GAMES``; None is not published."""

INFERRED: dict[str, dict[str, float]] = {
    "recursive_fmq": {"alpha": 0.01, "beta": 0.01, "alpha_frequency": 0.01}
}
"""Settings by method that are not the defaults: no published ones, and the noisy games need them."""

GLIE = [(5000.0, 0.9, 0.0), (5000.0, 0.99, 61.7), (5000.0, 0.995, 84.0), (5000.0, 0.997, 96.6)]
GLIE += [(5000.0, 0.998, 73.39), (500.0, 0.995, 85.3), (100.0, 0.995, 84.8)]
"""First temperature, its decay, and the published percent of decentralised Q on penalty -100."""

VARIATIONS: list[tuple[str, list[str], dict[str, Any]]] = [
    *[
        ("iql_tabular", ["penalty -100"], {"temperature_init": init, "temperature_decay": decay})
        for init, decay, _ in GLIE
    ],
    ("distributed_q", ["partially stochastic"], {"epsilon": 0.05}),
    ("distributed_q", ["partially stochastic"], {"exploration": "boltzmann"}),
    ("hysteretic_q", ["climbing", "partially stochastic"], {"exploration": "epsilon_greedy"}),
    ("hysteretic_q", ["partially stochastic"], {"beta": 0.03}),
    ("recursive_fmq", ["climbing", "partially stochastic"], {"exploration": "boltzmann"}),
    *[
        ("recursive_fmq", ["partially stochastic", "fully stochastic"], {"alpha_frequency": rate})
        for rate in (0.001, 0.003, 0.03)
    ],
    *[
        ("recursive_fmq", ["partially stochastic", "fully stochastic"], changed)
        for changed in ({"alpha": 0.1}, {"alpha": 0.1, "alpha_frequency": 0.003}, {"epsilon": 0.05})
    ],
    ("wolf_phc", ["penalty -100", "climbing"], {"delta_win": 0.001, "delta_lose": 0.002}),
    ("wolf_phc", ["penalty -100", "climbing"], {"epsilon": 0.0}),
]
"""Method, games, and the settings that differ."""


def measured(
    method: str, game: str, settings: dict[str, Any], args: argparse.Namespace
) -> dict[str, Any]:
    """One cell: a row of the CSV file."""
    payoff, *others = GAMES[game]
    settings = INFERRED.get(method, {}) | settings
    trials = args.stochastic_trials if others else args.trials
    with tqdm(total=trials, desc=f"{method}, {game}", leave=False, disable=args.quiet) as bar:
        runs = train_tabular(
            payoff,
            method,
            range(args.runs),
            other_payoffs=others,
            n_trials=trials,
            settings=TabularSettings(**settings),
            on_step=bar.update,
        )
    best = best_payoff(GAMES[game])
    n_best = sum(run.greedy_payoff == best for run in runs)
    share = share_interval(n_best, len(runs))
    published = PUBLISHED[method][list(GAMES).index(game)]
    return {
        "method": method,
        "game": game,
        "runs": len(runs),
        "trials": trials,
        "optimal %": f"{100 * share.value:.1f}",
        "low %": f"{100 * share.low:.1f}",
        "high %": f"{100 * share.high:.1f}",
        "published %": "" if published is None else published,
        "settings": " ".join(f"{name}={value}" for name, value in settings.items()),
    }


def best_payoff(tables: Tables) -> float:
    """The largest mean payoff of a joint action."""
    rows = zip(*tables, strict=True)
    return max(sum(entry) / len(tables) for row in rows for entry in zip(*row, strict=True))


def cell(row: dict[str, Any]) -> str:
    """A cell as text: measured, its interval, published."""
    published = f"**{row['published %']}**" if row["published %"] != "" else "-"
    return f"{row['optimal %']} ({row['low %']} to {row['high %']}), {published}"


def table(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """A row per method, a column per game."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    return [
        {"method": method} | {row["game"]: cell(row) for row in rows if row["method"] == method}
        for method in methods
    ]


def cells(args: argparse.Namespace, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of the published table."""
    for method in args.methods:
        for game in args.games:
            yield measured(method, game, settings, args)


def varied(args: argparse.Namespace, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of the sensitivity table; the temperatures' own published shares stand in it."""
    glie = {(init, decay): share for init, decay, share in GLIE}
    for method, games, changed in VARIATIONS:
        for game in games:
            if method in args.methods and game in args.games:
                row = measured(method, game, settings | changed, args)
                key = (changed.get("temperature_init"), changed.get("temperature_decay"))
                row["published %"] = glie.get(key, row["published %"])  # type: ignore[arg-type]
                row["settings"] = " ".join(f"{name}={value}" for name, value in changed.items())
                yield row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=500, help="runs per cell (default 500)")
    parser.add_argument("--trials", type=int, default=3000, help="of the games without noise")
    parser.add_argument("--stochastic-trials", type=int, default=5000, help="of the noisy games")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(PUBLISHED))
    parser.add_argument("--games", nargs="+", choices=GAMES, default=list(GAMES))
    parser.add_argument("--sensitivity", action="store_true", help="change one setting at a time")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.add_argument("--name", default="matignon_table", help="of the result files")
    for field in fields(TabularSettings):
        kind = str if field.name == "exploration" else float
        option = "--" + field.name.replace("_", "-")
        parser.add_argument(option, type=kind, help=f"default {field.default}")
    args = parser.parse_args()
    given = {field.name: getattr(args, field.name) for field in fields(TabularSettings)}
    settings = {name: value for name, value in given.items() if value is not None}
    name = f"{args.name}_sensitivity" if args.sensitivity else args.name
    rows: list[dict[str, Any]] = []
    for row in varied(args, settings) if args.sensitivity else cells(args, settings):
        rows.append(row)
        print(f"{row['method']}, {row['game']}, {row['settings']}: {cell(row)}", flush=True)
        write_csv(
            name, rows
        )  # after every cell: a long run that is stopped has not been for nothing
    text = markdown(rows if args.sensitivity else table(rows))
    (RESULTS / f"{name}.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
