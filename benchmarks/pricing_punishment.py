"""Do stores that learned to price punish who undercuts them? One store cuts once, and the others answer.

    python benchmarks/pricing_punishment.py RUN [RUN ...]      # folders that `marl-td train --out` wrote
    python benchmarks/pricing_punishment.py --rules            # the task's policies by rule, for comparison
    python benchmarks/pricing_punishment.py RUN --picture answer.png

Prints a table with a row for every run. `gain` is what the cut earned in its own step and `net gain` that
and what followed, discounted, in $; `cut`, and how far the others' prices fell after it, are shares of the
distance from Nash to joint price.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import markdown

from marl_td.evaluation.punishment import BEFORE, Punishment, punishment
from marl_td.tasks import make_env
from marl_td.tasks.pricing.optimum import yardstick
from marl_td.tasks.vector_env import batched_task
from marl_td.training.trained import load_run

ANSWERS = (1, 2, 5, 10)
"""Steps after the cut whose answer is printed."""


def row_of(name: str, found: Punishment, nash: float, joint: float) -> dict[str, Any]:
    """One line of the table; ``nash`` and ``joint`` are the profits of all stores that score 0 and 1."""
    calm = float(found.calm_profit.sum(-1).mean())
    answers = {
        f"after {n}": f"{found.answer[n - 1]:.2f}" for n in ANSWERS if n <= len(found.answer)
    }
    return {
        "who": name,
        "profit gain": f"{(calm - nash) / (joint - nash):.2f}",
        "cut": f"{found.cut:.2f}",
        "gain": f"{found.gain:.4f}",
        "net gain": f"{found.net_gain:.4f}",
        **answers,
    }


def tested(args: argparse.Namespace) -> Iterator[tuple[str, Punishment, Any]]:
    """Name, outcome and task of every run or rule."""
    options = {"deviator": args.deviator, "cut_at": args.cut_at, "n_after": args.after}
    options |= {"gamma": args.gamma, "seed": args.seed}
    for folder in args.runs:
        run = load_run(folder, args.copies)
        yield folder.name, punishment(run.env, run.policy, **options), batched_task(run.env)
    if args.rules:
        env = make_env("pricing", args.copies, n_agents=args.stores)
        for name, policy in env.task.baselines().items():
            yield name, punishment(env, policy, **options), env.task


def draw(path: Path, found: dict[str, Punishment]) -> None:
    """Prices around the cut, a panel for each run: with the cut (lines) and without (dots)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(found), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
    for axes, (name, outcome) in zip(panels, found.items(), strict=True):
        steps = range(-BEFORE, len(outcome.price) - BEFORE)
        for store, line in enumerate(outcome.price.T.tolist()):
            label = "made to cut" if store == outcome.deviator else None
            axes.plot(steps, line, color=f"C{store}", label=label)
            axes.plot(steps, outcome.calm_price[:, store].tolist(), ":", color=f"C{store}")
        axes.set(title=name, xlabel="steps from the cut")
        axes.legend(loc="lower right", fontsize=8)
    panels[0].set_ylabel("price ($)")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--rules", action="store_true", help="also test the policies by rule")
    parser.add_argument("--stores", type=int, default=3, help="stores for --rules (default: 3)")
    parser.add_argument("--deviator", type=int, default=0, help="store that cuts (default: 0)")
    parser.add_argument("--cut-at", type=int, default=100, help="step of the cut (default: 100)")
    parser.add_argument("--after", type=int, default=15, help="steps watched (default: 15)")
    parser.add_argument("--gamma", type=float, default=0.95, help="discount factor (default: 0.95)")
    parser.add_argument("--copies", type=int, default=64, help="copies to average (default: 64)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="also draw prices into this file")
    args = parser.parse_args()
    if not args.runs and not args.rules:
        parser.error("give run folders, or --rules")
    found, rows = {}, []
    for name, outcome, task in tested(args):
        found[name] = outcome
        scale = yardstick(task.params)
        rows.append(row_of(name, outcome, scale.nash_profit, scale.joint_profit))
    print(markdown(rows))
    if args.picture:
        draw(args.picture, found)


if __name__ == "__main__":
    main()
