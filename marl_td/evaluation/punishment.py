"""Do stores punish who undercuts them? One store is made to deviate for one step, and the others answer.

High prices alone do not show collusion: stores may merely not have found out that a cut pays. They collude
if a cut is answered so that it does not pay. The test is that of Calvano et al. 2020, "Artificial
Intelligence, Algorithmic Pricing, and Collusion", American Economic Review 110: with the policies fixed, one
store charges its best response to the others' prices for a single step; what follows is compared with the
same episode left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from marl_td.collect.rng import isolated_rng
from marl_td.evaluation.scores import PolicyFunction
from marl_td.tasks.base import require
from marl_td.tasks.pricing import Pricing
from marl_td.tasks.pricing.optimum import price_points
from marl_td.tasks.vector_env import batched_task

GROUP = "agents"
BEFORE = 3
"""Steps before the cut that are kept."""


@dataclass(frozen=True)
class Punishment:
    """What happened, means over all copies; ``price`` and ``profit`` are ``[n_steps, n_agents]`` in $.

    The first ``BEFORE`` steps precede the cut, the next is the cut, the rest what follows. ``calm_price``
    and ``calm_profit`` are those of the same episodes without a cut.
    """

    deviator: int
    """The store that was made to cut its price."""
    price: Tensor
    profit: Tensor
    calm_price: Tensor
    calm_profit: Tensor
    gap: float
    """Mean distance from Nash to joint price, in $."""
    gamma: float
    """Discount factor of :attr:`net_gain`."""

    @property
    def gain(self) -> float:
        """What the cut earned the deviator in its own step, in $."""
        return float((self.profit - self.calm_profit)[BEFORE, self.deviator])

    @property
    def net_gain(self) -> float:
        """The same with all that followed, discounted, in $: negative if the cut did not pay."""
        extra = (self.profit - self.calm_profit)[BEFORE:, self.deviator]
        return float((extra * self.gamma ** torch.arange(len(extra), device=extra.device)).sum())

    @property
    def cut(self) -> float:
        """How far the deviator cut its price, as a share of the distance Nash to joint price."""
        return float((self.calm_price - self.price)[BEFORE, self.deviator]) / self.gap

    @property
    def answer(self) -> Tensor:
        """How far the others' mean price fell in each step after the cut, likewise, ``[n_after]``."""
        fall = (self.calm_price - self.price)[BEFORE + 1 :]
        others = [i for i in range(fall.shape[-1]) if i != self.deviator]
        return fall[:, others].mean(-1) / self.gap


def punishment(
    env: EnvBase,
    policy: PolicyFunction,
    *,
    deviator: int = 0,
    cut_at: int = 100,
    n_after: int = 15,
    gamma: float = 0.95,
    seed: int = 0,
) -> Punishment:
    """Run every copy of ``env`` with and without a cut of one store's price, under the same random numbers.

    Args:
        env: an environment over ``marl_td/pricing`` without ``inventory``, transforms included.
        policy: writes everybody's actions; it acts without exploration.
        deviator: the store that is made to charge its best response to the others' prices.
        cut_at: step of the cut, counted from 0; prices should have settled by then.
        n_after: steps to watch after it.
        gamma: discount factor for the question whether the cut paid, in [0, 1].
        seed: of the episodes.

    Raises:
        ValueError: for another task, a store that is not there, or an episode that is too short.
    """
    task = batched_task(env)
    if not isinstance(task, Pricing) or task.params.inventory:
        raise ValueError("the punishment test needs the task 'pricing' without inventory.")
    p, last = task.params, cut_at + n_after
    require(0 <= deviator < p.n_agents, f"there is no store {deviator} of {p.n_agents}, from 0.")
    fits = cut_at >= BEFORE and n_after >= 1 and last < p.max_steps
    require(
        fits,
        f"cut_at must be at least {BEFORE}, n_after at least 1 and their sum below max_steps "
        f"{p.max_steps}; got {cut_at} and {n_after}.",
    )
    require(0.0 <= gamma <= 1.0, f"gamma must be in [0, 1]; got {gamma:g}.")
    with _fixed(env, seed):
        price, profit = _played(env, task, policy, last, cut_at, deviator)
    with _fixed(env, seed):
        calm_price, calm_profit = _played(env, task, policy, last, None, deviator)
    nash, joint = price_points(p)
    gap = float((joint - nash).mean())
    kept = slice(cut_at - BEFORE, None)
    return Punishment(
        deviator=deviator,
        price=price[kept],
        profit=profit[kept],
        calm_price=calm_price[kept],
        calm_profit=calm_profit[kept],
        gap=gap,
        gamma=gamma,
    )


@contextmanager
def _fixed(env: EnvBase, seed: int) -> Iterator[None]:
    with isolated_rng(seed), set_exploration_type(ExplorationType.DETERMINISTIC), torch.no_grad():
        env.set_seed(seed)
        yield


def _played(
    env: EnvBase, task: Pricing, policy: Any, last: int, cut_at: int | None, deviator: int
) -> tuple[Tensor, Tensor]:
    """Mean prices and profits of the steps ``0 .. last``, each ``[last + 1, n_agents]``."""
    rows = []
    data = env.reset()
    for step in range(last + 1):
        data = policy(data)
        if step == cut_at:
            cut_price(task, data, deviator)
        stepped = env.step(data)
        info = stepped["next", GROUP, "info"]
        rows.append(torch.stack([info["price"], info["profit"]]).squeeze(-1).double().mean(1))
        data = env.step_mdp(stepped)
    price, profit = torch.stack(rows).unbind(1)
    return price, profit


def cut_price(task: Pricing, data: TensorDictBase, store: int) -> TensorDictBase:
    """Replace the action of ``store`` by its best response to the others' prices of the same step."""
    action: Tensor = data.get((GROUP, "action"))
    changed = action.clone()
    changed[:, store] = task.best_response(task.prices(action))[:, store]
    return data.set((GROUP, "action"), changed)
