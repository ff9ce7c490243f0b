"""Who has a memory: every algorithm on `marl_td/recall`, with and without recurrent networks.

    python benchmarks/recall_table.py
    python benchmarks/recall_table.py --algorithms qmix mappo --seeds 0

A cue is shown once and must be named some steps later. Without memory every policy makes the same return,
`Recall.memoryless_return`, in closed form; with memory 1 can be reached. Trained in unchanged BenchMARL, the
same networks once with gated recurrent units and once without; judged by the greedy policy (or the
policy's mode) on fresh episodes. `tests/algorithms/test_memory.py` runs the same. Writes
`results/recall_table.csv` and `.md`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from statistics import mean
from typing import Any, NamedTuple

import torch
from common import RESULTS, markdown, mlp, settings, train, write_csv
from torchrl.envs.utils import ExplorationType, set_exploration_type

from marl_td.algorithms.ddpg_family import DdpgConfig
from marl_td.algorithms.q_family import QConfig
from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.models.gru import StatefulGruConfig
from marl_td.registry import ALGORITHMS, algorithm_config
from marl_td.tasks.recall import Recall, RecallParams

PARAMS = RecallParams(n_agents=3, n_cues=2, delay=1, extra_delay=1)
"""Short episodes that end at different times."""
CEILING = Recall(PARAMS, continuous=False).memoryless_return()
N_ENVS, N_EPISODES = 64, 2000
GRU = StatefulGruConfig(hidden_size=32, encoder_cells=[32])
BATCH = 4 * N_ENVS
RUN: dict[str, Any] = {
    "lr": 1e-2,
    "gamma": 0.99,
    "polyak_tau": 0.1,
    "prefer_continuous_actions": False,
    "evaluation_episodes": N_EPISODES,
    "exploration_eps_init": 1.0,
    "exploration_eps_end": 0.2,
    "on_policy_n_envs_per_worker": N_ENVS,
    "on_policy_collected_frames_per_batch": BATCH,
    "on_policy_minibatch_size": BATCH,
    "on_policy_n_minibatch_iters": 8,
    "off_policy_n_envs_per_worker": N_ENVS,
    "off_policy_collected_frames_per_batch": BATCH,
    "off_policy_n_optimizer_steps": 15,
    "off_policy_train_batch_size": BATCH,
    "off_policy_memory_size": 4000,
}
"""Fields of BenchMARL's settings, for every algorithm."""


class Outcome(NamedTuple):
    """What one run came to."""

    score: float
    """Mean return of ``N_EPISODES`` fresh episodes."""
    seconds: float
    """Processor time of the training."""


def options(config: type) -> dict[str, Any]:
    """Settings of an algorithm for this task."""
    return {"lmbda": 0.8} if issubclass(config, QConfig) else {}


def run_settings(config: type) -> dict[str, Any]:
    """Fields of the experiment for an algorithm."""
    iterations = 20 if config.on_policy() else 8
    return {**RUN, "max_n_iters": iterations, "max_n_frames": None}


def learn(name: str, recurrent: bool, seed: int) -> Outcome:
    """Train the algorithm ``name`` and judge it."""
    config = algorithm_config(name)
    task = MarlTdTask.RECALL.get_task(asdict(PARAMS))
    start = time.process_time()
    run = train(
        task,
        config(**options(config)),
        seed,
        settings(**run_settings(config)),
        model=GRU if recurrent else mlp(32, 32),
        critic_model=mlp(32, 32),
    )
    seconds = time.process_time() - start
    experiment = run.experiment
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        episodes = experiment.test_env.rollout(
            experiment.max_steps, experiment.policy, break_when_any_done=False
        )
    done = episodes["next", "done"].long().cumsum(1)
    first = (done - episodes["next", "done"].long() == 0).unsqueeze(-1)
    reward = episodes["next", "agents", "reward"] * first
    return Outcome(reward.sum(1).mean().item(), seconds)
