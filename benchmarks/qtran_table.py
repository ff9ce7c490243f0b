"""Table 1 of the QTRAN paper re-run with this package's losses, beside the published values.

``python benchmarks/qtran_table.py`` trains QTRAN-base, VDN and QMIX on the one-step game of Son et al. 2019
(https://arxiv.org/abs/1905.05408) in two ways:

exact     free numbers instead of agents' networks, all nine joint actions in every batch (``marl-td game``)
networks  as the authors' command: 10,000 steps of random play, replay of 10,000, minibatches of 32, a
          network per agent with hidden layers of 64, Adam

Only what is determined is compared: Q_jt is the payoff; the sum with V is 8 at the best joint action and
nowhere below Q_jt; VDN ends at the least-squares sum; QMIX at -8 and 0. All else depends on the seed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from common import RESULTS, markdown, write_csv
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn
from tqdm import tqdm

from marl_td.evaluation.games import (
    GameRun,
    game_algorithm,
    game_run,
    one_step_batch,
    payoff_table,
    train_game,
)
from marl_td.evaluation.table_fit import N_STEPS, fit
from marl_td.models.tables import TableNetworks

PAYOFF = [[8.0, -12.0, -12.0], [-12.0, 0.0, 0.0], [-12.0, 0.0, 0.0]]
LEAST_SQUARES = [[-56.0, -44.0, -44.0], [-44.0, -32.0, -32.0], [-44.0, -32.0, -32.0]]  # ninths
KNOWN_OF_QMIX = [[-8.0, -8.0, -8.0], [-8.0, 0.0, 0.0], [-8.0, 0.0, 0.0]]
PUBLISHED = {
    "qtran_base": [[8.00, 6.13, 6.12], [2.10, 0.23, 0.23], [1.92, 0.04, 0.04]],
    "qtran_base, Q_jt": [[8.00, -12.02, -12.02], [-12.00, 0.00, 0.00], [-12.00, 0.00, -0.01]],
    "qtran_base, sum - Q_jt": [[0.00, 18.14, 18.14], [14.11, 0.23, 0.23], [13.93, 0.05, 0.05]],
    "vdn": [[-5.42, -4.57, -4.70], [-4.35, -3.51, -3.63], [-3.87, -3.02, -3.14]],
    "qmix": [[-8.08, -8.08, -8.08], [-8.08, 0.01, 0.03], [-8.08, 0.01, 0.02]],
}
"""Son et al. 2019, Table 1 (b) to (f)."""
ALGORITHMS = ["qtran_base", "vdn", "qmix"]


class AgentNetworks(TensorDictModuleBase):
    """A network per agent, three hidden layers; all see the constant state."""

    def __init__(self, n_agents: int, hidden: int, width: int, out_key: tuple[str, str]) -> None:
        super().__init__()
        self.in_keys, self.out_keys = ["state"], [out_key]
        sizes = [1, hidden, hidden, hidden]
        self.agents = nn.ModuleList()
        for _ in range(n_agents):
            layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
            self.agents.append(nn.Sequential(*layers, nn.Linear(hidden, width)))

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write what every agent's network says into ``tensordict``."""
        state = tensordict.get("state")
        return tensordict.set(self.out_keys[0], torch.stack([a(state) for a in self.agents], -2))


class Networks(TableNetworks):
    """Networks where :class:`TableNetworks` has tables."""

    def __init__(self, n_agents: int, n_actions: int, hidden: int) -> None:
        super().__init__(1, n_agents, n_actions)
        self.hidden = hidden

    def agents(self, name: str, width: int) -> Any:
        """A network per agent."""
        return AgentNetworks(self.team.n_agents, self.hidden, width, self.team.key(name))


def replayed(seeds: list[int], n_steps: int, size: int, capacity: int) -> Iterator[Tensor]:
    """Minibatches ``[n_seeds, size]`` of joint actions from the replay of random play, one per step.

    One game is played per step; learning begins once a minibatch is full.
    """
    streams = [torch.Generator().manual_seed(seed) for seed in seeds]
    played = torch.stack([torch.randint(9, (n_steps + size,), generator=g) for g in streams])
    for step in range(n_steps):
        stored = step + size
        first = max(0, stored - capacity)
        at = [torch.randint(first, stored, (size,), generator=g) for g in streams]
        yield played.gather(1, torch.stack(at))


def by_networks(
    algorithm: str, seeds: list[int], args: argparse.Namespace, bar: Any
) -> list[GameRun]:
    """Train the authors' way."""
    payoff = payoff_table(PAYOFF)
    batch, losses = one_step_batch(payoff), []
    for seed in seeds:
        torch.manual_seed(seed)
        networks = Networks(2, 3, args.hidden)
        losses.append(game_algorithm(algorithm)(networks))
    fitted = fit(
        losses,
        batch,
        n_steps=args.steps,
        on_step=bar.update,
        minibatches=replayed(seeds, args.steps, args.minibatch, args.replay),
        rate=args.rate,
    )
    return [game_run(seed, loss, batch, payoff) for seed, loss in zip(seeds, fitted, strict=True)]


def properties(algorithm: str, runs: list[GameRun]) -> dict[str, str]:
    """How far the runs are from what is determined, the worst of all seeds."""
    payoff = torch.tensor(PAYOFF)
    tables = torch.tensor([run.table for run in runs])
    found = {"greedy payoff 8": f"{sum(run.greedy_payoff == 8.0 for run in runs)} of {len(runs)}"}
    if algorithm == "qtran_base":
        joint = torch.tensor([run.joint_table for run in runs])
        found["max abs(Q_jt - payoff)"] = f"{(joint - payoff).abs().max():.3f}"
        found["max abs(sum - 8) at best"] = f"{(tables[:, 0, 0] - 8.0).abs().max():.3f}"
        gap = (tables - joint).flatten(1)[:, 1:]
        found["min (sum - Q_jt) elsewhere"] = f"{gap.min():.3f}"
    else:
        known = KNOWN_OF_QMIX if algorithm == "qmix" else torch.tensor(LEAST_SQUARES) / 9.0
        off = (tables - torch.as_tensor(known)).abs().flatten(1).amax(1)
        found["max abs(table - known)"] = f"{off.max():.3f}"
        found["seeds within 0.5"] = f"{int((off < 0.5).sum())} of {len(runs)}"
    return found


def table_text(table: Any) -> str:
    """A table on one line."""
    rows = [", ".join(f"{value + 0.0:.2f}" for value in row) for row in table]
    return "<br>".join(rows)


def shown(algorithm: str, run: GameRun) -> dict[str, Any]:
    """The tables of one run by the names of ``PUBLISHED``."""
    parts: dict[str, Any] = {algorithm: run.table}
    if run.joint_table is not None:
        gap = torch.tensor(run.table) - torch.tensor(run.joint_table)
        parts[f"{algorithm}, Q_jt"] = run.joint_table
        parts[f"{algorithm}, sum - Q_jt"] = gap.tolist()
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=8, help="seeds 0 to N-1 (default 8)")
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=ALGORITHMS)
    parser.add_argument("--ways", nargs="+", choices=["exact", "networks"])
    parser.add_argument("--steps", type=int, default=10_000, help="training steps of the networks")
    parser.add_argument("--replay", type=int, default=10_000, help="joint actions in the replay")
    parser.add_argument("--minibatch", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=64, help="units of the agents' hidden layers")
    parser.add_argument("--rate", type=float, default=5e-4, help="Adam's learning rate")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.add_argument("--name", default="qtran_table", help="of the result files")
    args = parser.parse_args()
    seeds = list(range(args.seeds))
    rows, compared, tables = [], [], {}
    for algorithm in args.algorithms:
        for way in args.ways or ["exact", "networks"]:
            n_steps = N_STEPS if way == "exact" else args.steps
            with tqdm(total=n_steps, desc=f"{algorithm}, {way}", disable=args.quiet) as bar:
                runs = (
                    train_game(PAYOFF, algorithm, seeds, on_step=bar.update)
                    if way == "exact"
                    else by_networks(algorithm, seeds, args, bar)
                )
            for quantity, value in properties(algorithm, runs).items():
                line = {"algorithm": algorithm, "way": way, "quantity": quantity, "value": value}
                compared.append(line)
                print(line, flush=True)
            for name, table in shown(algorithm, runs[0]).items():
                tables.setdefault(name, {})[way] = table_text(table)
            for run in runs:
                rows += [
                    {"algorithm": algorithm, "way": way, "seed": run.seed, "of": name}
                    | {"table": json.dumps([[round(x, 4) for x in row] for row in table])}
                    for name, table in shown(algorithm, run).items()
                ]
    write_csv(args.name, rows)
    beside = [
        {"table (seed 0)": name, "published": table_text(PUBLISHED[name])} | found
        for name, found in tables.items()
    ]
    text = f"{markdown(compared)}\n\n{markdown(beside)}\n"
    (RESULTS / f"{args.name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
