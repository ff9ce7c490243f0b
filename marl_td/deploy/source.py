"""A policy to export, and what is known of where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensordict.nn import TensorDictModuleBase
from torchrl.envs import EnvBase

from marl_td.deploy.samples import EntrySpec, entry_specs
from marl_td.deploy.steps import Key
from marl_td.deploy.task_text import action_components, task_sections
from marl_td.training.settings import RunSettings
from marl_td.training.trained import load_run


@dataclass(frozen=True)
class PolicySource:
    """A policy of all groups, in an environment's terms.

    Args:
        policies: the training policy of each group.
        group_map: the agents of each group.
        specs: every observation and action, without the batch.
        settings: what it was built from.
        texts: what the task says about its observations and actions.
        actions: per group names and units of discrete actions, or of the numbers of a continuous one.
        folder: the run's folder, if there is one.
    """

    policies: dict[str, TensorDictModuleBase]
    group_map: dict[str, list[str]]
    specs: dict[Key, EntrySpec]
    settings: RunSettings
    texts: dict[str, str]
    actions: dict[str, tuple[dict[str, str], ...]]
    folder: Path | None = None


def policy_source(
    policy: Any, env: EnvBase, settings: RunSettings, folder: Path | None = None
) -> PolicySource:
    """The source of a policy for collection (BenchMARL's: one module after the other, one for each group)."""
    group_map = settings.task_config.group_map(env)
    policies = {
        group: policy.select_subsequence(out_keys=[(group, "action")])[0] for group in group_map
    }
    return PolicySource(
        policies,
        group_map,
        entry_specs(env),
        settings,
        task_sections(env),
        action_components(env),
        folder,
    )


def run_source(folder: Path, env: str | None = None) -> PolicySource:
    """The policy of a run folder.

    Args:
        folder: what ``marl-td train --out`` wrote.
        env: import path of the environment, for a run on one of the user's own.

    Raises:
        ValueError: if the folder holds no run, or its files do not fit together.
        ImportError: if the task needs a package that is not installed.
    """
    run = load_run(folder, 1, device="cpu", env=env)
    return policy_source(run.policy, run.env, run.settings, folder)
