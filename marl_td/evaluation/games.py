"""What a value factorisation learns when nothing else is in the way.

The agents' values are free numbers, every transition of the game is in every batch, and the mixer and
the loss are the algorithm's own. What is left in the result is the factorisation: a sum cannot
represent a payoff table that does not add up, a monotone mixer one that is not monotone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.envs.utils import ExplorationType, set_exploration_type

from marl_td.evaluation.table_fit import N_STEPS, MakeLoss, fit, seeded_losses
from marl_td.evaluation.tabular_methods import METHODS
from marl_td.losses.functional.action_values import masked_argmax
from marl_td.losses.q_mixing import MixedQLoss
from marl_td.models.team import TeamNetworks
from marl_td.registry import ALGORITHMS, load
from marl_td.tasks.registry import suggest

LARGEST = 10.0
"""Payoffs are trained in units that make the largest of them this big, so that their scale plays no part."""
MAX_JOINT_ACTIONS = 4096


@dataclass
class GameRun:
    """What one seed learned of a one-step game.

    ``table`` is the learned team value of every joint action, nested like the payoff;
    ``squared_error`` its summed squared distance from the payoff; ``greedy_payoff`` the payoff when
    every agent takes its own best action; ``joint_table`` like ``table`` by the network that is not
    factorised, where the algorithm has one.
    """

    seed: int
    table: list[Any]
    squared_error: float
    greedy_payoff: float
    joint_table: list[Any] | None = None


def payoff_table(payoff: Any) -> Tensor:
    """Payoff as a tensor ``[n_actions_1, .., n_actions_N]``, agent 1 first.

    Raises:
        ValueError: if it is not nested lists of equal lengths, holds a number that is not finite, or
            has more than 4096 joint actions.
    """
    try:
        table = torch.tensor(payoff, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            "the payoff must be nested lists of numbers, one level per agent, all lists of a level "
            f"of equal length; {error}."
        ) from error
    if table.ndim == 0 or table.numel() == 0:
        raise ValueError(
            "the payoff must be nested lists of numbers, one level per agent; got none."
        )
    if not bool(table.isfinite().all()):
        raise ValueError(f"the payoff must hold finite numbers only; got {payoff}.")
    if table.numel() > MAX_JOINT_ACTIONS:
        raise ValueError(
            f"the payoff has {table.numel()} joint actions; at most {MAX_JOINT_ACTIONS} are trained."
        )
    return table


def one_step_batch(payoff: Tensor) -> TensorDict:
    """Every joint action of a one-step game once, ``[n_joint]``, row-major; the state is constant.

    Agents with fewer actions than others have the rest masked.
    """
    n_joint, n_agents, n_actions = payoff.numel(), payoff.ndim, max(payoff.shape)
    ranges = [torch.arange(size) for size in payoff.shape]
    action = torch.stack(torch.meshgrid(*ranges, indexing="ij"), -1).reshape(n_joint, n_agents)
    available = torch.arange(n_actions) < torch.tensor(payoff.shape).unsqueeze(-1)
    observed = {
        "agents": TensorDict(
            {"action_mask": available.expand(n_joint, -1, -1)}, batch_size=[n_joint, n_agents]
        ),
        "state": torch.ones(n_joint, 1),
    }
    batch = TensorDict(observed, batch_size=[n_joint])
    following = batch.clone()
    following["reward"] = payoff.reshape(n_joint, 1)
    following["terminated"] = torch.ones(n_joint, 1, dtype=torch.bool)
    following["done"] = following["terminated"].clone()
    batch["next"] = following
    batch["agents", "action"] = action
    return batch


def game_algorithms() -> list[str]:
    """Names of the algorithms that learn a team value of discrete actions."""
    from marl_td.algorithms.value_based import TeamValueConfig

    return [name for name, path in ALGORITHMS.items() if issubclass(load(path), TeamValueConfig)]


def game_algorithm(name: str) -> MakeLoss:
    """What builds the loss of the algorithm called ``name`` (with or without ``marl_td/``).

    Raises:
        ValueError: if it is unknown or learns no team value.
    """
    short, known = name.removeprefix("marl_td/"), game_algorithms()
    if short in METHODS:
        raise ValueError(
            f"'{name}' learns no team value: use marl_td.evaluation.tabular.train_tabular."
        )
    if short not in known:
        hint = suggest(short, [*known, *METHODS])
        raise ValueError(f"no value-based algorithm '{name}' for games. {hint}")
    config = load(ALGORITHMS[short])()

    def make_loss(networks: TeamNetworks) -> MixedQLoss:
        values = config.value_network(networks, "action_value", networks.team.n_actions)
        loss: MixedQLoss = config.build_loss(values, networks, **config.loss_options())
        return loss

    return make_loss


def train_game(
    payoff: Any,
    algorithm: str,
    seeds: Iterable[int],
    *,
    n_steps: int = N_STEPS,
    on_step: Callable[[], object] | None = None,
) -> list[GameRun]:
    """Train a value-based algorithm on a one-step game, all seeds at once.

    Args:
        payoff: nested lists, one level per agent: the team's payoff of every joint action.
        algorithm: one of :func:`game_algorithms`.
        seeds: one independent run each.
        n_steps: optimiser steps (full batches of all joint actions).
        on_step: called after each step, for a progress bar.

    Returns:
        One :class:`GameRun` per seed, in order.

    Raises:
        ValueError: for a payoff that is no table of finite numbers, an unknown algorithm, no seed or
            ``n_steps`` below 1.
    """
    table = payoff_table(payoff)
    make_loss = game_algorithm(algorithm)
    seeds = list(seeds)
    if not seeds or n_steps < 1:
        raise ValueError(
            f"a game needs at least 1 seed and 1 step; got {len(seeds)} seeds, n_steps={n_steps}."
        )
    scale = float(table.abs().max()) / LARGEST or 1.0
    batch = one_step_batch(table / scale)
    losses = seeded_losses(
        make_loss, seeds, n_states=1, n_agents=table.ndim, n_actions=max(table.shape)
    )
    fitted = fit(losses, batch, n_steps=n_steps, on_step=on_step)
    return [
        game_run(seed, loss, batch, table, scale) for seed, loss in zip(seeds, fitted, strict=True)
    ]


def game_run(
    seed: int, loss: MixedQLoss, batch: TensorDictBase, payoff: Tensor, scale: float = 1.0
) -> GameRun:
    """What a trained loss has learned of a one-step game.

    Args:
        seed: of the run.
        loss: trained on payoffs that were divided by ``scale``.
        batch: see :func:`one_step_batch`.
        payoff: see :func:`payoff_table`.
        scale: see ``loss``.
    """
    # As agents act when they are evaluated: with the means of what they else draw.
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        learned = loss.team_value(batch).reshape(payoff.shape) * scale
        joint = loss.joint_value(batch)
        values = loss.network(batch[0].copy())["agents", "action_value"]
    greedy = masked_argmax(values, batch["agents", "action_mask"][0])
    return GameRun(
        seed=seed,
        table=learned.tolist(),
        squared_error=(learned - payoff).double().square().sum().item(),
        greedy_payoff=payoff[tuple(greedy)].item(),
        joint_table=None if joint is None else (joint.reshape(payoff.shape) * scale).tolist(),
    )
