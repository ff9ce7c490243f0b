"""Independent learners with tables on small games, all runs at once.

The loop is over the steps only. Every run has random numbers of its own, from its seed: it is the same
alone or among others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from marl_td.evaluation.games import GameRun, payoff_table
from marl_td.evaluation.tabular_methods import METHODS, IndependentQ, Rows, StepNoise
from marl_td.evaluation.tabular_settings import TabularSettings
from marl_td.losses.functional.action_values import masked_max
from marl_td.losses.functional.deterministic import gumbel_of_uniform
from marl_td.losses.functional.returns import one_step_target
from marl_td.tasks.registry import suggest

N_TRIALS = 5000
CHUNK = 250
"""Steps whose random numbers are drawn together."""


@dataclass(frozen=True)
class ListedGame:
    """A cooperative Markov game as lists, every agent seeing the state; it starts in state 0.

    Joint actions are numbered row-major, agent 1 outermost.

    Args:
        reward: ``[n_outcomes, n_states, n_joint]``: the team's rewards, all outcomes equally likely.
        next_state: ``[n_states, n_joint]`` int64.
        terminated: ``[n_states, n_joint]`` bool.
        n_actions: number of actions of each agent.
    """

    reward: Tensor
    next_state: Tensor
    terminated: Tensor
    n_actions: tuple[int, ...]

    @property
    def mask(self) -> Tensor:
        """Which actions the agents have, ``[n_agents, n_actions]`` bool."""
        sizes = torch.tensor(self.n_actions)
        return torch.arange(max(self.n_actions)) < sizes.unsqueeze(-1)

    def strides(self) -> Tensor:
        """What turns actions into the number of the joint action, ``[n_agents]``."""
        return torch.tensor(torch.empty(self.n_actions).stride())


def one_step_game(payoffs: Sequence[Any]) -> ListedGame:
    """The game of one step that pays what one of the tables says, each as likely.

    Args:
        payoffs: one table or more of the same shape, see :func:`marl_td.evaluation.games.payoff_table`.

    Raises:
        ValueError: if one is no table, there is none, or the shapes differ.
    """
    tables = [payoff_table(payoff) for payoff in payoffs]
    if len({table.shape for table in tables}) != 1:
        raise ValueError(
            "a game needs payoff tables of one shape, at least one; "
            f"got {[tuple(table.shape) for table in tables]}."
        )
    n_joint = tables[0].numel()
    return ListedGame(
        reward=torch.stack([table.reshape(1, n_joint) for table in tables]),
        next_state=torch.zeros(1, n_joint, dtype=torch.int64),
        terminated=torch.ones(1, n_joint, dtype=torch.bool),
        n_actions=tuple(tables[0].shape),
    )


@dataclass
class Played:
    """What all runs have learned.

    ``tables`` are the method's, ``[n_runs, n_states, n_agents, ...]``; ``greedy_action``
    ``[n_runs, n_states, n_agents]`` is what the agents would do without exploration.
    """

    tables: Rows
    greedy_action: Tensor


def play(
    game: ListedGame,
    method: IndependentQ,
    seeds: Sequence[int],
    n_steps: int,
    on_step: Callable[[], object] | None = None,
) -> Played:
    """Let the agents play and learn.

    Args:
        game: what is played.
        method: how they learn, made with ``game.mask``.
        seeds: one independent run each.
        n_steps: steps of the game, over all its episodes.
        on_step: called after each step.
    """
    n_runs, n_states = len(seeds), game.reward.shape[1]
    n_agents, n_actions = method.mask.shape
    mask, strides = method.mask.expand(n_runs, n_agents, n_actions), game.strides()
    first_row = n_states * torch.arange(n_runs)
    state = torch.zeros(n_runs, dtype=torch.int64)
    tables = method.start(n_runs * n_states, lowest=_lowest(game, method.settings.gamma))
    for step, (outcome, noise) in enumerate(_noise(seeds, n_agents, n_actions, n_steps)):
        at = first_row + state
        rows = {name: table.index_select(0, at) for name, table in tables.items()}
        action = method.act(rows, noise, step)
        joint = (action * strides).sum(-1)
        reward = game.reward[(outcome * len(game.reward)).long(), state, joint]
        terminated, following = game.terminated[state, joint], game.next_state[state, joint]
        next_value = masked_max(tables["action_value"].index_select(0, first_row + following), mask)
        value_target = one_step_target(
            reward.unsqueeze(-1).expand_as(next_value),
            next_value,
            terminated.unsqueeze(-1).expand_as(next_value),
            gamma=method.settings.gamma,
        )
        for name, new in method.learn(rows, action, value_target, noise).items():
            tables[name].index_copy_(0, at, new)
        state = torch.where(terminated, 0, following)
        if on_step is not None:
            on_step()
    greedy = method.greedy(tables)
    return Played(
        {name: table.unflatten(0, (n_runs, n_states)) for name, table in tables.items()},
        greedy.unflatten(0, (n_runs, n_states)),
    )


def _lowest(game: ListedGame, gamma: float) -> float:
    """A number below every return."""
    lowest = game.reward.min().item()
    if bool(game.terminated.all()) or lowest >= 0.0:
        return lowest
    return lowest / max(1.0 - gamma, 1e-3)


def _noise(
    seeds: Sequence[int], n_agents: int, n_actions: int, n_steps: int
) -> Iterator[tuple[Tensor, StepNoise]]:
    """Per step the outcome ``[n_runs]`` of the payoffs, uniform in [0, 1), and the agents' noise."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    width = n_agents * (1 + 2 * n_actions) + 1
    for start in range(0, n_steps, CHUNK):
        size = min(CHUNK, n_steps - start)
        drawn = torch.stack([torch.rand(size, width, generator=each) for each in generators], 1)
        outcome, agents = drawn[..., 0], drawn[..., 1:].unflatten(-1, (n_agents, -1))
        explore, (action, tie) = agents[..., 0], gumbel_of_uniform(agents[..., 1:]).chunk(2, -1)
        for step in zip(outcome, explore, action, tie, strict=True):
            yield step[0], StepNoise(*step[1:])


@dataclass
class TabularRun(GameRun):
    """What one seed's independent learners made of a one-step game.

    ``values`` are each agent's own, of its own actions; ``table`` is their mean over the agents, for every
    joint action: what the team's payoff looks like to agents that see their own action only.
    ``greedy_action`` is the joint action without exploration and ``greedy_payoff`` what it pays, on
    average where payoffs are random.
    """

    values: list[list[float]] = field(default_factory=list)
    greedy_action: list[int] = field(default_factory=list)


def train_tabular(
    payoff: Any,
    method: str,
    seeds: Iterable[int],
    *,
    other_payoffs: Sequence[Any] = (),
    n_trials: int = N_TRIALS,
    settings: TabularSettings | None = None,
    on_step: Callable[[], object] | None = None,
) -> list[TabularRun]:
    """Train independent learners with tables on a one-step game, all seeds at once.

    Args:
        payoff: nested lists, one level per agent: the team's payoff of every joint action.
        method: one of :data:`marl_td.evaluation.tabular_methods.METHODS` (with or without ``marl_td/``).
        seeds: one independent run each.
        other_payoffs: further tables of the same shape: each trial pays by one of all tables, each as likely.
        n_trials: how often the game is played.
        settings: None takes the defaults, with temperatures for payoffs of this size.
        on_step: called after each trial, for a progress bar.

    Returns:
        One :class:`TabularRun` per seed, in order.

    Raises:
        ValueError: for a payoff that is no table of finite numbers, an unknown method, no seed or
            ``n_trials`` below 1.
    """
    game = one_step_game([payoff, *other_payoffs])
    short = method.removeprefix("marl_td/")
    if short not in METHODS:
        raise ValueError(f"no tabular method '{method}'. {suggest(short, METHODS)}")
    seeds = list(seeds)
    if not seeds or n_trials < 1:
        raise ValueError(
            f"a game needs at least 1 seed and 1 trial; got {len(seeds)} seeds, n_trials={n_trials}."
        )
    if settings is None:
        settings = default_settings(game)
    played = play(game, METHODS[short](settings, game.mask), seeds, n_trials, on_step)
    return _tabular_runs(seeds, game, played)


def default_settings(game: ListedGame) -> TabularSettings:
    """The defaults are for payoffs of about 10; temperatures scale with the payoffs."""
    return TabularSettings().in_units(game.reward.abs().max().item() / 10.0 or 1.0)


def _tabular_runs(seeds: Sequence[int], game: ListedGame, played: Played) -> list[TabularRun]:
    payoff = game.reward.mean(0).reshape(game.n_actions)
    runs = []
    for i, seed in enumerate(seeds):
        rows = played.tables["action_value"][i, 0]
        own = [row[:n] for row, n in zip(rows, game.n_actions, strict=True)]
        table = torch.stack(torch.meshgrid(*own, indexing="ij")).mean(0)
        greedy = played.greedy_action[i, 0].tolist()
        run = TabularRun(
            seed=seed,
            table=table.tolist(),
            squared_error=(table - payoff).double().square().sum().item(),
            greedy_payoff=payoff[tuple(greedy)].item(),
            values=[row.tolist() for row in own],
            greedy_action=greedy,
        )
        runs.append(run)
    return runs
