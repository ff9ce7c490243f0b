"""``marl-td game``: what value-based algorithms and independent learners make of a payoff table."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marl_td.cli.output import add_import_option, add_progress_option, count, print_json

if TYPE_CHECKING:
    from marl_td.evaluation.games import GameRun

DESCRIPTION = """Train on a one-step game, and print per seed the learned value of every joint action, its
squared error and the payoff of the greedy joint action.

Value-based algorithms (qmix, vdn, ...) learn from all joint actions at once. The agents' values are
free numbers; the mixer and the loss are the algorithm's own. So the result shows what the
algorithm's factorisation makes of the payoff, and nothing else.

Independent learners with tables (iql_tabular, distributed_q, hysteretic_q, fmq, recursive_fmq,
wolf_phc) play the game 5000 times and learn from what they are paid."""

EXAMPLE = """example: marl-td game --algorithm qmix --payoff '[[8,-12,-12],[-12,0,0],[-12,0,0]]' --seeds 4"""


def add_parser(subparsers: Any) -> None:
    """Describe the command."""
    parser = subparsers.add_parser(
        "game",
        help="train on a payoff table",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--payoff",
        required=True,
        metavar="JSON",
        help="nested lists, one level per agent (agent 1 outermost), or a file that holds them",
    )
    parser.add_argument(
        "--algorithm", required=True, metavar="NAME", help="such as qmix, vdn or hysteretic_q"
    )
    parser.add_argument(
        "--seeds", type=count, default=8, metavar="N", help="seeds 0 to N-1 (default 8)"
    )
    add_import_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    add_progress_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train and print."""
    payoff = read_payoff(arguments.payoff)
    from marl_td.evaluation.games import payoff_table
    from marl_td.evaluation.statistics import share_interval

    largest = payoff_table(payoff).max().item()
    runs = _trained(payoff, arguments)
    n_best = sum(run.greedy_payoff == largest for run in runs)
    share = share_interval(n_best, len(runs))
    if arguments.json:
        print_json({"runs": [asdict(run) for run in runs], "best": share._asdict()})
        return 0
    for run in runs:
        print(
            f"seed {run.seed}: squared error {run.squared_error:.3f}, "
            f"greedy payoff {run.greedy_payoff:g}"
        )
        print("\n".join(f"  {row}" for row in table_rows(run.table)))
        print("".join(_own_values(run)), end="")
        if run.joint_table is not None:
            rows = "\n".join(f"  {row}" for row in table_rows(run.joint_table))
            print(f"  by the network that is not factorised:\n{rows}")
    print(
        f"greedy payoff {largest:g}, the largest, in {n_best} of {len(runs)} seeds "
        f"(share {share.value:.2f}, 95 % interval {share.low:.2f} to {share.high:.2f})"
    )
    return 0


def _trained(payoff: Any, arguments: argparse.Namespace) -> Sequence[GameRun]:
    from tqdm import tqdm

    from marl_td.evaluation.games import game_algorithm, train_game
    from marl_td.evaluation.table_fit import N_STEPS
    from marl_td.evaluation.tabular import N_TRIALS, train_tabular
    from marl_td.evaluation.tabular_methods import METHODS

    tabular = arguments.algorithm.removeprefix("marl_td/") in METHODS
    if not tabular:
        game_algorithm(arguments.algorithm)  # a typo is named before a progress bar is drawn
    hidden = None if arguments.progress is None else not arguments.progress
    total = N_TRIALS if tabular else N_STEPS
    with tqdm(total=total, desc=f"game: {arguments.algorithm}", disable=hidden) as bar:
        train = train_tabular if tabular else train_game
        return train(payoff, arguments.algorithm, range(arguments.seeds), on_step=bar.update)


def _own_values(run: GameRun) -> Iterator[str]:
    """What each agent's own values are, where the agents learn by themselves."""
    from marl_td.evaluation.tabular import TabularRun

    if isinstance(run, TabularRun):
        for i, (values, best) in enumerate(zip(run.values, run.greedy_action, strict=True)):
            yield f"  agent {i + 1}, greedy action {best}:{table_rows(values)[0]}\n"


def read_payoff(text: str) -> Any:
    """The payoff that ``--payoff`` gives, as JSON or as the name of a JSON file.

    Raises:
        ValueError: if it is neither.
    """
    given, where = text, "--payoff"
    if not text.lstrip().startswith("["):
        path = Path(text)
        if not path.is_file():
            raise ValueError(
                f"--payoff must be JSON such as '[[1,0],[0,1]]' or an existing file; got '{text}'."
            )
        given, where = path.read_text(encoding="utf-8"), f"the file {text}"
    try:
        return json.loads(given)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not valid JSON: {error}.") from error


def table_rows(table: Any) -> list[str]:
    """A nested table as lines, the last agent across; more than two agents give blocks."""
    if not isinstance(table[0], list):
        return ["".join(f"{round(value, 3) + 0.0:10.3f}" for value in table)]
    blocks = [table_rows(part) for part in table]
    if not isinstance(table[0][0], list):
        return [row for block in blocks for row in block]
    return [line for i, block in enumerate(blocks) for line in (f"[{i}]", *block)]
