"""Short runs of `marl-td train` on the device `cuda`, for `make pretend-gpu`: one of each kind of algorithm.

    python scripts/pretend_gpu scripts/pretend_gpu/trainings.py

They end with an error if one of them fails. What they learn is not looked at.
"""

import sys
import tempfile
from pathlib import Path

from marl_td.cli import main

SHORT = (
    "experiment.compile=off",
    "experiment.sampling_device=cuda",
    "experiment.train_device=cuda",
    "task.max_steps=20",
    "experiment.max_n_frames=800",
    "experiment.evaluation_interval=800",
    "experiment.on_policy_collected_frames_per_batch=400",
    "experiment.on_policy_n_envs_per_worker=20",
    "experiment.on_policy_n_minibatch_iters=2",
    "experiment.on_policy_minibatch_size=200",
    "experiment.off_policy_collected_frames_per_batch=400",
    "experiment.off_policy_n_envs_per_worker=20",
    "experiment.off_policy_init_random_frames=400",
    "experiment.off_policy_n_optimizer_steps=4",
)
BOX = "experiment.prefer_continuous_actions=true"
GRU = "model=layers/marl_td/gru"
PRIORITISED = "experiment.off_policy_use_prioritized_replay_buffer=true"
RUNS = (
    ("mappo", "recall", GRU, "algorithm.chunk_length=4"),
    ("mappo", "drones", BOX),
    ("mappo", "vmas", "task.scenario=navigation"),
    ("mat", "energy_grid"),
    ("happo", "traffic_junction"),
    ("hatrpo", "simple_spread", BOX),
    ("coma", "predator_prey"),
    ("belief_ppo", "pursuit"),
    ("qmix", "banking", PRIORITISED),
    ("qmix", "recall", GRU, "algorithm.sequence=window", "algorithm.window_length=2"),
    ("qplex", "warehouse"),
    ("roma", "mapf"),
    ("pqn_vdn", "intersection"),
    ("maddpg", "simple_tag", BOX, "algorithm.infer_policies=true"),
    ("matd3", "retail", BOX),
    ("masac", "pricing"),
    ("hasac", "market_making", BOX),
)
"""Algorithm, task, settings."""


def train_all(folder: Path) -> None:
    """Train them, the first with its report, whose processes have no such device.

    Raises:
        SystemExit: naming the run that failed.
    """
    for number, (algorithm, task, *settings) in enumerate(RUNS):
        chosen = [f"algorithm=marl_td/{algorithm}", f"task=marl_td/{task}", *settings]
        words = ["train", "--out", str(folder / str(number)), *chosen, *SHORT]
        if main(words if number == 0 else [*words, "--no-report"]) != 0:
            sys.exit(f"[pretend_gpu] failed: {' '.join(chosen)}")
    print(f"[pretend_gpu] {len(RUNS)} trainings ended well")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        train_all(Path(place))
