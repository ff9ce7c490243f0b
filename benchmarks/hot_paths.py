"""Collecting and updating: our compiled paths beside TorchRL's collector and BenchMARL's optimiser loop.

    python benchmarks/hot_paths.py collect
    python benchmarks/hot_paths.py tasks
    python benchmarks/hot_paths.py scenarios
    python benchmarks/hot_paths.py update

`collect`: milliseconds per step of all environments, policy included, on our tasks and on VMAS scenarios
(in our adapter). Both collectors run the same environment and the same policy. `tasks`: the same for every
task with 100 environments (or `--envs`), and the time of the policy's matrix products alone. `scenarios`: the
same for every VMAS scenario that BenchMARL knows, with 10 environments, beside the peer on TorchRL's own
environment of it. `update`: milliseconds per optimiser step; BenchMARL's own algorithm and ours, same task,
networks, batch size and optimiser settings, and ours with BenchMARL's uncompiled loop; "of product" is the
rate of its arithmetic beside that of one product of the minibatch with a matrix of weights. CPU time of one
thread (`--device cuda`: by the clock, once the device is done, with the memory and the share of the time in
kernels of one more call of ours); the peers take turns, and a ratio is the median over the turns. Writes
`results/hot_paths_<what>.csv` and `.md`.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from benchmarl.environments import VmasTask
from benchmarl.experiment import Experiment
from common import RESULTS, markdown, mlp, write_csv
from hot_paths_runs import experiment, filled
from on_gpu import clock, columns

from marl_td import register
from marl_td.collect.collector import CompiledCollector
from marl_td.models.compiling import CompileWarning, NotCompilable
from marl_td.models.cuda_graph import WARM_UPS, CudaGraphWarning
from marl_td.models.gru import StatefulGruConfig
from marl_td.tasks.registry import TASKS, make_task
from marl_td.training.memory import keep_freed_memory
from marl_td.training.update import compiled_update

COLLECT = [
    # task, algorithm, environments
    ("simple_spread", "mappo", 16),
    ("simple_spread", "mappo", 100),
    ("retail", "maddpg", 16),
    ("retail", "maddpg", 100),
    ("banking", "mappo", 16),
    ("banking", "mappo", 100),
    ("vmas/simple_spread", "mappo", 10),
    ("vmas/navigation", "mappo", 10),
    ("vmas/balance", "mappo", 10),
    ("vmas/navigation", "mappo", 600),
]
SCENARIOS = [scenario.name.lower() for scenario in VmasTask]
N_STEPS = 25
"""Steps of a collected batch."""
TASK_ENVS = 100
"""Environments of each task in `tasks`."""
UPDATE = [
    # algorithm, model, rows of a minibatch, steps collected per environment
    ("mappo", "mlp", 1200, 100),
    ("mappo", "mlp", 128, 100),
    ("maddpg", "mlp", 128, 100),
    ("qmix", "mlp", 128, 100),
    ("mappo", "gru", 400, 100),  # forty sequences of ten steps
    ("maddpg", "gru", 320, 10),  # thirty-two
    ("qmix", "gru", 960, 100),  # the same, each after twenty to find the hidden state
]


def turns(peers: dict[str, Callable[[], None]], args: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds per call of each peer, turn by turn; calls that compile and record are not counted."""
    for call in peers.values():
        for _ in range(WARM_UPS + 1):
            call()
    times: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(args.turns):
        for name, call in peers.items():
            n_calls, start, passed = 0, clock(args.device), 0.0
            while passed < args.seconds:
                call()
                n_calls, passed = n_calls + 1, clock(args.device) - start
            times[name].append(1e3 * passed / n_calls)
    return times


def row(case: dict[str, Any], times: dict[str, list[float]], per_call: int) -> dict[str, Any]:
    """Medians, and the first peer's ratios to the others."""
    ours, *others = times
    medians = {name: f"{statistics.median(t) / per_call:.3g}" for name, t in times.items()}
    ratios = {
        f"{name} / {ours}": f"{_median_ratio(times[name], times[ours]):.2f}" for name in others
    }
    return {**case, **medians, **ratios}


def _median_ratio(theirs: list[float], ours: list[float]) -> float:
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))


def collect(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row per task and number of environments."""
    for case in COLLECT:
        yield collected(*case, args)


def tasks(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row per task of the registry."""
    for name in args.only or TASKS:
        found = collected(name, "mappo", args.envs, args)
        products = policy_products(name, args.envs, args.device)
        alone = turns({"products": products}, args)["products"]
        least = statistics.median(alone)
        limit = float(found["TorchRL"]) / least
        yield {**found, "products": f"{least:.3g}", "TorchRL / products": f"{limit:.1f}"}


def policy_products(name: str, n_envs: int, device: str) -> Callable[[], None]:
    """The two large matrix products of a 64-64 policy in a task: no step takes less than these."""
    spaces = make_task(name, device=device).groups.values()
    pairs = []
    for group in spaces:
        n_rows = n_envs * group.n_agents
        for width in (group.d_obs, 64):
            rows = torch.randn(n_rows, width, device=device)
            pairs.append((rows, torch.randn(width, 64, device=device)))

    def multiply() -> None:
        for rows, weights in pairs:
            rows @ weights

    return multiply


def scenarios(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row per scenario of VMAS."""
    for name in args.only or SCENARIOS:
        yield collected(f"vmas/{name}", "mappo", 10, args, peer=f"benchmarl/{name}")


def collected(
    task: str, algorithm: str, n_envs: int, args: argparse.Namespace, peer: str = ""
) -> dict[str, Any]:
    """Ours beside TorchRL's collector on the same environment, and beside that on the ``peer``'s."""

    def ready(name: str) -> Experiment:
        frames = {"collected_frames_per_batch": n_envs * N_STEPS}
        return experiment(f"marl_td/{algorithm}", name, mlp(64, 64), n_envs, args.device, **frames)

    run, start = ready(task), time.perf_counter()
    iterators: dict[str, Iterator[Any]] = {}
    try:
        compiled = CompiledCollector(run.env_func(), run.policy, frames_per_batch=n_envs * N_STEPS)
        iterators["ours"] = iter(compiled)
        next(iterators["ours"])
        seconds = f"{time.perf_counter() - start:.0f}"
    except (NotCompilable, CompileWarning):  # a run would be collected by TorchRL, too
        iterators.clear()
        seconds = "not compiled"
    iterators["TorchRL"] = iter(run.collector)
    if peer:
        iterators["TorchRL on VmasEnv"] = iter(ready(peer).collector)
    if "ours" not in iterators:
        iterators = {"ours": iterators.pop("TorchRL"), **iterators}
    peers = {name: lambda it=it: next(it) for name, it in iterators.items()}
    case = {"task": task, "policy": algorithm, "envs": n_envs}
    shown = {"compile s": seconds, **columns(peers["ours"], args.device)}
    return {**row(case, turns(peers, args), N_STEPS), **shown}


def update(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row per algorithm and model."""
    for algorithm, model_name, n_rows, n_steps in UPDATE:
        size = "minibatch_size" if algorithm == "mappo" else "train_batch_size"
        options = {"collected_frames_per_batch": 24 * n_steps, size: n_rows}
        cells = 256 if n_rows > 1000 else 64
        own = mlp(cells, cells) if model_name == "mlp" else StatefulGruConfig()
        runs = {}
        for name in (f"marl_td/{algorithm}", algorithm):
            if model_name == "gru" and name == algorithm:
                continue
            runs[name] = filled(experiment(name, "simple_spread", own, 24, args.device, **options))
        ours = runs[f"marl_td/{algorithm}"]
        start = time.perf_counter()
        compiled = compiled_update(ours, "agents")
        assert compiled is not None
        compiled.run(1)
        seconds = time.perf_counter() - start
        peers: dict[str, Callable[[], Any]] = {"compiled": lambda c=compiled: c.run(1)}
        for run in runs.values():
            label = "uncompiled" if run is ours else "BenchMARL"
            peers[label] = lambda r=run: r._optimizer_loop("agents")
        with torch.profiler.profile(with_flops=True) as profile:
            ours._optimizer_loop("agents")
        left = torch.randn(3 * n_rows, cells, device=args.device)
        right = torch.randn(cells, cells, device=args.device)
        peers["product"] = lambda a=left, b=right: a @ b
        times = turns(peers, args)
        work = sum(event.flops for event in profile.key_averages())
        product = 2 * left.numel() * cells
        shares = [
            (work / spent) / (product / alone)
            for spent, alone in zip(times["compiled"], times.pop("product"), strict=True)
        ]
        case = {"algorithm": algorithm, "model": f"{model_name} {cells}", "rows": n_rows}
        shown = {"GFLOP": f"{work / 1e9:.3g}", "of product": f"{statistics.median(shares):.0%}"}
        shown |= {"compile s": f"{seconds:.0f}", **columns(peers["compiled"], args.device)}
        yield {**row(case, times, 1), **shown}


def main() -> None:
    """Measure, print and save row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    makers = {"collect": collect, "tasks": tasks, "scenarios": scenarios, "update": update}
    parser.add_argument("what", choices=makers)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="time of one turn")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="these tasks or scenarios; not saved"
    )
    parser.add_argument("--envs", type=int, default=TASK_ENVS, help="of each task, for `tasks`")
    parser.add_argument("--device", default="cpu", help="of environments, networks and replay")
    args = parser.parse_args()
    known = {"tasks": list(TASKS), "scenarios": SCENARIOS}.get(args.what, [])
    unknown = sorted(set(args.only or ()) - set(known))
    if unknown:
        parser.error(
            f"{args.what} has no {', '.join(unknown)}; it has {', '.join(known) or 'no parts'}."
        )
    torch.set_num_threads(1)
    keep_freed_memory()  # as in training, for both
    register()
    warnings.simplefilter("error", CompileWarning)
    warnings.simplefilter("error", CudaGraphWarning)
    rows = []
    stem = f"hot_paths_{args.what}" + ("" if args.device == "cpu" else f"_{args.device}")
    stem += "" if args.envs == TASK_ENVS else f"_{args.envs}_envs"
    for found in makers[args.what](args):
        print(found, flush=True)
        rows.append(found)
        if not args.only:
            path = write_csv(stem, rows)
            path.with_suffix(".md").write_text(markdown(rows) + "\n")
    print(markdown(rows) if args.only else f"written: {RESULTS / stem}.md")


if __name__ == "__main__":
    main()
