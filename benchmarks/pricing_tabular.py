"""Two stores that learn prices with tables, as Calvano et al. (2020) let them: do they collude, and how?

    python benchmarks/pricing_tabular.py
    python benchmarks/pricing_tabular.py --sessions 256 --periods 3000000

Q-learning on 15 prices; the state is both last prices; learning rate 0.15, discount 0.95, exploration
exp(-4e-6 t): the setting that the paper describes most closely. All sessions learn side by side for a fixed
number of periods (the paper stops a session when its greedy prices have not changed for 100,000). Then the
learned prices play the task `marl_td/pricing`, and one store is made to cut its price. Writes `.md` and
`.png` of the name `results/pricing_tabular`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, markdown
from pricing_punishment import draw, row_of
from tensordict import TensorDictBase
from tqdm import tqdm

from marl_td.evaluation.punishment import punishment
from marl_td.tasks import make_env, make_task
from marl_td.tasks.pricing import Pricing

NAME = "pricing_tabular"
TASK: dict[str, Any] = {"n_agents": 2, "continuous": False}
CHUNK = 10_000
"""Periods whose random numbers are drawn together."""


def profit_table(task: Pricing) -> np.ndarray[Any, Any]:
    """Profit of both stores at every pair of prices, ``[2, n_prices, n_prices]``: own price first."""
    n = task.params.n_prices
    index = torch.arange(n)
    pair = torch.cartesian_prod(index, index)
    profit = task.market.profit(task.prices(pair)).view(n, n, 2).double().numpy()
    return np.stack([profit[..., 0], profit[..., 1].T])


def learn(table: np.ndarray[Any, Any], args: argparse.Namespace) -> np.ndarray[Any, Any]:
    """Greedy price of every store, session and state, ``[2, sessions, n_prices ** 2]``.

    A state is ``n_prices * own last price + the other's``, from each store's point of view.
    """
    n, rng = table.shape[-1], np.random.default_rng(args.seed)
    sessions = args.sessions
    # As in the paper: what would be earned if the other priced at random for good.
    start = table.mean(-1) / (1.0 - args.gamma)
    value = np.broadcast_to(start[:, None, None], (2, sessions, n * n, n)).copy()
    flat = value.reshape(-1, n)
    base = np.arange(2 * sessions) * n * n
    rows = np.arange(2 * sessions)
    store = rows // sessions
    other = np.roll(rows, sessions)
    price = rng.integers(n, size=2 * sessions)
    at = base + price * n + price[other]
    for first in tqdm(range(0, args.periods, CHUNK), unit="chunk"):
        explore = rng.random((CHUNK, 2 * sessions))
        tried = rng.integers(n, size=(CHUNK, 2 * sessions))
        chance = np.exp(-args.beta * (first + np.arange(CHUNK)))
        for i in range(CHUNK):
            price = np.where(explore[i] < chance[i], tried[i], flat[at].argmax(-1))
            earned = table[store, price, price[other]]
            after = base + price * n + price[other]
            target = earned + args.gamma * flat[after].max(-1)
            flat[at, price] += args.alpha * (target - flat[at, price])
            at = after
    return value.argmax(-1)


class Tables:
    """The learned prices of every session as the policy of an environment with a copy for each."""

    def __init__(self, task: Pricing, greedy: np.ndarray[Any, Any]) -> None:
        self.task, self.greedy = task, torch.from_numpy(greedy).movedim(0, 1)

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Answer both last prices."""
        last = self.task.action_for(tensordict["agents", "info", "price"].squeeze(-1))
        state = last * self.task.params.n_prices + last.flip(-1)
        action = self.greedy.gather(-1, state.unsqueeze(-1)).squeeze(-1)
        return tensordict.set(("agents", "action"), action)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--periods", type=int, default=2_000_000)
    parser.add_argument("--alpha", type=float, default=0.15, help="learning rate")
    parser.add_argument("--beta", type=float, default=4e-6, help="exploration is exp(-beta t)")
    parser.add_argument("--gamma", type=float, default=0.95, help="discount factor")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / NAME)
    args = parser.parse_args()
    began = time.perf_counter()
    task = make_task("pricing", **TASK)
    greedy = learn(profit_table(task), args)
    env = make_env("pricing", args.sessions, **TASK)
    found = punishment(env, Tables(task, greedy), gamma=args.gamma)
    scale = task.yardstick
    row = row_of("tabular Q-learning", found, scale.nash_profit, scale.joint_profit)
    lines = [
        f"{args.sessions} sessions of {args.periods:,} periods, {time.perf_counter() - began:.0f} s:",
        "",
        markdown([row]),
        "",
    ]
    args.out.with_suffix(".md").write_text("\n".join(lines))
    draw(args.out.with_suffix(".png"), {"tabular Q-learning": found})
    print("\n".join(lines))


if __name__ == "__main__":
    main()
