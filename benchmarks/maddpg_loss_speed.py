"""Milliseconds of the MADDPG loss, forward and backward: ours eager and compiled, beside BenchMARL's.

    python benchmarks/maddpg_loss_speed.py

All losses are built by unchanged BenchMARL for VMAS `balance` (4 agents, continuous) with the same networks
and called on minibatches of 128. The figure is CPU time of one thread, the median over interleaved
repetitions. Writes `results/maddpg_loss_speed.csv` and `.md`. Needs the extra `vmas`.
"""

from __future__ import annotations

import statistics
import tempfile
from typing import Any

import torch
from benchmarl.algorithms import algorithm_config_registry
from benchmarl.environments import VmasTask
from benchmarl.experiment import Experiment
from common import RESULTS, markdown, mlp, settings, write_csv
from ppo_loss_speed import REPETITIONS, milliseconds, step

from marl_td import register

NAME = "maddpg_loss_speed"
LOSSES = ("loss_actor", "loss_value")


def experiment(name: str, share: bool, **options: Any) -> Experiment:
    """An experiment with one collected batch in its replay."""
    config = settings(
        share_policy_params=share,
        off_policy_n_envs_per_worker=40,
        off_policy_collected_frames_per_batch=400,
        off_policy_n_optimizer_steps=1,
        off_policy_train_batch_size=128,
        off_policy_memory_size=400,
        max_n_iters=1,
        max_n_frames=None,
    )
    algorithm = algorithm_config_registry[name].get_from_yaml()
    for key, value in {"share_param_critic": share, **options}.items():
        setattr(algorithm, key, value)
    with tempfile.TemporaryDirectory() as folder:
        config.save_folder = folder
        run = Experiment(VmasTask.BALANCE.get_from_yaml(), algorithm, mlp(64, 64), 0, config)
        run.run()
    return run


def measure(share: bool) -> dict[str, Any]:
    """One row: BenchMARL's loss, ours in both forms, ours compiled."""
    calls = {}
    variants = {
        "BenchMARL": ("maddpg", {}),
        "ours, all": ("marl_td/maddpg", {"actor_gradient": "all"}),
        "ours, own": ("marl_td/maddpg", {}),
    }
    for label, (name, options) in variants.items():
        run = experiment(name, share, **options)
        loss, batch = run.losses["agents"], run.replay_buffers["agents"].sample()
        calls[label] = step(loss, batch, LOSSES)
        if label == "ours, own":
            compiled = torch.compile(loss.compute, fullgraph=True)
            calls["ours, own, compiled"] = step(compiled, batch, LOSSES)
    times: dict[str, list[float]] = {label: [] for label in calls}
    for call in calls.values():
        for _ in range(3):
            call()
    for _ in range(REPETITIONS):
        for label, call in calls.items():
            times[label].append(milliseconds(call))
    medians = {label: statistics.median(values) for label, values in times.items()}
    return {
        "parameters": "shared" if share else "per agent",
        **{label: f"{value:.2f}" for label, value in medians.items()},
        "ours, own / BenchMARL": f"{medians['ours, own'] / medians['BenchMARL']:.2f}",
        "compiled / BenchMARL": f"{medians['ours, own, compiled'] / medians['BenchMARL']:.2f}",
    }


def main() -> None:
    """Measure both rows and write the table."""
    torch.set_num_threads(1)
    register()
    rows = []
    for share in (True, False):
        rows.append(measure(share))
        print(rows[-1], flush=True)
    write_csv(NAME, rows)
    (RESULTS / f"{NAME}.md").write_text(markdown(rows) + "\n")


if __name__ == "__main__":
    main()
