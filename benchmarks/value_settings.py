"""Value-based algorithms beside each other: PQN-VDN and VDN in the same seconds, QMIX and its tuned preset.

    python benchmarks/value_settings.py pqn      # greedy return by CPU seconds, discrete simple_spread
    python benchmarks/value_settings.py tuned    # greedy return by frames, recurrent, recall

Seconds are the process's own CPU time on one thread, without evaluation: other programs do not change them.
Writes `results/value_settings_<name>.csv` and `.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from typing import Any

import torch
from benchmarl.experiment import Callback
from common import RESULTS, markdown, write_csv
from tensordict import TensorDictBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from marl_td.collect.episodes import run_episodes
from marl_td.training.compose import compose
from marl_td.training.experiment import Experiment

N_EPISODES = 500
QUIET = (
    "experiment.evaluation=false",
    "experiment.checkpoint_at_end=false",
    f"experiment.evaluation_episodes={N_EPISODES}",
)
SPREAD = (
    "task=marl_td/simple_spread",
    "model.num_cells=[64,64]",
    "model.activation_class=torch.nn.ReLU",
    "experiment.gamma=0.9",
    "experiment.exploration_eps_init=1.0",
    "experiment.exploration_eps_end=0.1",
    "experiment.exploration_anneal_frames=40000",
)
RECALL = ("task=marl_td/recall", "task.delay=2", "experiment.max_n_frames=60000")
GRU = ("model=layers/marl_td/gru", "model.activation=relu")
RUNS: dict[str, dict[str, tuple[str, ...]]] = {
    "pqn": {
        "PQN-VDN": (
            *SPREAD,
            "algorithm=marl_td/pqn_vdn",
            "algorithm.lmbda=0.3",
            "experiment.max_n_frames=10000000",
            "experiment.clip_grad_val=1.0",
            "experiment.on_policy_n_envs_per_worker=64",
            "experiment.on_policy_collected_frames_per_batch=1024",
            "experiment.on_policy_n_minibatch_iters=4",
            "experiment.on_policy_minibatch_size=128",
        ),
        "VDN": (
            *SPREAD,
            "algorithm=marl_td/vdn",
            "experiment.max_n_frames=10000000",
            "experiment.off_policy_n_envs_per_worker=64",
            "experiment.off_policy_collected_frames_per_batch=1024",
            "experiment.off_policy_n_optimizer_steps=32",
            "experiment.off_policy_train_batch_size=128",
            "experiment.off_policy_memory_size=100000",
            "experiment.polyak_tau=0.01",
        ),
    },
    "tuned": {
        "QMIX, defaults": (*RECALL, *GRU, "algorithm=marl_td/qmix"),
        "QMIX, preset=qmix_tuned": (*RECALL, "preset=qmix_tuned"),
    },
}
EVERY = {"pqn": 5.0, "tuned": 10_000.0}
"""CPU seconds, or frames, between two evaluations."""
SECONDS = 30.0


class Done(Exception):
    """The time is up."""


class Clock(Callback):
    """Evaluates the greedy policy every so many seconds or frames of training."""

    def __init__(self, by: str, every: float, limit: float | None) -> None:
        super().__init__()
        self.by, self.every, self.limit = by, every, limit
        self.points: list[dict[str, Any]] = []
        self.start = time.process_time()

    def on_train_end(self, training_td: TensorDictBase, group: str) -> None:
        """After an iteration."""
        spent = {
            "seconds": time.process_time() - self.start,
            "frames": self.experiment.total_frames,
        }
        if spent[self.by] >= self.every * (len(self.points) + 1):
            self.points.append(
                {
                    "frames": int(spent["frames"]),
                    "seconds": round(spent["seconds"], 1),
                    "return": round(greedy_return(self.experiment), 3),
                }
            )
            self.start = time.process_time() - spent["seconds"]
        if self.limit is not None and spent[self.by] >= self.limit:
            raise Done


@torch.no_grad()
def greedy_return(experiment: Experiment) -> float:
    """Mean return of fresh episodes without exploration."""
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        episodes = run_episodes(experiment.test_env, experiment.policy)
    return episodes.totals["return"].mean().item()


def run(name: str, label: str, seed: int) -> list[dict[str, Any]]:
    """One training run; its points."""
    by, limit = ("seconds", SECONDS) if name == "pqn" else ("frames", None)
    clock = Clock(by, EVERY[name], limit)
    chosen = [*RUNS[name][label], *QUIET, f"seed={seed}", "experiment.compile=off"]
    settings = compose(chosen)
    with tempfile.TemporaryDirectory() as folder:
        settings.experiment_config.save_folder = folder
        experiment = Experiment(**settings.arguments(), callbacks=[clock])
        clock.start = time.process_time()
        with contextlib.suppress(Done):
            experiment.run()
    return [{"settings": label, "seed": seed, **point} for point in clock.points]


def main() -> None:
    """Train one after the other and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=list(RUNS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        for label in RUNS[arguments.name]:
            rows += run(arguments.name, label, seed)
            print(markdown(rows[-1:]), flush=True)
            write_csv(f"value_settings_{arguments.name}", rows)
    last = [max(own, key=lambda row: row["frames"]) for own in _by_run(rows)]
    (RESULTS / f"value_settings_{arguments.name}.md").write_text(markdown(last) + "\n")


def _by_run(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["settings"], row["seed"]), []).append(row)
    return list(found.values())


if __name__ == "__main__":
    main()
