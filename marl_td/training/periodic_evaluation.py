"""Evaluation during training: what the policy is worth now, without a trace in the training itself."""

from __future__ import annotations

from typing import Any

import torch
from benchmarl.experiment.callback import Callback
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs.utils import set_exploration_type

from marl_td.collect.compiled_episodes import CompiledEpisodes
from marl_td.collect.episodes import Episodes, batched_task, exploration, run_episodes
from marl_td.collect.rng import isolated_rng
from marl_td.models.compiling import compiled_or_none, is_worthwhile
from marl_td.tasks.shield import CHANGED, SIZE


class _Recorder:
    """Keeps every step of every copy's first episode, for callbacks that want whole rollouts."""

    def __init__(self) -> None:
        self.steps: list[TensorDictBase] = []
        self.active: list[Tensor] = []

    def __call__(self, step: TensorDictBase, active: Tensor) -> None:
        self.steps.append(step.clone())
        self.active.append(active)

    def rollouts(self) -> list[TensorDictBase]:
        """One TensorDict ``[T_i]`` per copy."""
        data = torch.stack(self.steps, dim=-1)
        lengths = torch.stack(self.active, dim=-1).sum(-1).reshape(-1).tolist()
        copies = data.reshape(-1, data.shape[-1]).unbind(0)
        return [copy[: int(n)] for copy, n in zip(copies, lengths, strict=True)]


def evaluate(experiment: Any) -> tuple[Episodes, list[TensorDictBase]]:
    """Run the experiment's evaluation episodes; every random stream ends as it began.

    Returns:
        The episodes' sums, and whole rollouts if a callback of the experiment asks for them.
    """
    config, env = experiment.config, experiment.test_env
    wanted = _wants_rollouts(experiment)
    rounds = 1 if env.batch_size else config.evaluation_episodes
    parts, rollouts = [], []
    with isolated_rng(), set_exploration_type(exploration(config.evaluation_deterministic_actions)):
        if config.evaluation_static:
            env.set_seed(experiment.evaluation_seed)
        if experiment.compiled_episodes is not None:
            return experiment.compiled_episodes.run(), []
        for _ in range(rounds):
            recorder = _Recorder() if wanted else None
            parts.append(run_episodes(env, _policy(experiment), experiment.max_steps, recorder))
            rollouts += [] if recorder is None else recorder.rollouts()
    return join(parts), rollouts


def compiled_episodes(experiment: Any, n_steps_to_pay: int) -> CompiledEpisodes | None:
    """The experiment's evaluation as a compiled graph; None where that does not pay, or cannot be.

    It cannot with callbacks that look at whole rollouts, environments that are no batched tasks, and
    policies on another device than the environment's.

    Args:
        experiment: with its environments and policy.
        n_steps_to_pay: steps of the evaluations together, from which on compiling pays.

    Warns:
        CompileWarning: naming the component of a batched task that cannot be compiled, and why.
    """
    config, env = experiment.config, experiment.test_env
    steps = n_evaluations(config, experiment.on_policy) * experiment.max_steps
    worth = config.evaluation and is_worthwhile(experiment.compile_mode, steps, n_steps_to_pay)
    known = batched_task(env) is not None and _one_device(config)
    if not worth or not known or _wants_rollouts(experiment):
        return None
    settings = (
        env,
        experiment.policy,
        experiment.max_steps,
        exploration(config.evaluation_deterministic_actions),
    )
    return compiled_or_none("evaluation", lambda: CompiledEpisodes(*settings))


def n_evaluations(config: Any, on_policy: bool) -> int:
    """How often a run evaluates: after the first iteration, at every interval, and in the end."""
    return int(2 + config.get_max_n_frames(on_policy) // config.evaluation_interval)


def _wants_rollouts(experiment: Any) -> bool:
    """Whether a callback looks at whole rollouts."""
    return any(
        type(callback).on_evaluation_end is not Callback.on_evaluation_end
        for callback in experiment.callbacks
    )


def _one_device(config: Any) -> bool:
    return torch.device(config.train_device) == torch.device(config.sampling_device)


def _policy(experiment: Any) -> Any:
    """The policy, fed on its own device where that is not the environment's."""
    train, sample = experiment.config.train_device, experiment.config.sampling_device
    if _one_device(experiment.config):
        return experiment.policy
    return lambda data: experiment.policy(data.to(train)).to(sample)


def join(parts: list[Episodes]) -> Episodes:
    """The episodes of several rounds one after the other."""
    totals = {key: torch.cat([part.totals[key] for part in parts]) for key in parts[0].totals}
    groups = {
        key: torch.cat([part.group_return[key] for part in parts]) for key in parts[0].group_return
    }
    return Episodes(totals, groups)


def metrics(env: Any, episodes: Episodes) -> dict[str, float]:
    """What an evaluation logs: returns, lengths and, where there is one, score and shield (per step)."""
    values = {"eval/reward/episode_reward": episodes.totals["return"]}
    for group, value in episodes.group_return.items():
        values[f"eval/{group}/reward/episode_reward"] = value
    task = batched_task(env)
    if task is not None:
        values["eval/score"] = task.score(episodes.totals)
    for name in (CHANGED, SIZE):
        if name in episodes.totals:
            values[f"eval/{name}"] = episodes.totals[name] / episodes.totals["steps"]
    logged = {"eval/reward/episode_len_mean": episodes.totals["steps"].mean().item()}
    for key, value in values.items():
        logged[f"{key}_mean"] = value.mean().item()
        logged[f"{key}_std"] = value.std().item() if value.numel() > 1 else 0.0
        logged[f"{key}_min"] = value.min().item()
        logged[f"{key}_max"] = value.max().item()
    logged["eval/episodes"] = float(episodes.totals["return"].numel())
    return logged
