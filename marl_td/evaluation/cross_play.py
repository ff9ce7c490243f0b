"""Policies of different origin in one environment: one run's first team against another's second.

Teams that were trained against each other say little about how good they are: both may be weak. Cross-play
lets every team meet every other one::

    run, other = load_run(folder, 64), load_run(other_folder, 64)
    players = [trained_player("mappo", run), trained_player("maddpg", other), random_player()]
    for match in cross_play(task, players, n_episodes=64, seed=0):
        print(match.first, match.second, match.group_return)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NamedTuple

from tensordict import TensorDictBase
from torchrl.data import Unbounded
from torchrl.envs import (
    Compose,
    EnvBase,
    InitTracker,
    TensorDictPrimer,
    Transform,
    TransformedEnv,
)

from marl_td.collect.bookkeeping import Bookkeeping
from marl_td.collect.episodes import Episodes
from marl_td.collect.history import ActionHistory
from marl_td.collect.last_action import LastAction
from marl_td.collect.sub_policy import DrawSubPolicy
from marl_td.evaluation.baselines import RANDOM
from marl_td.evaluation.scores import MAX_COPIES, PolicyFunction, evaluate_episodes
from marl_td.evaluation.statistics import Interval, mean_interval
from marl_td.models.compiling import NotCompilable
from marl_td.tasks.base import Box, Policy, Task
from marl_td.tasks.specs import RandomActions
from marl_td.tasks.vector_env import VectorEnv, batched_task


@dataclass(frozen=True)
class Player:
    """What can act for one group or for several.

    ``policies`` has a policy per group; a group without one acts at random. Of what a policy writes, only
    the entries of its group count. ``env`` is an environment that the policies were trained in: its
    transforms (hidden states, last actions, first steps) are set up for them again.
    """

    name: str
    policies: Mapping[str, PolicyFunction] = field(default_factory=dict)
    env: EnvBase | None = None


def trained_player(name: str, run: Any) -> Player:
    """The policies of a :class:`~marl_td.training.trained.TrainedRun`."""
    groups = run.env.group_map
    policies = {g: run.policy.select_subsequence(out_keys=[(g, "action")]) for g in groups}
    return Player(name, policies, run.env)


def rule_player(name: str, rule: Policy, groups: Iterable[str]) -> Player:
    """A policy by rule that acts for all ``groups``, such as one of ``task.baselines()``."""
    return Player(name, dict.fromkeys(groups, rule))


def random_player() -> Player:
    """Uniformly random (available) actions in every group."""
    return Player(RANDOM)


class Teams:
    """The policy of groups of ``task`` that have a player each."""

    def __init__(self, task: Task[Any, Any], teams: Mapping[str, Player]) -> None:
        at_random = {g: RandomActions({g: task.groups[g]}, task.device) for g in teams}
        self.act = {g: player.policies.get(g, at_random[g]) for g, player in teams.items()}

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write every group's entries; no policy reads what another has written."""
        out = tensordict.clone(recurse=False)
        for group, act in self.act.items():
            acted = act(tensordict.clone(recurse=False))
            out.update(acted.select(group, ("next", group), strict=False))
        return out


def teams_env(task: Task[Any, Any], n_envs: int, teams: Mapping[str, Player]) -> EnvBase:
    """``n_envs`` copies of ``task``, with the transforms that each group's player acts under.

    Raises:
        ValueError: if ``teams`` does not name the groups of the task, or a player cannot play it.
    """
    if set(teams) != set(task.groups):
        raise ValueError(
            f"every group needs a player: task '{task.name}' has {sorted(task.groups)}, "
            f"got {sorted(teams)}."
        )
    transforms: list[Transform] = []
    for group, player in teams.items():
        if player.env is not None:
            transforms += _transforms(task, group, player)
    env = VectorEnv(task, n_envs)
    return TransformedEnv(env, Compose(*_once(transforms))) if transforms else env


def _transforms(task: Task[Any, Any], group: str, player: Player) -> list[Transform]:
    """What the environment of ``player`` adds to the entries of ``group``."""
    theirs: Any = batched_task(player.env) if player.env is not None else None
    if theirs is None or theirs.groups != task.groups:
        raise ValueError(
            f"'{player.name}' was not trained on a task like '{task.name}': agents, observations and "
            f"actions of all groups must be the same.{_kinds(task, theirs)}"
        )
    try:
        known = Bookkeeping(player.env)
    except NotCompilable as reason:
        raise ValueError(f"'{player.name}' cannot play with others: {reason}.") from reason
    found: list[Transform] = []
    if known.init_key is not None:
        found.append(InitTracker(init_key=known.init_key[0]))
    for path, (shape, value) in known.primers.items():
        if path[0] == group:
            primer = {path: Unbounded(shape)}
            found.append(TensorDictPrimer(primer, default_value=value, expand_specs=True))
    if group in known.last_actions:
        found.append(LastAction({group: known.last_actions[group]}))
    if group in known.ensembles:
        found.append(DrawSubPolicy({group: known.ensembles[group]}))
    return found + [ActionHistory(h.groups, h.length) for h in known.histories]


def _kinds(task: Task[Any, Any], theirs: Any) -> str:
    """A sentence where one has continuous actions and the other discrete ones, which is easy to overlook."""
    if theirs is None or theirs.groups.keys() != task.groups.keys():
        return ""
    for group, spec in task.groups.items():
        ours, own = spec.action, theirs.groups[group].action
        if type(ours) is not type(own):
            return (
                f" Its '{group}' was trained with {_kind(own)} actions, this task has {_kind(ours)} ones: "
                "train with `experiment.prefer_continuous_actions`, or make the task with `continuous`, as "
                "the other."
            )
    return ""


def _kind(action: Any) -> str:
    return "continuous" if isinstance(action, Box) else "discrete"


def _once(transforms: list[Transform]) -> list[Transform]:
    """First steps and histories, which are the same for all groups, once each.

    Raises:
        ValueError: if players remember histories of different kinds.
    """
    starts = [t for t in transforms if isinstance(t, InitTracker)]
    histories = [t for t in transforms if isinstance(t, ActionHistory)]
    if any((h.length, h.groups) != (histories[0].length, histories[0].groups) for h in histories):
        lengths = sorted({h.length for h in histories})
        raise ValueError(
            "players that remember histories of different kinds cannot play together; got lengths "
            f"{lengths}. Train them with the same history_length."
        )
    others = [t for t in transforms if not isinstance(t, InitTracker | ActionHistory)]
    return [*starts[:1], *histories[:1], *others]


def play(
    task: Task[Any, Any],
    teams: Mapping[str, Player],
    n_episodes: int,
    seed: int,
    *,
    deterministic: bool = True,
) -> Episodes:
    """Sums of every episode with a player for each group.

    The same seed gives all players the same starts and the same noise of our tasks.

    Args:
        task: one of our tasks.
        teams: the player of every group.
        n_episodes: number of episodes, at least 1.
        seed: of the environment and of the policies' own randomness.
        deterministic: take the policies' most likely actions instead of drawing them.

    Raises:
        ValueError: if ``teams`` does not name the groups of the task, a player cannot play it, or
            ``n_episodes`` is below 1.
    """
    env = teams_env(task, max(1, min(n_episodes, MAX_COPIES)), teams)
    policy = Teams(task, teams)
    return evaluate_episodes(env, policy, n_episodes, seed, deterministic=deterministic)


class Match(NamedTuple):
    """One pairing: who acted for the first and for the second group, and each group's mean return."""

    first: str
    second: str
    group_return: dict[str, Interval]


def cross_play(
    task: Task[Any, Any],
    players: Sequence[Player],
    n_episodes: int,
    seed: int,
    *,
    skip: Collection[tuple[str, str]] = (),
    deterministic: bool = True,
) -> Iterator[Match]:
    """Every player as the first group against every player as the second, one match after the other.

    Args:
        task: a task of two groups.
        players: with different names.
        n_episodes: of each match, at least 2.
        seed: the same for every match.
        skip: pairs of names that are not played.
        deterministic: see :func:`play`.

    Raises:
        TypeError: if ``task`` is no task, or a player is none.
        ValueError: if the task has not two groups, names are not different, or ``n_episodes`` is below 2.
    """
    if not isinstance(task, Task):
        raise TypeError(f"`task` must be a task, such as make_task('simple_tag'); got {task!r}.")
    for player in players:
        if not isinstance(player, Player):
            raise TypeError(
                f"`players` must be Players; got {type(player).__name__}. Of a run make one with "
                "`trained_player(name, run)`."
            )
    names = [player.name for player in players]
    if len(task.groups) != 2:
        raise ValueError(
            f"cross-play needs a task of two groups; '{task.name}' has {sorted(task.groups)}."
        )
    if len(set(names)) < len(names):
        raise ValueError(f"every player needs a name of its own; got {sorted(names)}.")
    if n_episodes < 2:
        raise ValueError(f"a match needs at least 2 episodes, for an interval; got {n_episodes}.")
    return _matches(task, players, n_episodes, seed, set(skip), deterministic)


def _matches(
    task: Task[Any, Any],
    players: Sequence[Player],
    n_episodes: int,
    seed: int,
    skip: set[tuple[str, str]],
    deterministic: bool,
) -> Iterator[Match]:
    for pair in product(players, players):
        first, second = (player.name for player in pair)
        if (first, second) in skip:
            continue
        teams = dict(zip(task.groups, pair, strict=True))
        episodes = play(task, teams, n_episodes, seed, deterministic=deterministic)
        intervals = {g: mean_interval(value) for g, value in episodes.group_return.items()}
        yield Match(first, second, intervals)


def strength(
    matches: Iterable[Match],
    group: str,
    counts: Callable[[str, str], bool] = lambda own, other: own != other,
) -> dict[str, float]:
    """Mean return of every player as ``group``, over the opponents that count.

    Args:
        matches: what was played; all players should have met the same opponents.
        group: whose return.
        counts: tells by the names of a player and its opponent whether their match counts; by default
            all but a player's match against itself, which was trained against it.

    Raises:
        ValueError: if no match had this group.
    """
    found: dict[str, list[float]] = {}
    for match in matches:
        if group not in match.group_return:
            raise ValueError(f"no group '{group}'; the matches had {sorted(match.group_return)}.")
        is_first = next(iter(match.group_return)) == group
        own, other = (match.first, match.second) if is_first else (match.second, match.first)
        if counts(own, other):
            found.setdefault(own, []).append(match.group_return[group].value)
    if not found:
        raise ValueError("no match counts.")
    return {name: sum(values) / len(values) for name, values in found.items()}
