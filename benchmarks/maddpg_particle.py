"""MADDPG on particle worlds: VMAS `simple_tag`, both teams learning, and mpe2 `simple_spread_v3`.

* `simple_tag` (3 chasers, 1 runner, 100 steps, continuous): each team's return per agent in all four
  pairings of trained and random teams. Did the chasers learn to catch, the runner to get away?
* `simple_spread_v3` (3 agents, `local_ratio` 0.5, 25 steps; continuous and discrete): return summed over
  agents and steps, beside the random policy's.

    python benchmarks/maddpg_particle.py --seeds 0 1 2

writes `results/maddpg_particle.csv`, `.md` and one `.png` per task. Needs the extras `vmas` and `mpe`.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from benchmarl.environments import VmasTask
from common import (
    RESULTS,
    Curve,
    Run,
    markdown,
    mlp,
    parsed,
    plot_curves,
    settings,
    train,
    write_csv,
)
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase, TensorDictSequential
from torchrl.envs.utils import ExplorationType, set_exploration_type

from marl_td import register
from marl_td.algorithms.maddpg import MaddpgConfig
from marl_td.benchmarl_tasks import MarlTdTask

NAME = "maddpg_particle"


def spread() -> Any:
    """The three agents of mpe2's `simple_spread_v3` under its usual settings."""
    task = MarlTdTask.MPE.get_from_yaml()
    task.config.update(
        scenario="simple_spread_v3", max_steps=25, options={"N": 3, "local_ratio": 0.5}
    )
    return task


TASKS: dict[str, tuple[Any, bool, int, int]] = {
    # task, continuous, environment steps of training, time limit
    "simple_tag": (VmasTask.SIMPLE_TAG.get_from_yaml, True, 180_000, 100),
    "simple_spread continuous": (spread, True, 120_000, 25),
    "simple_spread discrete": (spread, False, 120_000, 25),
}


def config(n_frames: int, continuous: bool, max_steps: int, **overrides: Any) -> Any:
    """Whole episodes in 32 environments, one update per 10 environment steps."""
    n_collected = 32 * max_steps
    options = {
        "max_n_frames": n_frames,
        "prefer_continuous_actions": continuous,
        "gamma": 0.95,
        "lr": 1e-3,
        "clip_grad_val": 0.5,
        "polyak_tau": 0.01,
        "exploration_eps_init": 0.6,
        "exploration_eps_end": 0.1,
        "exploration_anneal_frames": n_frames // 2,
        "off_policy_n_envs_per_worker": 32,
        "off_policy_collected_frames_per_batch": n_collected,
        "off_policy_n_optimizer_steps": n_collected // 10,
        "off_policy_train_batch_size": 256,
        "off_policy_memory_size": 100_000,
        "off_policy_init_random_frames": 4 * n_collected,
    }
    return settings(**{**options, **overrides})


class RandomTeam(TensorDictModuleBase):
    """Uniformly random actions of one group."""

    def __init__(self, env: Any, group: str) -> None:
        super().__init__()
        self.in_keys = [(group, "observation")]
        self.out_keys = [(group, "action")]
        self.spec = env.full_action_spec[group, "action"]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write them."""
        return tensordict.set(self.out_keys[0], self.spec.rand())


@torch.no_grad()
def group_returns(run: Run, trained: set[str], n_episodes: int) -> dict[str, torch.Tensor]:
    """Return per agent of each group, ``[n_episodes]``; groups outside ``trained`` play at random."""
    experiment = run.experiment
    continuous, groups = experiment.continuous_actions, experiment.group_map
    env = experiment.task.get_env_fun(n_episodes, continuous, 10_000, "cpu")()
    teams = [experiment.group_policies[g] if g in trained else RandomTeam(env, g) for g in groups]
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        steps = env.rollout(
            experiment.max_steps, TensorDictSequential(*teams), break_when_any_done=False
        )
    done = steps["next", "done"].squeeze(-1)
    running = (done.cumsum(1) - done.long() == 0).unsqueeze(-1)
    return {g: (steps["next", g, "reward"].squeeze(-1) * running).sum(1).mean(-1) for g in groups}


def judge(name: str, run: Run, seed: int, n_episodes: int) -> list[dict[str, Any]]:
    """One row for every pairing of trained and random groups and every group's return."""
    groups = list(run.experiment.group_map)
    sizes = {g: len(agents) for g, agents in run.experiment.group_map.items()}
    pairings = [set(groups), set(), *([{g} for g in groups] if len(groups) > 1 else [])]
    rows = []
    for trained in pairings:
        for group, value in group_returns(run, trained, n_episodes).items():
            scale = 1 if len(groups) > 1 else sizes[group]
            mean, half = scale * value.mean(), scale * 1.96 * value.std() / len(value) ** 0.5
            rows.append(
                {
                    "task": name,
                    "seed": seed,
                    "trained": " and ".join(sorted(trained)) or "nobody",
                    "return of": group,
                    "mean": round(mean.item(), 2),
                    "95 % +-": round(half.item(), 2),
                    "frames": run.experiment.total_frames,
                    "minutes": round(run.seconds / 60, 1),
                }
            )
    return rows


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean over seeds, and the worst and best seed."""
    found: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        key = tuple(str(row[name]) for name in ("task", "trained", "return of"))
        found.setdefault(key, []).append(float(row["mean"]))
    return [
        {
            "task": task,
            "trained": trained,
            "return of": group,
            "mean over seeds": f"{sum(values) / len(values):.2f}",
            "worst, best seed": f"{min(values):.2f}, {max(values):.2f}",
            "seeds": len(values),
        }
        for (task, trained, group), values in found.items()
    ]


def run_task(
    name: str, args: argparse.Namespace, rows: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], dict[str, Curve]]:
    """Train and judge every seed of one task; all ``rows`` so far are saved after each."""
    make, continuous, n_frames, max_steps = TASKS[name]
    overrides = parsed(args.set)
    options = parsed(args.algorithm)
    found: list[dict[str, Any]] = []
    curves = {}
    for seed in args.seeds:
        settings_of_run = config(args.frames or n_frames, continuous, max_steps, **overrides)
        run = train(make(), MaddpgConfig(**options), seed, settings_of_run, mlp(64, 64))
        new = judge(name, run, seed, args.episodes)
        found += new
        path = write_csv(args.name, [*rows, *found])
        path.with_suffix(".md").write_text(markdown(summary([*rows, *found])) + "\n")
        curves[f"seed {seed}"] = run.curve
        print(*new, sep="\n", flush=True)
    return found, curves


def main() -> None:
    """Train the tasks one after the other; results are written after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--frames", type=int, help="environment steps; the task's own by default")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--name", default=NAME)
    parser.add_argument("--set", nargs="*", default=[], help="experiment settings, as lr=1e-3")
    parser.add_argument("--algorithm", nargs="*", default=[], help="as actor_gradient=all")
    args = parser.parse_args()
    torch.set_num_threads(1)
    register()
    rows: list[dict[str, Any]] = []
    for name in args.tasks:
        new, curves = run_task(name, args, rows)
        rows += new
        random = [row["mean"] for row in new if row["trained"] == "nobody"]
        plot_curves(
            RESULTS / f"{args.name}_{name.replace(' ', '_')}.png",
            curves,
            {"random": random[0]} if len(random) == len(args.seeds) else {},
            f"MADDPG on {name}",
            "training return, sum over agents",
        )


if __name__ == "__main__":
    main()
