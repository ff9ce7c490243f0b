"""Every algorithm as a bundle: whether it exports, how far it is from the training policy, how fast it acts.

    python benchmarks/export_table.py                                # whole table, about 20 minutes
    python benchmarks/export_table.py --algorithms mappo --networks mlp
    python benchmarks/export_table.py --summary                      # only the tables, from the rows

Policies are untrained, their parameters moved away from the start by random numbers; the task is `retail`
with 3 agents, discrete actions with a mask or continuous ones. Differences are the largest over all agents,
their outputs (scores of actions and hidden states too) and batches of 1 and 7.

Times are microseconds of one call on one thread, the median of many: the training policy in eager mode (for
all agents of the group at once: it cannot do less), one agent's actor as a torch module in eager mode, as
`torch.export` program, in ONNX Runtime, and `Policy.act` of the runtime, which checks its inputs besides.

A row is written when it is measured, and those that are there are skipped.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, append, markdown, read_rows
from registry_runs import missing, with_progress
from torchrl.envs.utils import ExplorationType, set_exploration_type

from marl_td.deploy import Policy, load_bundle
from marl_td.deploy.agents import AgentExport, agent_exports
from marl_td.deploy.compare import example_inputs, group_inputs
from marl_td.deploy.export import export_policy
from marl_td.deploy.parts import NotExportable
from marl_td.deploy.source import PolicySource, policy_source
from marl_td.registry import ALGORITHMS, action_kinds, algorithm_config
from marl_td.training.compose import compose
from marl_td.training.trained import build_run

NAME = "export_table"
CELL = ("algorithm", "actions", "network", "parameters")
NETWORKS = {
    "mlp": ["model.num_cells=[64,64]"],
    "gru": ["model=layers/marl_td/gru", "model.hidden_size=64", "model.encoder_cells=[64]"],
}
BATCHES = (1, 1024)
FORMS = ("training policy", "eager actor", "torch.export", "ONNX Runtime", "Policy.act")


def cells(algorithms: list[str], networks: list[str]) -> Iterator[dict[str, str]]:
    """Every row of the table by what tells it from others."""
    for name in algorithms:
        for kind in action_kinds(algorithm_config(name)):
            for network in networks:
                for sharing in ("shared", "own"):
                    yield dict(zip(CELL, (name, kind, network, sharing), strict=True))


def make_source(cell: dict[str, str]) -> PolicySource:
    """The policy of a row."""
    overrides = [
        f"algorithm=marl_td/{cell['algorithm']}",
        "task=marl_td/retail",
        "task.n_agents=3",
        f"experiment.prefer_continuous_actions={str(cell['actions'] == 'continuous').lower()}",
        f"experiment.share_policy_params={str(cell['parameters'] == 'shared').lower()}",
        *NETWORKS[cell["network"]],
    ]
    run = build_run(compose(overrides), 1, "cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in run.policy.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return policy_source(run.policy, run.env, run.settings)


def measure(cell: dict[str, str], repeats: int) -> dict[str, Any]:
    """One row."""
    source = make_source(cell)
    row: dict[str, Any] = {**cell, "exported": "yes", "actors": ""}
    row |= {f"difference, {form}": "" for form in FORMS[1:4]} | {"KiB": "", "export s": ""}
    row |= {f"{form}, {batch}": "" for batch in BATCHES for form in FORMS}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        try:
            report = export_policy(source, Path(folder) / "bundle")
        except NotExportable as error:
            return row | {"exported": f"refused: {str(error).split(':')[0]}"}
        row |= {
            "export s": f"{time.perf_counter() - start:.1f}",
            "KiB": f"{report.size / 1024:.0f}",
        }
        row["actors"] = str(len(report.differences))
        for form, name in zip(FORMS[1:4], ("eager", "program", "onnx"), strict=True):
            worst = max(getattr(found, name) for found in report.differences.values())
            row[f"difference, {form}"] = f"{worst:.1e}"
        agent = agent_exports(source)[0]
        file = Path(folder) / "bundle" / "actors" / f"{agent.signature.actor}.pt2"
        program = torch.export.load(io.BytesIO(file.read_bytes())).module()
        policy = load_bundle(Path(folder) / "bundle").agents[agent.name]
    for batch in BATCHES:
        n = repeats if batch == 1 else max(1, repeats // 10)
        for form, call in calls(source, agent, program, policy, batch).items():
            row[f"{form}, {batch}"] = f"{microseconds(call, n):.1f}"
    return row


def calls(
    source: PolicySource, agent: AgentExport, program: Any, policy: Policy, batch: int
) -> dict[str, Callable[[], Any]]:
    """What is timed, by form."""
    group = agent.signature.group
    every = group_inputs(source, agent, batch)
    inputs = example_inputs(source, agent, every)
    arrays = {name: value.numpy() for name, value in inputs.items()}
    live = source.policies[group]
    signature, names = agent.signature, list(agent.signature.outputs)
    obs = {entry.name: arrays[entry.name] for entry in signature.observation}
    state = {entry.name: arrays[entry.name] for entry in signature.state} or None
    mask = None if signature.mask is None else arrays[signature.mask.name]

    def training_policy() -> Any:
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            return live(every.clone(False))

    found = (
        training_policy,
        lambda: agent.actor(inputs),
        lambda: program(inputs),
        lambda: policy.session.run(names, arrays),
        lambda: policy.act(obs, state, mask),
    )
    return dict(zip(FORMS, found, strict=True))


@torch.no_grad()
def microseconds(call: Callable[[], Any], repeats: int) -> float:
    """Median time of a call, after a few that do not count."""
    for _ in range(min(20, repeats)):
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


def summary(rows: list[dict[str, Any]]) -> str:
    """Both tables as Markdown."""
    label = {name: name for name in CELL}
    exported = [
        {name: row[name] for name in label}
        | {"exported": row["exported"], "actors": row["actors"] or "-"}
        | {form: row[f"difference, {form}"] or "-" for form in FORMS[1:4]}
        | {"KiB": row["KiB"] or "-", "seconds": row["export s"] or "-"}
        for row in rows
    ]
    timed = [
        {name: row[name] for name in label}
        | {f"{form}, {batch}": row[f"{form}, {batch}"] for batch in BATCHES for form in FORMS}
        | {f"eager actor / ONNX, {batch}": ratio(row, batch) for batch in BATCHES}
        for row in rows
        if row["actors"]
    ]
    parts = ["Largest difference to the training policy's outputs:", markdown(exported)]
    parts += ["Microseconds of a call, by batch size:", markdown(timed)] if timed else []
    return "\n\n".join(parts) + "\n"


def ratio(row: dict[str, Any], batch: int) -> str:
    """How many times as long the eager actor takes as ONNX Runtime."""
    times = (float(row[f"{form}, {batch}"]) for form in ("eager actor", "ONNX Runtime"))
    eager, onnx = times
    return f"{eager / onnx:.1f}"


def main() -> None:
    """Measure what is missing, then write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--repeats", type=int, default=500, help="timed calls of batch 1")
    parser.add_argument("--name", default=NAME, help="of the result files")
    parser.add_argument("--summary", action="store_true", help="measure nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    path = RESULTS / f"{args.name}.csv"
    todo = [] if args.summary else list(cells(args.algorithms, args.networks))
    for cell in with_progress(missing(todo, read_rows(path), CELL), CELL):
        append(path, measure(cell, args.repeats))
    rows = read_rows(path)
    text = summary(rows)
    (RESULTS / f"{args.name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
