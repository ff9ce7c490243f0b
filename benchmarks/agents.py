"""How the cost of an update grows with the number of agents, for every value-based algorithm.

    python benchmarks/agents.py
    python benchmarks/agents.py --algorithms qmix qplex --agents 3 30 200

One update is the loss on a batch of single steps and its gradient, with networks of two layers that the
agents share; uncompiled and compiled (`fullgraph=True`), on one thread. Each is measured with a global state
of fixed width, which shows the algorithm's own growth, and (uncompiled) with one of some numbers per agent,
as most tasks have it; for VDN also with observations of some numbers per agent. Time is processor time, the
median of several updates; memory is the most that tensors held at once during an update, beyond the batch.

Exponents are those of `growth.py`: slopes of log(cost) over log(agents), 1 being linear, over all points and
over those above the floor. Writes `results/agents.csv`, `agents.md` and `agents.png`.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from common import RESULTS, markdown, write_csv
from growth import Row, exponents
from growth_point import peak_bytes
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictModuleBase, TensorDictSequential
from torch import Tensor, nn

from marl_td.algorithms.q_family import QConfig
from marl_td.losses.independent_q import IndependentQLoss
from marl_td.losses.q_learning import QLearningLoss
from marl_td.models.grouped import GroupedLinear
from marl_td.models.team import Team
from marl_td.registry import ALGORITHMS, algorithm_config

N_ACTIONS, D_HIDDEN = 5, 64
FIXED, PER_AGENT = 32, 4
"""Width of a state or observation that does not grow, and what one that does has per agent."""


class Kind(NamedTuple):
    """What is measured of an algorithm."""

    compiled: bool
    grows: str
    """Beside the number of agents: "", "state" or "observation"."""

    @property
    def name(self) -> str:
        """What the tables call it."""
        name = "compiled" if self.compiled else "uncompiled"
        return f"{name}, {self.grows} grows" if self.grows else name

    def width(self, what: str, n_agents: int) -> int:
        """Width of the state or the observation."""
        return PER_AGENT * n_agents if self.grows == what else FIXED


KINDS = (Kind(False, ""), Kind(False, "state"), Kind(False, "observation"), Kind(True, ""))


class Networks:
    """Two-layer networks that all agents share; see `marl_td.models.team.TeamNetworks`."""

    def __init__(self, team: Team) -> None:
        self.team = team

    def agents(self, name: str, width: int) -> TensorDictModule:
        """From an agent's observation."""
        first = GroupedLinear(1, self.team.d_agent, D_HIDDEN)
        network = nn.Sequential(first, nn.ReLU(), GroupedLinear(1, D_HIDDEN, width))
        return TensorDictModule(network, [self.team.key("observation")], [self.team.key(name)])

    def central(self, module: TensorDictModuleBase) -> TensorDictModuleBase:
        """Observations are what is seen of the agents."""
        key = self.team.key("agent_input")
        if key not in module.in_keys:
            return module
        seen = TensorDictModule(nn.Identity(), [self.team.key("observation")], [key])
        return TensorDictSequential(seen, module)


def loss_of(name: str, team: Team) -> QLearningLoss:
    """The loss of the algorithm ``name`` with its default settings."""
    config, networks = algorithm_config(name)(), Networks(team)
    if not hasattr(config, "build_loss"):
        values = networks.agents("action_value", team.n_actions)
        return IndependentQLoss(values, **config.loss_options())
    values = config.value_network(networks, "action_value", team.n_actions)
    loss: QLearningLoss = config.build_loss(values, networks, **config.loss_options())
    return loss


def batch_of(team: Team, n_rows: int) -> TensorDict:
    """A random batch of steps ``[n_rows]`` with one reward for all."""

    def seen() -> dict[str, Any]:
        observation = torch.randn(n_rows, team.n_agents, team.d_agent)
        agents = TensorDict({"observation": observation}, [n_rows, team.n_agents])
        return {"agents": agents, "state": torch.randn(n_rows, team.d_state)}

    batch = TensorDict(seen(), [n_rows])
    batch["agents", "action"] = torch.randint(team.n_actions, (n_rows, team.n_agents))
    batch["next"] = TensorDict(seen(), [n_rows])
    signals = {"reward": torch.randn(n_rows, 1), "terminated": torch.rand(n_rows, 1) < 0.1}
    for key, value in (*signals.items(), ("done", signals["terminated"])):
        batch["next", key] = value
        batch["next", "agents", key] = value.unsqueeze(1).expand(-1, team.n_agents, -1).clone()
    return batch


def update_of(loss: QLearningLoss, batch: TensorDict, compiled: bool) -> Callable[[], object]:
    """One update: all named losses and their gradients."""
    compute = torch.compile(loss.compute, fullgraph=True) if compiled else loss.compute
    live = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    names = list(loss.networks())

    def update() -> tuple[Tensor, ...]:
        out = compute(batch)
        return torch.autograd.grad(torch.stack([out[name] for name in names]).sum(), live)

    return update


def point(name: str, kind: Kind, n_agents: int, args: argparse.Namespace) -> Row:
    """Time and memory of one size."""
    torch.manual_seed(0)
    torch.compiler.reset()
    widths = (kind.width("state", n_agents), kind.width("observation", n_agents))
    team = Team(n_agents, N_ACTIONS, *widths)
    update = update_of(loss_of(name, team), batch_of(team, args.rows), kind.compiled)
    start = time.process_time()
    update()
    first = time.process_time() - start
    update()
    seconds, start = [], time.process_time()
    while len(seconds) < 5 or (time.process_time() - start < args.seconds and len(seconds) < 100):
        before = time.process_time()
        update()
        seconds.append(time.process_time() - before)
    cost = statistics.median(seconds)
    return {
        "task": f"{name}, {kind.name}",
        "axis": "agents",
        "agents": n_agents,
        "seconds": cost,
        "bytes": peak_bytes(update, "cpu"),
        "ms": round(1e3 * cost, 2),
        "compile_s": round(first, 1) if kind.compiled else "",
        "skipped": "",
    }


def by_size(rows: list[Row]) -> list[Row]:
    """A row per algorithm and kind: ms and MB at each number of agents."""
    table = []
    for name in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == name]
        line = {"algorithm": name} | {f"{row['agents']}, ms": row["ms"] for row in own}
        table.append(line | {f"{r['agents']}, MB": round(r["bytes"] / 1e6, 1) for r in own})
    return table


def write(rows: list[Row]) -> None:
    """CSV of the points, Markdown of exponents and costs, and the picture."""
    write_csv("agents", rows)
    text = f"{markdown(exponents(rows, label='algorithm'))}\n\n{markdown(by_size(rows))}\n"
    (RESULTS / "agents.md").write_text(text)
    plot(rows, RESULTS / "agents.png")


def plot(rows: list[Row], path: Path) -> None:
    """Time and memory of an update over the number of agents, and what linear growth looks like."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    kinds = ("compiled", "uncompiled", "uncompiled, state grows")
    figure, panels = plt.subplots(2, 3, figsize=(13, 7), sharex=True, layout="constrained")
    for column, kind in enumerate(kinds):
        for axes, key, scale, unit in zip(
            panels[:, column], ("seconds", "bytes"), (1e3, 1e-6), ("ms", "MB"), strict=True
        ):
            own = [row for row in rows if row["task"].split(", ", 1)[1] == kind]
            for number, name in enumerate(dict.fromkeys(row["task"] for row in own)):
                line = [row for row in own if row["task"] == name]
                x, y = [row["agents"] for row in line], [scale * row[key] for row in line]
                style = "o-" if number < 10 else "s--"
                axes.loglog(x, y, style, color=f"C{number % 10}", ms=3, label=name.split(",")[0])
            axes.set(ylabel=f"{unit} per update", title=kind if key == "seconds" else "")
            axes.grid(alpha=0.3)
        panels[1, column].set(xlabel="agents")
    panels[0, 0].legend(fontsize=7)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Measure kind by kind, the slow compiled one last, and write everything anew after each curve."""
    known = [name for name in ALGORITHMS if issubclass(algorithm_config(name), QConfig)]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--algorithms", nargs="+", default=known, choices=known)
    parser.add_argument("--agents", type=int, nargs="+", default=[3, 10, 30, 100, 200])
    parser.add_argument("--rows", type=int, default=64, help="steps in a batch")
    parser.add_argument("--seconds", type=float, default=0.5, help="time for updates at each size")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows: list[Row] = []
    for kind in KINDS:
        for name in args.algorithms:
            if kind.grows == "observation" and name != "vdn":
                continue
            rows += [point(name, kind, n_agents, args) for n_agents in sorted(args.agents)]
            costs = ", ".join(f"{row['ms']:g}" for row in rows[-len(args.agents) :])
            print(f"{name}, {kind.name}: {costs} ms", flush=True)
            write(rows)
    print((RESULTS / "agents.md").read_text())


if __name__ == "__main__":
    main()
