"""MAPPO on mpe2 `simple_spread_v3` (3 agents, continuous, 25 steps): -58.9 within 800k steps.

The return is summed over the agents and the 25 steps; a random policy makes -78.7 +- 1.5 over 300 episodes.

    python benchmarks/mappo_spread.py --seeds 0 1 2

writes `results/mappo_spread.csv`, `.md` and `.png`. Needs the extra `mpe`.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from common import (
    Run,
    episode_returns,
    markdown,
    mlp,
    parsed,
    plot_curves,
    settings,
    train,
    write_csv,
)

from marl_td import register
from marl_td.algorithms.mappo import MappoConfig
from marl_td.benchmarl_tasks import MarlTdTask

TARGET = -58.9
MAX_STEPS = 25


def config(n_frames: int, **overrides: Any) -> Any:
    """Experiment settings: 32 environments, whole episodes, few epochs on large minibatches."""
    options = {
        "max_n_frames": n_frames,
        "gamma": 0.99,
        "lr": 7e-4,
        "adam_eps": 1e-5,
        "clip_grad_val": 10.0,
        "on_policy_n_envs_per_worker": 32,
        "on_policy_collected_frames_per_batch": 3200,
        "on_policy_n_minibatch_iters": 10,
        "on_policy_minibatch_size": 1600,
    }
    return settings(**{**options, **overrides})


def evaluate(run: Run, n_episodes: int) -> torch.Tensor:
    """Returns of `n_episodes` fresh episodes of the trained policy, acting at its mode."""
    env = run.experiment.task.get_env_fun(n_episodes, True, seed=10_000, device="cpu")()
    return episode_returns(env, run.experiment.policy, MAX_STEPS)


def main() -> None:
    """Train the seeds one after the other and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--frames", type=int, default=800_000)
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--name", default="mappo_spread")
    parser.add_argument("--set", nargs="*", default=[], help="settings, such as lr=1e-3")
    parser.add_argument("--algorithm", nargs="*", default=[], help="such as clip_epsilon=0.1")
    args = parser.parse_args()
    torch.set_num_threads(1)
    register()
    task = MarlTdTask.MPE.get_task()
    rows, curves = [], {}
    for seed in args.seeds:
        overrides = parsed(args.set)
        algorithm = MappoConfig(**parsed(args.algorithm))
        run = train(task, algorithm, seed, config(args.frames, **overrides), mlp(64, 64))
        value = evaluate(run, args.episodes)
        half = 1.96 * value.std().item() / len(value) ** 0.5
        rows.append(
            {
                "seed": seed,
                "frames": run.experiment.total_frames,
                "return": round(value.mean().item(), 2),
                "95 % +-": round(half, 2),
                "target": TARGET,
                "reached": value.mean().item() >= TARGET,
                "minutes": round(run.seconds / 60, 1),
            }
        )
        curves[f"seed {seed}"] = run.curve
        print(rows[-1], flush=True)
    path = write_csv(args.name, rows)
    path.with_suffix(".md").write_text(markdown(rows) + "\n")
    plot_curves(
        path.with_suffix(".png"),
        curves,
        {"target": TARGET, "random": -78.7},
        "MAPPO on mpe2 simple_spread_v3",
        "return, sum over 3 agents and 25 steps",
    )


if __name__ == "__main__":
    main()
