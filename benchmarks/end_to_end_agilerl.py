"""AgileRL's side of `end_to_end.py`: its own MADDPG in its own training loop, on mpe2's simple_spread.

    PYTHON_OF_AGILERL benchmarks/end_to_end_agilerl.py --frames 60000

It imports nothing of this package. One environment, one update of 256 transitions after every step, networks
of 64 units, AgileRL's defaults otherwise; continuous actions. Every `--interval` steps the loop calls the
algorithm's `test`: here it plays `--episodes` episodes without exploration and prints a line of JSON as
`end_to_end_run.py` does, with the seconds that this has taken so far.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import warnings
from typing import Any

import numpy as np
import torch
from mpe2 import simple_spread_v3

try:
    from agilerl.algorithms import MADDPG
    from agilerl.components.replay_buffer import ReplayBuffer
    from agilerl.training.train_multi_agent_off_policy import train_multi_agent_off_policy
except ModuleNotFoundError as error:
    sys.exit(
        f"{error}: run this by AgileRL's Python (benchmarks/end_to_end.py agilerl --install-peers)."
    )

MAX_STEPS = 25
NETWORK = {
    "encoder_config": {"hidden_size": [64]},
    "latent_dim": 64,
    "head_config": {"hidden_size": [64]},
}
"""Actor 64-64-64: encoder, latent vector, head. Critic 64-64: the actions join at the second layer."""


def make_env() -> Any:
    """Three agents under the usual settings."""
    return simple_spread_v3.parallel_env(N=3, max_cycles=MAX_STEPS, continuous_actions=True)


class Judged(MADDPG):  # type: ignore[misc]
    """MADDPG whose test prints a line."""

    episodes = 100
    interval = 1000
    steps = 0
    paused = 0.0
    paused_cpu = 0.0

    def test(self, env: Any, *args: Any, **kwargs: Any) -> float:
        """Return of the policy without exploration, summed over agents and steps: mean over episodes."""
        start, cpu = time.perf_counter(), time.process_time()
        self.set_training_mode(False)
        envs = [make_env() for _ in range(self.episodes)]
        seen = [env.reset(seed=1_000_000 + i)[0] for i, env in enumerate(envs)]
        total = 0.0
        for _ in range(MAX_STEPS):
            stacked = {name: np.stack([one[name] for one in seen]) for name in self.agent_ids}
            action, _ = self.get_action(stacked)
            for i, one in enumerate(envs):
                seen[i], reward, *_ = one.step({name: action[name][i] for name in self.agent_ids})
                total += sum(reward.values())
        self.set_training_mode(True)
        found = total / self.episodes
        self.metrics.add_fitness(found)
        Judged.steps += self.interval
        Judged.paused += time.perf_counter() - start
        Judged.paused_cpu += time.process_time() - cpu
        line = {"steps": self.steps, "return": found, "paused": self.paused}
        print("\n" + json.dumps({**line, "cpu": time.process_time() - self.paused_cpu}), flush=True)
        return found


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--interval", type=int, default=1000, help="steps between evaluations")
    parser.add_argument("--episodes", type=int, default=100, help="of an evaluation")
    parser.add_argument("--lr-actor", type=float, default=1e-3)
    parser.add_argument("--lr-critic", type=float, default=1e-2)
    parser.add_argument("--torch-compiler", help="AgileRL's option of that name")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(args.seed)
    env = make_env()
    env.reset(seed=args.seed)
    agent = Judged(
        observation_spaces=[env.observation_space(name) for name in env.agents],
        action_spaces=[env.action_space(name) for name in env.agents],
        agent_ids=list(env.agents),
        net_config=NETWORK,
        batch_size=256,
        learn_step=1,
        lr_actor=args.lr_actor,
        lr_critic=args.lr_critic,
        torch_compiler=args.torch_compiler,
    )
    Judged.episodes, Judged.interval = args.episodes, args.interval
    train_multi_agent_off_policy(
        env,
        "simple_spread",
        "MADDPG",
        [agent],
        memory=ReplayBuffer(100_000),
        max_steps=args.frames,
        evo_steps=args.interval,
        verbose=False,
    )


if __name__ == "__main__":
    main()
