"""How much a frozen policy can be exploited: a fresh learner's best response to it, group by group.

What a group gains by switching to its best response, the others frozen, says how far the whole is from an
equilibrium; summed over groups it is NashConv (Lanctot et al. 2017, https://arxiv.org/abs/1711.00832), 0 in
equilibria and nowhere else. A learned response need not be the best one: figures are lower bounds::

    run = load_run(folder, 64)
    for response in exploitability(run, Path("runs/responses"), max_n_frames=1_000_000):
        print(response.group, response.gain)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.envs import EnvBase
from torchrl.envs.utils import set_exploration_type

from marl_td.benchmarl_tasks import FunctionTask
from marl_td.collect.episodes import exploration
from marl_td.evaluation.cross_play import Player, Teams, teams_env, trained_player
from marl_td.evaluation.scores import MAX_COPIES, evaluate_episodes
from marl_td.evaluation.statistics import Interval, mean_interval
from marl_td.tasks.base import Box, Task
from marl_td.tasks.specs import DONE_KEYS, random_available, set_specs
from marl_td.tasks.vector_env import batched_task
from marl_td.training.experiment import Experiment
from marl_td.training.settings import RunSettings
from marl_td.training.trained import TrainedRun


class AgainstFrozen(EnvBase):
    """A task in which only ``group`` acts; every other group is a part of the environment.

    Args:
        task: one of our tasks.
        n_envs: number of copies.
        group: who acts.
        teams: the frozen player of every other group.
        seed: of the task's own random stream.
        deterministic: frozen players take their most likely actions instead of drawing them.

    Raises:
        ValueError: if ``group`` is none of the task's, or another group has no player.
    """

    def __init__(
        self,
        task: Task[Any, Any],
        n_envs: int,
        group: str,
        teams: Mapping[str, Player],
        seed: int | None = 0,
        deterministic: bool = False,
    ) -> None:
        if group not in task.groups:
            raise ValueError(f"task '{task.name}' has no group '{group}'; it has {[*task.groups]}.")
        super().__init__(device=task.device, batch_size=torch.Size([n_envs]))
        learner = Player("learner", {group: lambda td: td})
        everybody = {name: teams[name] for name in task.groups if name in teams and name != group}
        everybody[group] = learner
        self.inner = teams_env(task, n_envs, everybody)
        self.others = Teams(self.inner, everybody)
        self.mode = exploration(deterministic)
        self.task, self.group, spec = task, group, task.groups[group]
        self.group_map = {group: [f"{group}_{i}" for i in range(spec.n_agents)]}
        set_specs(self, {group: spec}, task.d_state, task.info_keys)
        self.shown = [*self.observation_spec.keys(True, True), *DONE_KEYS]
        self.data: TensorDictBase | None = None
        self._set_seed(seed)

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        if mask is None or self.data is None:
            self.data = self.inner.reset()
        else:
            self.data = self.inner.reset(self.data.set("_reset", mask))
        return self._visible(self.data)

    @torch.no_grad()
    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        if self.data is None:
            raise RuntimeError("the environment has no state yet; call env.reset() first.")
        key = (self.group, "action")
        with set_exploration_type(self.mode):
            acted = self.others(self.data.set(key, tensordict.get(key)))
        stepped = self.inner.step(acted)
        self.data = self.inner.step_mdp(stepped)
        after = stepped["next"]
        return self._visible(after).set((self.group, "reward"), after.get((self.group, "reward")))

    def _visible(self, data: TensorDictBase) -> TensorDictBase:
        """What the learning group may see and the root entries, in a new TensorDict."""
        out = TensorDict({}, batch_size=self.batch_size, device=self.device)
        n_agents = self.task.groups[self.group].n_agents
        shape = (*self.batch_size, n_agents)
        out.set(self.group, TensorDict({}, batch_size=shape, device=self.device))
        for key in self.shown:
            out.set(key, data.get(key).clone())
        return out

    def rand_action(self, tensordict: TensorDictBase | None = None) -> TensorDictBase:
        """Write uniformly random actions, drawn among the available ones where there is a mask."""
        out = super().rand_action(tensordict)
        mask = out.get((self.group, "action_mask"), None)
        return out if mask is None else out.set((self.group, "action"), random_available(mask))

    def _set_seed(self, seed: int | None) -> None:
        if seed is not None:
            self.inner.set_seed(seed)


@dataclass(frozen=True)
class Response:
    """What a group makes against the frozen others: its own player, and a fresh learner."""

    group: str
    own: Interval
    """Mean return of the frozen player itself."""
    response: Interval
    """Mean return of the learned response."""

    @property
    def gain(self) -> float:
        """What the group gains by switching: a lower bound of how much the others can be exploited."""
        return self.response.value - self.own.value


def train_response(
    task: Task[Any, Any],
    group: str,
    teams: Mapping[str, Player],
    settings: RunSettings,
    folder: Path,
    *,
    deterministic: bool = False,
) -> Experiment:
    """Train ``group`` from scratch against the frozen ``teams``, into ``folder``.

    Args:
        task: one of our tasks.
        group: who learns.
        teams: the frozen player of every other group.
        settings: algorithm, networks, budget and seed of the learner; its task does not count.
        folder: run folder of the learner; must not hold a run.
        deterministic: see :class:`AgainstFrozen`.
    """

    def make_env(n_envs: int, continuous: bool, seed: int | None, device: Any) -> EnvBase:
        return AgainstFrozen(task, n_envs, group, teams, seed, deterministic)

    continuous = isinstance(task.groups[group].action, Box)
    own_task = FunctionTask(
        f"response_{group}",
        make_env,
        max_steps=task.params.max_steps,
        continuous=continuous,
        discrete=not continuous,
    )
    config = replace(settings.experiment_config, save_folder=str(folder), evaluation=False)
    experiment = Experiment(**{**settings.arguments(), "task": own_task, "config": config})
    experiment.run()
    return experiment


def respond(
    task: Task[Any, Any],
    teams: Mapping[str, Player],
    group: str,
    settings: RunSettings,
    folder: Path,
    *,
    n_episodes: int,
    seed: int,
    deterministic: bool = False,
) -> Response:
    """Train a response of ``group`` to the other ``teams`` and judge it beside the group's own player.

    Args:
        task: one of our tasks.
        teams: the frozen player of every group.
        group: who switches.
        settings: see :func:`train_response`.
        folder: see :func:`train_response`.
        n_episodes: of each judgement, at least 2.
        seed: of the judgements.
        deterministic: see :class:`AgainstFrozen`.

    Raises:
        ValueError: if ``n_episodes`` is below 2, or ``teams`` does not name the groups of the task.
    """
    if n_episodes < 2:
        raise ValueError(
            f"a judgement needs at least 2 episodes, for an interval; got {n_episodes}."
        )
    experiment = train_response(task, group, teams, settings, folder, deterministic=deterministic)
    n_envs = min(n_episodes, MAX_COPIES)
    env = AgainstFrozen(task, n_envs, group, teams, seed, deterministic)
    limit = task.params.max_steps
    learned = evaluate_episodes(env, experiment.policy, n_episodes, seed, max_steps=limit)
    whole = teams_env(task, n_envs, teams)
    own = evaluate_episodes(
        whole, Teams(whole, teams), n_episodes, seed, deterministic=deterministic
    )
    returns = own.group_return[group], learned.group_return[group]
    return Response(group, *(mean_interval(value) for value in returns))


def exploitability(
    run: TrainedRun,
    folder: Path,
    *,
    max_n_frames: int | None = None,
    n_episodes: int = 256,
    seed: int = 0,
    deterministic: bool = False,
) -> Iterator[Response]:
    """For every group of a trained run, a fresh learner's response to the frozen others, one by one.

    The learner has the run's own algorithm, networks and settings, and the seed ``seed``.

    Args:
        run: what was trained, on one of our tasks with several groups.
        folder: a run folder for each group is made in it.
        max_n_frames: environment steps of each learner; None takes the run's own.
        n_episodes: of each judgement, at least 2.
        seed: of learners and judgements.
        deterministic: see :class:`AgainstFrozen`.

    Raises:
        ValueError: if the run's task is none of ours or has a single group.
    """
    task = batched_task(run.env)
    if task is None or len(task.groups) < 2:
        raise ValueError("exploitability needs a run on one of our tasks with several groups.")
    config = run.settings.experiment_config
    if max_n_frames is not None:
        config = replace(config, max_n_frames=max_n_frames)
    settings = replace(run.settings, experiment_config=config, seed=seed)
    teams = dict.fromkeys(task.groups, trained_player("frozen", run))
    for group in task.groups:
        yield respond(
            task,
            teams,
            group,
            settings,
            folder / group,
            n_episodes=n_episodes,
            seed=seed,
            deterministic=deterministic,
        )
