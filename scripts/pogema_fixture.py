"""Plays pogema and writes `tests/tasks/pogema_soft.npz`, which a test of `mapf` replays.

    python -m venv ENV && ENV/bin/pip install pogema==1.4.0    # it pins old packages
    python scripts/pogema_fixture.py --python ENV/bin/python

Collision rule `soft`, all three modes, random maps from crowded to roomy. For every setting `k` the
file has `free_k [episodes, size, size]` and `actions_k [episodes, steps, agents]`; after each step and
at the start `places_k`, `goals_k [.., steps + 1, agents, 2]` and `active_k`; `rewards_k` and `ended_k`;
what the first episode's agents see, `seen_k [steps + 1, agents, 3, view, view]`; and in mode `nothing`
pogema's sum of costs, `costs_k [episodes]`, -1 where the time limit came first. `settings` names all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[1] / "tests" / "tasks" / "pogema_soft.npz"
SIGHT = 3
TOWARDS = 0.6
"""Share of moves that lead towards the goal as the crow flies; the others are random."""
SETTINGS = [
    {"mode": mode, "size": size, "density": density, "agents": agents, "steps": 32, "episodes": 6}
    for mode in ("finish", "nothing", "restart")
    for size, density, agents in ((4, 0.0, 8), (6, 0.1, 12), (8, 0.25, 10), (10, 0.2, 24))
] + [{"mode": "nothing", "size": 8, "density": 0.1, "agents": 2, "steps": 64, "episodes": 12}]


def play(setting: dict[str, Any], number: int) -> dict[str, Any]:
    """Some episodes of one setting."""
    import numpy as np

    episodes = [episode(setting, 1000 * number + i, i == 0) for i in range(setting["episodes"])]
    seen = episodes[0].pop("seen")
    for other in episodes[1:]:
        other.pop("seen")
    found = {key: np.stack([one[key] for one in episodes]) for key in episodes[0]}
    return {f"{key}_{number}": value for key, value in {**found, "seen": seen}.items()}


def episode(setting: dict[str, Any], seed: int, look: bool) -> dict[str, Any]:
    """One episode: what was done and what came of it; after its end everything stays as it is."""
    import numpy as np
    from pogema import GridConfig, pogema_v0

    steps, n = setting["steps"], setting["agents"]
    env = pogema_v0(
        GridConfig(
            on_target=setting["mode"],
            size=setting["size"],
            density=setting["density"],
            num_agents=n,
            seed=seed,
            obs_radius=SIGHT,
            max_episode_steps=steps + 1,
            collision_system="soft",
        )
    )
    generator = np.random.default_rng(seed)
    seen, _ = env.reset()
    moves = np.array(env.grid_config.MOVES)
    rows: dict[str, list[Any]] = {key: [] for key in ("places", "goals", "active", "seen")}
    done: dict[str, list[Any]] = {key: [] for key in ("actions", "rewards", "ended")}
    over, cost = False, -1
    for time in range(steps + 1):
        places = np.array(env.get_agents_xy(ignore_borders=True))
        goals = np.array(env.get_targets_xy(ignore_borders=True))
        active = np.array([env.grid.is_active[i] for i in range(n)])
        for key, value in (("places", places), ("goals", goals), ("active", active)):
            rows[key].append(value)
        if look:
            rows["seen"].append(np.array(seen))
        if time == steps:
            break
        after = np.abs(places[:, None] + moves - goals[:, None]).sum(-1) + generator.random((n, 5))
        action = np.where(
            generator.random(n) < TOWARDS, after.argmin(-1), generator.integers(5, size=n)
        )
        rewards = [0.0] * n
        if not over:
            seen, rewards, ended, _, infos = env.step(action.tolist())
            over = all(ended)
            cost = infos[0].get("metrics", {}).get("SoC", cost) if over else cost
        for key, value in (("actions", action), ("rewards", rewards), ("ended", over)):
            done[key].append(value)
    free = env.grid.get_obstacles(ignore_borders=True) == 0
    small = {"places": np.int8, "goals": np.int8, "actions": np.int8, "rewards": np.int8}
    found = {
        key: np.array(value).astype(small.get(key, bool)) for key, value in {**rows, **done}.items()
    }
    return {**found, "free": free, "costs": np.array(cost, dtype=np.int32)}


def main() -> None:
    """Run in the environment that has pogema, and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", help="of the environment with pogema; default: this one")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    if args.python:
        command = [args.python, __file__, "--out", args.out]
        raise SystemExit(subprocess.run([str(part) for part in command], check=False).returncode)
    import numpy as np

    tables: dict[str, Any] = {"settings": np.array(json.dumps(SETTINGS))}
    for number, setting in enumerate(SETTINGS):
        tables.update(play(setting, number))
    np.savez_compressed(args.out, **tables)
    steps = sum(int(tables[f"active_{k}"][:, :-1].sum()) for k in range(len(SETTINGS)))
    print(f"{args.out}: {steps:,} agent-steps, {args.out.stat().st_size:,} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
