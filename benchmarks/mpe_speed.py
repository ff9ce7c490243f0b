"""Steps per second of mpe2 `simple_spread_v3` through our adapter, beside mpe2 itself and TorchRL's wrapper.

    python benchmarks/mpe_speed.py

prints a table and writes `results/mpe_speed.csv`: environment steps per second of CPU time of one thread, the
median over interleaved repetitions. Needs the extra `mpe`.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import markdown, write_csv
from mpe2 import simple_spread_v3
from torchrl.envs import PettingZooWrapper, SerialEnv

from marl_td.tasks.adapters import from_mpe, from_pettingzoo

NAME = "simple_spread_v3"


def make_raw() -> Any:
    """The environment as `mpe2` offers it."""
    return simple_spread_v3.parallel_env(continuous_actions=True)


def make_torchrl(n_envs: int) -> Any:
    """TorchRL's wrapper, batched by its `SerialEnv`."""
    if n_envs == 1:
        return PettingZooWrapper(make_raw())
    return SerialEnv(n_envs, lambda: PettingZooWrapper(make_raw()))


def rate(step: Callable[[], None], n_envs: int, seconds: float) -> float:
    """Environment steps per second of CPU time."""
    steps, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        step()
        steps += n_envs
    return steps / (time.process_time() - start)


def raw_step() -> Callable[[], None]:
    """A step of the raw environment, with fixed actions."""
    env = make_raw()
    env.reset(seed=0)
    actions = {agent: np.full(5, 0.3, dtype=np.float32) for agent in env.possible_agents}

    def step() -> None:
        env.step(actions)
        if not env.agents:
            env.reset()

    return step


def torchrl_step(env: Any) -> Callable[[], None]:
    """A step as a collector makes it: action in, step, reset where done."""
    td = env.reset()
    action = env.rand_action(td.clone()).select(*env.action_keys)
    data = [td]

    def step() -> None:
        _, data[0] = env.step_and_maybe_reset(data[0].update(action))

    return step


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-envs", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of CPU time per measurement")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    routes: dict[str, Callable[[int], Callable[[], None]]] = {
        "mpe2's parallel_env, no wrapper": lambda n: raw_step(),
        "from_mpe": lambda n: torchrl_step(from_mpe(NAME, n_envs=n, continuous_actions=True)),
        "from_pettingzoo(parallel_env)": lambda n: torchrl_step(
            from_pettingzoo(make_raw, n_envs=n, mortal=False)
        ),
        "TorchRL's PettingZooWrapper": lambda n: torchrl_step(make_torchrl(n)),
    }
    rows = []
    for n_envs in args.n_envs:
        steps = {route: make(n_envs) for route, make in routes.items()}
        sizes = {route: 1 if "no wrapper" in route else n_envs for route in routes}
        rates: dict[str, list[float]] = {route: [] for route in routes}
        for _ in range(args.repetitions):
            for route, step in steps.items():
                rates[route].append(rate(step, sizes[route], args.seconds))
        middle = {route: statistics.median(values) for route, values in rates.items()}
        base = middle["mpe2's parallel_env, no wrapper"]
        rows += [
            {
                "n_envs": n_envs,
                "route": route,
                "steps/s": round(value),
                "to raw": f"{value / base:.2f}",
            }
            for route, value in middle.items()
        ]
    write_csv("mpe_speed", rows)
    print(markdown(rows))


if __name__ == "__main__":
    main()
