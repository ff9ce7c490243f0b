"""One training run of `end_to_end.py`, ours or BenchMARL's; a line of JSON after every iteration.

    python benchmarks/end_to_end_run.py marl_td ppo --frames 200000

A line is `{"steps": environment steps so far, "return": mean over the episodes that ended in the batch,
"cpu": seconds on the processor}`; a return is summed over agents and steps, null if no episode ended. In the
cases `agilerl` and `agilerl_own` there is a line after every 1000 steps or more, its return that of 100
episodes without exploration, and `"paused"` says how many seconds such evaluations have taken. On a GPU the
last three iterations are watched instead of timed: the last line tells the memory and the share of kernels.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from dataclasses import fields, replace
from typing import Any

from benchmarl.algorithms import algorithm_config_registry
from benchmarl.environments import VmasTask
from benchmarl.experiment import Callback
from benchmarl.experiment import Experiment as BenchmarlExperiment
from common import episode_returns, everything_on, mlp, settings
from on_gpu import Watch
from tensordict import TensorDictBase

from marl_td import register
from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.training.config import RunConfig
from marl_td.training.experiment import Experiment

JAXMARL = {
    "lr": 2.5e-4,
    "adam_eps": 1e-5,
    "gamma": 0.99,
    "clip_grad_norm": True,
    "clip_grad_val": 0.5,
    "on_policy_n_envs_per_worker": 16,
    "on_policy_collected_frames_per_batch": 16 * 128,
    "on_policy_n_minibatch_iters": 4,
    "on_policy_minibatch_size": 16 * 128 // 4,
}
"""The settings of JaxMARL's `ippo_ff_mpe`; a minibatch has 512 steps, so 1536 agents."""
PARTICLE = {
    "lr": 1e-3,
    "gamma": 0.95,
    "polyak_tau": 0.01,
    "clip_grad_val": 0.5,
    "exploration_eps_init": 0.6,
    "exploration_eps_end": 0.1,
    "off_policy_train_batch_size": 256,
    "off_policy_memory_size": 100_000,
}
"""Our MADDPG on particle worlds, as in `maddpg_particle.py`."""
STEP_BY_STEP = {
    **PARTICLE,
    "off_policy_n_envs_per_worker": 1,
    "off_policy_collected_frames_per_batch": 100,
    "off_policy_n_optimizer_steps": 100,
    "off_policy_init_random_frames": 1000,
}
"""One environment, one update per step; the updates of 100 steps are made together."""
OWN_SCHEDULE = {
    **PARTICLE,
    "off_policy_n_envs_per_worker": 32,
    "off_policy_collected_frames_per_batch": 800,
    "off_policy_n_optimizer_steps": 80,
    "off_policy_init_random_frames": 3200,
}
"""Whole episodes of 32 environments, one update per 10 steps."""
CASES: dict[str, dict[str, Any]] = {
    "ppo": {"algorithm": ("marl_td/mappo", "ippo"), "cells": (64, 64), "settings": JAXMARL},
    "maddpg": {"algorithm": ("marl_td/maddpg", "maddpg"), "cells": (256, 256), "settings": {}},
    "maddpg_shared": {
        "algorithm": ("marl_td/maddpg", "maddpg"),
        "cells": (256, 256),
        "settings": {},
    },
    "qmix": {"algorithm": ("marl_td/qmix", "qmix"), "cells": (256, 256), "settings": {}},
    "agilerl": {"algorithm": ("marl_td/maddpg",), "cells": (64, 64), "settings": STEP_BY_STEP},
    "agilerl_own": {"algorithm": ("marl_td/maddpg",), "cells": (64, 64), "settings": OWN_SCHEDULE},
    "mappo": {"algorithm": ("marl_td/mappo", "mappo"), "cells": (256, 256), "settings": {}},
}
"""What is trained: our algorithm and BenchMARL's, hidden layers, settings beside BenchMARL's defaults."""
OURS = {
    "ppo": {"critic_scope": "agent", "critic_coef": 0.5, "lmbda": 0.95, "huber_delta": 0.0},
    "qmix": {"hypernet_layers": 1},
    "maddpg_shared": {"team_value": True, "actor_gradient": "all"},  # BenchMARL's algorithm
}
THEIRS = {
    "ppo": {"critic_coef": 0.5, "lmbda": 0.95, "entropy_coef": 0.01},
    "maddpg": {
        "share_param_critic": False
    },  # one critic per agent, as the paper has it and we have
}


class Lines(Callback):
    """Prints the line of each iteration when its training is over."""

    n_watched = 3

    def on_setup(self) -> None:
        """On a GPU: the watch, and when it begins."""
        config = self.experiment.config
        self.watch = Watch(config.train_device) if config.train_device != "cpu" else None
        self.n_left = config.get_max_n_iters(self.experiment.on_policy)

    def on_batch_collected(self, batch: TensorDictBase) -> None:
        """The mean return of the episodes that ended."""
        if self.watch and self.n_left == self.n_watched:
            self.watch.start()
        done = batch["next", "done"].squeeze(-1)
        total = batch["next", "agents", "episode_reward"].sum((-2, -1))
        self.found = total[done].mean().item() if bool(done.any()) else None

    def on_train_end(self, training_td: TensorDictBase, group: str) -> None:
        """Print it, or at the very end what was watched."""
        self.n_left -= 1
        if self.watch and self.n_left < self.n_watched:
            if self.n_left == 0:
                print(json.dumps(self.watch.stop()), flush=True)
            return
        line = {"steps": self.experiment.total_frames, "return": self.found}
        print(json.dumps({**line, "cpu": time.process_time()}), flush=True)


class Judged(Callback):
    """Plays episodes without exploration after every thousand steps and prints the line."""

    interval, n_episodes, max_steps = 1000, 100, 25

    def on_setup(self) -> None:
        """Environments of its own."""
        experiment = self.experiment
        make = experiment.task.get_env_fun(
            self.n_episodes, True, 1_000_000, experiment.config.sampling_device
        )
        self.env, self.next, self.paused, self.paused_cpu = make(), self.interval, 0.0, 0.0

    def on_train_end(self, training_td: TensorDictBase, group: str) -> None:
        """Play and print, if it is time."""
        if self.experiment.total_frames < self.next:
            return
        self.next += self.interval
        start, cpu = time.perf_counter(), time.process_time()
        found = episode_returns(self.env, self.experiment.policy, self.max_steps).mean().item()
        self.paused += time.perf_counter() - start
        self.paused_cpu += time.process_time() - cpu
        line = {"steps": self.experiment.total_frames, "return": found, "paused": self.paused}
        print(json.dumps({**line, "cpu": time.process_time() - self.paused_cpu}), flush=True)


def build(args: argparse.Namespace) -> BenchmarlExperiment:
    """The experiment that is asked for."""
    case, ours = CASES[args.case], args.library == "marl_td"
    own = settings(
        max_n_frames=args.frames,
        prefer_continuous_actions=args.case != "ppo",
        checkpoint_at_end=False,
        **everything_on(args.device),
        **case["settings"],
    )
    algorithm = algorithm_config_registry[case["algorithm"][0 if ours else 1]].get_from_yaml()
    algorithm = replace(algorithm, **(OURS if ours else THEIRS).get(args.case, {}))
    if ours:
        values = {field.name: getattr(own, field.name) for field in fields(own)}
        own = RunConfig(**values, compile=args.compile, lr_end=0.0 if args.case == "ppo" else 1.0)
    own.save_folder = args.folder
    vmas = args.library == "benchmarl" and args.task == "vmas"
    task = VmasTask.SIMPLE_SPREAD if vmas else MarlTdTask.SIMPLE_SPREAD
    kind = Experiment if ours else BenchmarlExperiment
    told = Judged() if args.case.startswith("agilerl") else Lines()
    model = mlp(*case["cells"])
    return kind(task.get_from_yaml(), algorithm, model, args.seed, own, callbacks=[told])


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("library", choices=["marl_td", "benchmarl"])
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("--frames", type=int, default=500_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--task", choices=["marl_td", "vmas"], default="marl_td")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", choices=["auto", "on", "off"], default="on")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    register()
    with tempfile.TemporaryDirectory() as args.folder:
        build(args).run()


if __name__ == "__main__":
    main()
