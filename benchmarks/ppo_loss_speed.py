"""Milliseconds of the PPO loss, forward and backward: ours eager and compiled, beside BenchMARL's MAPPO.

    python benchmarks/ppo_loss_speed.py

Both losses are built by unchanged BenchMARL for VMAS `balance` with the same networks and called on the same
kind of minibatch. The figure is CPU time of one thread, the median over interleaved repetitions. Writes
`results/ppo_loss_speed.csv` and `.md`. Needs the extra `vmas`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from benchmarl.algorithms import algorithm_config_registry
from benchmarl.environments import VmasTask
from benchmarl.experiment import Experiment
from common import RESULTS, markdown, mlp, settings, write_csv

from marl_td import register
from marl_td.models.gru import StatefulGruConfig

NAME = "ppo_loss_speed"
REPETITIONS = 15
CALLS = 10


def experiment(
    name: str, *, continuous: bool, share: bool, model: Any, **options: Any
) -> Experiment:
    """An experiment with one collected and prepared batch in its buffer."""
    config = settings(
        prefer_continuous_actions=continuous,
        share_policy_params=share,
        on_policy_n_envs_per_worker=40,
        on_policy_collected_frames_per_batch=400,
        on_policy_minibatch_size=400,
        on_policy_n_minibatch_iters=1,
        max_n_iters=1,
    )
    algorithm = algorithm_config_registry[name].get_from_yaml()
    for key, value in {"share_param_critic": share, **options}.items():
        setattr(algorithm, key, value)
    with tempfile.TemporaryDirectory() as folder:
        config.save_folder = folder
        run = Experiment(VmasTask.BALANCE.get_from_yaml(), algorithm, model, 0, config)
        run.run()
    return run


def step(loss: Any, batch: Any, names: tuple[str, ...]) -> Callable[[], None]:
    """One forward and backward pass."""

    def call() -> None:
        out = loss(batch)
        sum(out[name] for name in names).backward()

    return call


def milliseconds(call: Callable[[], None]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    for _ in range(CALLS):
        call()
    return (time.process_time() - start) / CALLS * 1e3


def measure(*, continuous: bool, share: bool, recurrent: bool) -> dict[str, Any]:
    """One row: BenchMARL's loss, ours, ours compiled."""
    models = {"mappo": mlp(64, 64), "marl_td/mappo": mlp(64, 64)}
    options: dict[str, Any] = {}
    if recurrent:
        models = {"marl_td/mappo": StatefulGruConfig()}
        options = {"chunk_length": 10}
    calls = {}
    for name, model in models.items():
        extra = options if name.startswith("marl_td") else {}
        run = experiment(name, continuous=continuous, share=share, model=model, **extra)
        loss, batch = run.losses["agents"], run.replay_buffers["agents"].sample()
        if name == "mappo":
            names = ("loss_objective", "loss_critic", "loss_entropy")
            calls["BenchMARL"] = step(loss, batch, names)
            continue
        names = ("loss_objective", "loss_critic")
        calls["ours"] = step(loss, batch, names)
        calls["ours, compiled"] = step(torch.compile(loss.compute, fullgraph=True), batch, names)
    for call in calls.values():
        for _ in range(3):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(REPETITIONS):
        for name, call in calls.items():
            times[name].append(milliseconds(call))
    medians = {name: round(statistics.median(values), 2) for name, values in times.items()}
    return {
        "actions": "continuous" if continuous else "discrete",
        "parameters": "shared" if share else "per agent",
        "network": "GRU, chunks of 10" if recurrent else "MLP 64-64",
        "BenchMARL": medians.get("BenchMARL", ""),
        "ours": medians["ours"],
        "ours, compiled": medians["ours, compiled"],
    }


def main() -> None:
    """Measure every row and write the table."""
    torch.set_num_threads(1)
    register()
    rows = []
    for recurrent in (False, True):
        for continuous in (True, False):
            for share in (True, False):
                rows.append(measure(continuous=continuous, share=share, recurrent=recurrent))
                print(rows[-1], flush=True)
    write_csv(NAME, rows)
    (RESULTS / f"{NAME}.md").write_text(markdown(rows) + "\n")


if __name__ == "__main__":
    main()
