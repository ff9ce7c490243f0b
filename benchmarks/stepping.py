"""Random-action steps per second of simple_spread: our compiled task beside JaxMARL, VMAS and mpe2.

    python benchmarks/stepping.py --install-peers    # once: JaxMARL in a virtual environment of its own
    python benchmarks/stepping.py

Everybody draws discrete random actions, steps, restarts the episodes that reached 25 steps, and keeps the
observations, rewards and ends of every step. They take turns, a short window each, and a ratio is the median
over the turns. Ours is one compiled graph of a few steps made of the task's public functions, on one thread.
Writes `results/stepping.csv`, `.md` and `.png`. Times on a busy machine are worth little, ratios more.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, markdown, write_csv
from jaxmarl_peer import JaxMarl
from peers import PEERS, install, peer_python
from torch import Tensor
from torch._higher_order_ops.scan import scan

from marl_td.models.cuda_graph import WARM_UPS, CudaGraph
from marl_td.tasks import make_task
from marl_td.tasks.vector_env import where_state

MAX_STEPS = 25
Rate = Callable[[int, float], float]
"""Environment steps per second with so many environments, measured for so many seconds."""


def timed(advance: Callable[[], int], device: str, seconds: float) -> float:
    """Environment steps per second; ``advance`` says how many it made."""
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        steps += advance()
    if device != "cpu":
        torch.cuda.synchronize()
    return steps / (time.perf_counter() - start)


class Ours:
    """The task through its public functions: some steps with automatic reset in one compiled graph.

    An episode restarts at most once in 25 steps, so one fresh start per environment serves the chunk.
    """

    def __init__(self, device: str, unroll: int) -> None:
        if unroll > MAX_STEPS:
            raise ValueError(f"--unroll must be at most {MAX_STEPS}; got {unroll}.")
        self.device, self.unroll = device, unroll
        self.task: Any = make_task("simple_spread", continuous=False, device=device)
        self.generator = torch.Generator(device).manual_seed(0)
        self.running: dict[int, Any] = {}

    def chunk(self, state: Any, count: Tensor, noise: Any, actions: Tensor) -> Any:
        """Step, restart what is over, observe: once per action ``[unroll, n_agents, n_envs]``."""
        fresh = self.task.reset(count.shape[0], noise)

        def one(carry: Any, action: Tensor) -> Any:
            *last, count = carry  # the environments are last in memory: [2, n_agents, n_envs]
            state = type(fresh)(*(value.permute(2, 1, 0) for value in last))
            step = self.task.step(state, {"agents": action.transpose(0, 1)}, {})
            done = count + 1 >= MAX_STEPS
            state = where_state(done, fresh, step.state)
            count = torch.where(done, 0, count + 1)
            seen = self.task.observe(state)["agents"].permute(2, 1, 0).clone()
            reward = step.reward["agents"].transpose(0, 1).clone()
            return [*(value.permute(2, 1, 0).clone() for value in state), count], [
                seen,
                reward,
                done,
            ]

        carry = [*(value.permute(2, 1, 0).clone() for value in state), count]
        advance = scan if len(actions) > self.unroll else unrolled
        (*last, count), kept = advance(one, carry, actions)
        return type(fresh)(*(value.permute(2, 1, 0) for value in last)), count, *kept

    def draw(self, n_envs: int) -> Any:
        """Random numbers of a start."""
        return self.task.draw_reset(n_envs, self.generator)

    def rate(self, n_envs: int, seconds: float) -> float:
        """Go on where the last window ended."""
        n_agents = self.task.params.n_agents
        # Few environments wait for calls: a loop in the graph. With many of them its copies cost more.
        n_steps = MAX_STEPS if self.device == "cpu" and n_envs <= 10 else self.unroll
        if n_envs not in self.running:
            torch._dynamo.reset()  # each size is compiled for itself: open sizes run slower
            count = torch.arange(n_envs, device=self.device) % MAX_STEPS
            options = {  # sizes are fixed, so nothing needs checking; few environments wait for Python
                "guard_filter_fn": torch.compiler.skip_all_guards_unsafe,
                "cpp_wrapper": self.device == "cpu" and n_envs <= 100,
            }
            compiled = torch.compile(self.chunk, fullgraph=True, dynamic=False, options=options)
            if self.device != "cpu":
                compiled = CudaGraph("steps", compiled, lent=True)
            state = self.task.reset(n_envs, self.draw(n_envs))
            self.running = {n_envs: [compiled, state, count]}
        compiled, state, count = self.running[n_envs]

        def advance() -> int:
            nonlocal state, count
            shape = (n_steps, n_agents, n_envs)
            actions = torch.randint(5, shape, generator=self.generator, device=self.device)
            state, count, *_ = compiled(state, count, self.draw(n_envs), actions)
            return n_steps * n_envs

        for _ in range(WARM_UPS + 1):  # compiles, and records on a GPU
            advance()
        result = timed(advance, self.device, seconds)
        self.running[n_envs] = [compiled, state, count]
        return result


def unrolled(body: Any, carry: Any, inputs: Tensor) -> Any:
    """``torch.scan`` with its steps written out one after the other."""
    rows = []
    for step_input in inputs.unbind(0):
        carry, row = body(carry, step_input)
        rows.append(row)
    return carry, [torch.stack(column) for column in zip(*rows, strict=True)]


class Vmas:
    """VMAS's scenario of the same name; all environments restart together."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.envs: dict[int, Any] = {}

    def rate(self, n_envs: int, seconds: float) -> float:
        """Go on with the same environments."""
        import vmas

        if n_envs not in self.envs:
            self.envs[n_envs] = vmas.make_env(
                "simple_spread",
                num_envs=n_envs,
                device=self.device,
                continuous_actions=False,
                n_agents=3,
            )
        env, count = self.envs[n_envs], 0

        def advance() -> int:
            nonlocal count
            shape = (env.n_agents, n_envs, 1)
            env.step(list(torch.randint(5, shape, device=self.device).unbind(0)))
            count += 1
            if count % MAX_STEPS == 0:
                env.reset()
            return n_envs

        advance()
        return timed(advance, self.device, seconds)


def mpe2_rate(n_envs: int, seconds: float) -> float:
    """``mpe2`` itself, which has one environment."""
    import numpy as np
    from mpe2 import simple_spread_v3

    env = simple_spread_v3.parallel_env(max_cycles=MAX_STEPS)
    random = np.random.default_rng(0)
    env.reset(seed=0)

    def advance() -> int:
        env.step(dict(zip(env.agents, random.integers(0, 5, 3), strict=True)))
        if not env.agents:
            env.reset()
        return 1

    return timed(advance, "cpu", seconds)


def measure(n_envs: int, who: dict[str, Rate], pairs: int, seconds: float) -> list[dict[str, Any]]:
    """One row per library: median rate, and median over the turns of our rate by theirs."""
    rates: dict[str, list[float]] = {name: [] for name in who}
    for name, rate in who.items():
        print(f"  {n_envs} environments: warming up {name}", flush=True)
        rate(n_envs, min(seconds, 0.1))
    for turn in range(pairs):
        for name, rate in who.items():
            rates[name].append(rate(n_envs, seconds))
        shown = ", ".join(f"{name} {values[-1]:,.0f}" for name, values in rates.items())
        print(f"  {n_envs} environments, turn {turn + 1} of {pairs}: {shown}", flush=True)
    rows = []
    for name, values in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(rates["marl_td"], values, strict=True)]
        rows.append(
            {
                "environments": n_envs,
                "library": name,
                "steps_per_s": round(statistics.median(values)),
                "ours_by_theirs": round(statistics.median(ratios), 2),
                "lowest": round(min(ratios), 2),
                "highest": round(max(ratios), 2),
            }
        )
    return rows


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Steps per second over the number of environments."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name in dict.fromkeys(row["library"] for row in rows):
        own = [row for row in rows if row["library"] == name]
        x, y = ([row[key] for row in own] for key in ("environments", "steps_per_s"))
        axes.loglog(x, y, "o-", label=name)
    axes.set(xlabel="environments", ylabel="environment steps per second")
    axes.set_title("simple_spread, 3 agents, random actions")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    sizes = [1, 10, 32, 100, 1000, 10000]
    parser.add_argument(
        "--envs", type=int, nargs="+", default=sizes, help="numbers of environments"
    )
    parser.add_argument("--pairs", type=int, default=5, help="interleaved turns")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of one window")
    parser.add_argument(
        "--unroll", type=int, default=5, help="our steps per graph from 11 environments on"
    )
    parser.add_argument("--device", default="cpu", help="of ours and VMAS (JaxMARL takes its own)")
    parser.add_argument("--peers", type=Path, default=PEERS, help="where JaxMARL is installed")
    parser.add_argument(
        "--install-peers", action="store_true", help="install JaxMARL there, and end"
    )
    args = parser.parse_args()
    if args.install_peers:
        return install(args.peers, "jaxmarl")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    who: dict[str, Rate] = {"marl_td": Ours(args.device, args.unroll).rate}
    python = peer_python(args.peers, "jaxmarl")
    if python.exists():
        jaxmarl = JaxMarl(python)
        print(f"JaxMARL on {jaxmarl.about}")
        who["JaxMARL"] = jaxmarl.rate
    else:
        print(f"no JaxMARL at {python}: run with --install-peers first; going on without it")
    who["VMAS"] = Vmas(args.device).rate
    rows = []
    for n_envs in args.envs:
        here = {**who, "mpe2": mpe2_rate} if n_envs == 1 else who
        rows += measure(n_envs, here, args.pairs, args.seconds)
        write_csv("stepping", rows)
        (RESULTS / "stepping.md").write_text(markdown(rows) + "\n")
        plot(rows, RESULTS / "stepping.png")
    print(markdown(rows))


if __name__ == "__main__":
    main()
