"""Who has a memory: every algorithm on `marl_td/recall`, with and without recurrent networks.

    python benchmarks/recall_table.py
    python benchmarks/recall_table.py --algorithms qmix mappo --seeds 0

A cue is shown once and must be named some steps later. Without memory every policy makes the same return,
`Recall.memoryless_return`, in closed form; with memory 1 can be reached. Trained in unchanged BenchMARL, the
same networks once with gated recurrent units and once without; judged by the policy without exploration on
fresh episodes. `tests/algorithms/test_memory.py` runs the same. Writes `results/recall_table.csv` and `.md`,
in which the rows of algorithms that are not run again stay.
"""

from __future__ import annotations

import argparse
import time
import warnings
from copy import deepcopy
from dataclasses import asdict
from statistics import mean
from typing import Any, NamedTuple

import torch
from common import episode_returns, markdown, mlp, put, settings, train

from marl_td.algorithms.q_family import QConfig
from marl_td.algorithms.sac_family import SacConfig
from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.models.gru import StatefulGruConfig
from marl_td.registry import ALGORITHMS, action_kinds, algorithm_config
from marl_td.tasks.recall import Recall, RecallParams

PARAMS = RecallParams(n_agents=3, n_cues=2, delay=1, extra_delay=1)
"""Episodes of three or four steps, so that some end while others go on."""
CEILING = Recall(PARAMS, continuous=False).memoryless_return()
"""What every policy without memory makes on average; the optimum is 1."""
N_ENVS, N_EPISODES = 64, 2000
TOLERANCE = 4 * 0.5 / N_EPISODES**0.5
"""Four standard errors of a mean return; returns lie in [0, 1], so their deviation is at most a half."""
RUN: dict[str, Any] = {
    "lr": 1e-2,
    "gamma": 0.99,
    "polyak_tau": 0.1,
    "exploration_eps_init": 1.0,
    "exploration_eps_end": 0.2,
    "evaluation_episodes": N_EPISODES,
    "on_policy_n_envs_per_worker": N_ENVS,
    "on_policy_collected_frames_per_batch": 4 * N_ENVS,
    "on_policy_minibatch_size": 4 * N_ENVS,
    "on_policy_n_minibatch_iters": 8,
    "off_policy_n_envs_per_worker": N_ENVS,
    "off_policy_collected_frames_per_batch": 4 * N_ENVS,
    "off_policy_n_optimizer_steps": 15,
    "off_policy_train_batch_size": 4 * N_ENVS,
    "off_policy_memory_size": 4000,
}
"""Fields of BenchMARL's settings, for every algorithm."""
ITERATIONS = {
    "on-policy": 20,
    "off-policy": 8,
    "off-policy, actors": 30,
    "off-policy, continuous": 40,
}
"""Actors learn after their critics; deterministic continuous answers take longer to become exact."""
OWN_CRITICS = ("iddpg", "facmac", "isac")
"""Whose critics see what their agent sees: they need a memory as much as the actors do."""
OWN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # Policy gradients without a bound on the ratio: two steps of the actors on a batch, so more batches.
    "coma": ({"critic_steps": 4}, {"max_n_iters": 60}),
    # A trust region allows one step per batch.
    "hatrpo": ({}, {"max_n_iters": 40}),
    # Attention does not bear as large steps, and so needs more of them; with BenchMARL's epsilon in Adam, a
    # tenth of the reference's, some run loses everything in one step once its gradients are nearly nothing.
    "mat": ({}, {"lr": 1e-3, "adam_eps": 1e-5, "max_n_iters": 60}),
    # One agent's actor moves at a time.
    "hasac": ({}, {"max_n_iters": 60}),
}
"""What some algorithms need otherwise: of their own settings, and of BenchMARL's."""
GRU = StatefulGruConfig(hidden_size=32, encoder_cells=[32])


class Outcome(NamedTuple):
    """What one run came to."""

    score: float
    """Mean return of ``N_EPISODES`` fresh episodes."""
    seconds: float
    """Processor time of the training."""


def learn(name: str, recurrent: bool, seed: int, continuous: bool = False) -> Outcome:
    """Train the algorithm ``name`` and judge it."""
    config = algorithm_config(name)
    options, run_options = OWN.get(name, ({}, {}))
    if issubclass(config, QConfig):
        options = {"lmbda": 0.8, **options}
    if issubclass(config, SacConfig) and not (continuous and config().fixed_alpha):
        # A return of at most 1 is worth more than some nats. Where the temperature stays, an exact continuous
        # answer, whose density has an entropy without a lower end, would cost more than it brings.
        options = {"alpha_init": 0.02, **options}
    kind = "on-policy" if config.on_policy() else "off-policy"
    if kind == "off-policy" and not issubclass(config, QConfig):
        kind += ", continuous" if continuous else ", actors"
    start = time.process_time()
    run = train(
        MarlTdTask.RECALL.get_task(asdict(PARAMS)),
        config(**options),
        seed,
        settings(
            **{
                **RUN,
                "max_n_frames": None,
                "max_n_iters": ITERATIONS[kind],
                "prefer_continuous_actions": continuous,
                **run_options,
            }
        ),
        model=GRU if recurrent else mlp(32, 32),
        critic_model=deepcopy(GRU) if recurrent and name in OWN_CRITICS else mlp(32, 32),
    )
    seconds = time.process_time() - start
    experiment = run.experiment
    returns = episode_returns(experiment.test_env, experiment.policy, experiment.max_steps)
    return Outcome(returns.mean().item() / PARAMS.n_agents, seconds)


def line(name: str, continuous: bool, seeds: list[int]) -> dict[str, Any]:
    """The row of an algorithm."""
    row: dict[str, Any] = {"algorithm": name + (", continuous" if continuous else "")}
    for network, recurrent in (("GRU", True), ("MLP", False)):
        outcomes = [learn(name, recurrent, seed, continuous) for seed in seeds]
        row[f"{network}, return"] = ", ".join(f"{outcome.score:.3f}" for outcome in outcomes)
        row[f"{network}, s"] = round(mean(outcome.seconds for outcome in outcomes), 1)
    return row | {"without memory": f"{CEILING:.4f}", "optimum": 1}


def main() -> None:
    """Algorithm by algorithm."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS), choices=ALGORITHMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for name in args.algorithms:
        for kind in action_kinds(algorithm_config(name)):
            found = line(name, kind == "continuous", args.seeds)
            rows = put("recall_table", found, ["algorithm"])
    print(markdown(rows))


if __name__ == "__main__":
    main()
