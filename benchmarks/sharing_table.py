"""What sharing parameters costs: `marl_td/sharing_game`, with one policy for all agents and with one each.

    python benchmarks/sharing_table.py
    python benchmarks/sharing_table.py --agents 4 --seeds 0

All agents see the same. With one policy for all of them no algorithm can make more than `2 / 2^n`
(`shared_ceiling`); with a policy each 1 can be reached. Trained in unchanged BenchMARL; judged by the exact
expected reward of the policies' probabilities, so that there is no noise of evaluation.
`tests/algorithms/test_sharing.py` runs the same. Writes `results/sharing_table.csv` and `.md`.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import torch
from common import RESULTS, markdown, mlp, settings, train, write_csv

from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.registry import algorithm_config
from marl_td.tasks.sharing_game import expected_reward, shared_ceiling

N_ENVS = 256
ITERATIONS = 25
RUN: dict[str, Any] = {
    "lr": 1e-2,
    "max_n_frames": None,
    "max_n_iters": ITERATIONS,
    "on_policy_n_envs_per_worker": N_ENVS,
    "on_policy_collected_frames_per_batch": N_ENVS,
    "on_policy_minibatch_size": N_ENVS,
}
"""Fields of BenchMARL's settings; two epochs for every agent are added."""
METHODS = {
    "ippo, shared": ("ippo", True),
    "mappo, shared": ("mappo", True),
    "mappo, own": ("mappo", False),
    "happo": ("happo", False),
    "hatrpo": ("hatrpo", False),
}
"""Algorithm, and whether its agents share parameters."""


def learn(method: str, n_agents: int, seed: int) -> float:
    """Train, and the expected reward of what was learned."""
    name, shared = METHODS[method]
    config = settings(**RUN, share_policy_params=shared, on_policy_n_minibatch_iters=2 * n_agents)
    params = {**MarlTdTask.SHARING_GAME.get_from_yaml().config, "n_agents": n_agents}
    task = MarlTdTask.SHARING_GAME.get_task(params)
    run = train(task, algorithm_config(name)(), seed, config, model=mlp(16))
    loss = run.experiment.losses["agents"]
    with torch.no_grad():
        first = loss.distribution(run.experiment.test_env.reset()).probs[0, :, 0]
    return float(expected_reward(first))


def main() -> None:
    """Method by method."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--agents", type=int, nargs="+", default=[2, 4, 6])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows, lines = [], []
    for method in METHODS:
        line: dict[str, Any] = {"method": method}
        for n_agents in args.agents:
            found = [learn(method, n_agents, seed) for seed in args.seeds]
            line[f"n = {n_agents}"] = ", ".join(f"{value:.3f}" for value in found)
            for seed, value in zip(args.seeds, found, strict=True):
                rows.append({"method": method, "n_agents": n_agents, "seed": seed, "reward": value})
        lines.append(line)
    ceilings = {f"n = {n}": f"{shared_ceiling(n):.4f}" for n in args.agents}
    lines.append({"method": "ceiling of shared policies", **ceilings})
    lines.append({"method": "optimum", **{f"n = {n}": "1" for n in args.agents}})
    write_csv("sharing_table", rows)
    (RESULTS / "sharing_table.md").write_text(markdown(lines) + "\n")
    print(markdown(lines))


if __name__ == "__main__":
    main()
