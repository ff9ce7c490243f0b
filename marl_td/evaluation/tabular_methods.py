"""Independent learners with tables: what each keeps per state, how it looks at it, how it learns.

The tables of many runs are one: ``[n_rows, n_agents, n_actions]``, a row per run and state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from marl_td.evaluation.tabular_settings import TabularSettings
from marl_td.losses.functional.action_values import masked_argmax
from marl_td.losses.functional.policy_hill_climbing import (
    average_policy_update,
    boltzmann_action,
    policy_action,
    wolf_update,
)
from marl_td.losses.functional.tabular import (
    fmq_evaluation,
    hysteretic_update,
    keep_greedy,
    maximum_count_update,
    maximum_update,
    q_update,
    random_greedy,
    recursive_fmq_evaluation,
    recursive_frequency_update,
)

Rows = dict[str, Tensor]
"""Tables by name, ``[n_rows, n_agents, ...]``; every method has ``action_value`` and bootstraps from it."""


@dataclass(frozen=True)
class StepNoise:
    """Everything random of the agents' step."""

    explore: Tensor
    """By which an agent explores or not, uniform in [0, 1), ``[n_runs, n_agents]``."""
    action: Tensor
    """By which an action is drawn, Gumbel, ``[n_runs, n_agents, n_actions]``."""
    tie: Tensor
    """By which one of several best actions is chosen, Gumbel, ``[n_runs, n_agents, n_actions]``."""


class IndependentQ:
    """Decentralised Q-learning, and the base of the others.

    Args:
        settings: see :class:`marl_td.evaluation.tabular_settings.TabularSettings`.
        mask: the agents' actions, ``[n_agents, n_actions]`` bool.
    """

    exploration: ClassVar[str] = "boltzmann"
    """What it was published with."""

    def __init__(self, settings: TabularSettings, mask: Tensor) -> None:
        self.settings = settings
        self.mask = mask
        self.boltzmann = (settings.exploration or self.exploration) == "boltzmann"
        self._all_available = bool(mask.all())

    def start(self, n_rows: int, lowest: float) -> Rows:
        """Fresh tables; ``lowest`` is no higher than any return."""
        return {"action_value": torch.zeros(n_rows, *self.mask.shape)}

    def evaluation(self, rows: Rows) -> Tensor:
        """What the agents choose by, ``[n_rows, n_agents, n_actions]``."""
        return rows["action_value"]

    def greedy(self, rows: Rows) -> Tensor:
        """Actions without exploration, ``[n_rows, n_agents]``."""
        value = self.evaluation(rows)
        return masked_argmax(value, self.mask_of(value))

    def act(self, rows: Rows, noise: StepNoise, step: int) -> Tensor:
        """Actions with exploration, ``[n_rows, n_agents]``."""
        if not self.boltzmann:
            return self.explored(self.exploit(rows, noise), noise)
        value, temperature = self.evaluation(rows), self.settings.temperature(step)
        return boltzmann_action(value, noise.action, temperature, self.mask_of(value))

    def learn(self, rows: Rows, action: Tensor, value_target: Tensor, noise: StepNoise) -> Rows:
        """The tables after a step in the states of ``rows``."""
        new = q_update(rows["action_value"], action, value_target, alpha=self.settings.alpha)
        return {"action_value": new}

    def exploit(self, rows: Rows, noise: StepNoise) -> Tensor:
        """Actions of an agent that does not explore now; ties are broken anew each time."""
        value = self.evaluation(rows)
        return random_greedy(value, noise.action, self.mask_of(value))

    def explored(self, action: Tensor, noise: StepNoise) -> Tensor:
        """``action``, but a random one with probability epsilon."""
        other = masked_argmax(noise.tie, self.mask_of(noise.tie))
        return torch.where(noise.explore < self.settings.epsilon, other, action)

    def mask_of(self, table: Tensor) -> Tensor | None:
        """The mask of ``table``; None where every agent has all actions."""
        return None if self._all_available else self.mask.expand_as(table)


class HystereticQ(IndependentQ):
    """Hysteretic Q-learning."""

    def learn(self, rows: Rows, action: Tensor, value_target: Tensor, noise: StepNoise) -> Rows:
        """The tables after a step in the states of ``rows``."""
        rates = {"alpha": self.settings.alpha, "beta": self.settings.beta}
        return {
            "action_value": hysteretic_update(rows["action_value"], action, value_target, **rates)
        }


class Conventional(IndependentQ):
    """Base of the methods with the social convention: a greedy action stays until another is better."""

    exploration = "epsilon_greedy"

    def greedy(self, rows: Rows) -> Tensor:
        """The actions that the convention keeps."""
        return rows["greedy_action"]

    def exploit(self, rows: Rows, noise: StepNoise) -> Tensor:
        """The same."""
        return rows["greedy_action"]

    def first_greedy(self, n_rows: int) -> Tensor:
        """Any available action to begin with."""
        return self.mask.int().argmax(-1).expand(n_rows, -1).clone()

    def kept(self, rows: Rows, new: Rows, noise: StepNoise) -> Tensor:
        """The greedy actions after ``rows`` have become ``new``."""
        value = self.evaluation(new)
        return keep_greedy(rows["greedy_action"], value, noise.tie, self.mask_of(value))


class DistributedQ(Conventional):
    """Distributed Q-learning: the best that each action ever led to, and the convention."""

    def start(self, n_rows: int, lowest: float) -> Rows:
        """Fresh tables, at ``lowest``."""
        value = torch.full((n_rows, *self.mask.shape), lowest)
        return {"action_value": value, "greedy_action": self.first_greedy(n_rows)}

    def learn(self, rows: Rows, action: Tensor, value_target: Tensor, noise: StepNoise) -> Rows:
        """The tables after a step in the states of ``rows``."""
        new = {"action_value": maximum_update(rows["action_value"], action, value_target)}
        return new | {"greedy_action": self.kept(rows, new, noise)}


class Fmq(IndependentQ):
    """FMQ: Q-learning, acting by what is also often the best."""

    def start(self, n_rows: int, lowest: float) -> Rows:
        """Fresh tables, the maxima at ``lowest``."""
        zeros = torch.zeros(n_rows, *self.mask.shape)
        maximum = torch.full_like(zeros, lowest)
        counts = {"n_maximum": zeros, "n_chosen": zeros.clone()}
        return {"action_value": zeros.clone(), "max_value": maximum, **counts}

    def evaluation(self, rows: Rows) -> Tensor:
        """Q plus the frequent maximum."""
        counts = (rows["max_value"], rows["n_maximum"], rows["n_chosen"])
        return fmq_evaluation(rows["action_value"], *counts, weight=self.settings.fmq_weight)

    def learn(self, rows: Rows, action: Tensor, value_target: Tensor, noise: StepNoise) -> Rows:
        """The tables after a step in the states of ``rows``."""
        new = super().learn(rows, action, value_target, noise)
        counts = (rows["n_maximum"], rows["n_chosen"])
        new["max_value"], new["n_maximum"], new["n_chosen"] = maximum_count_update(
            rows["max_value"], *counts, action, value_target
        )
        return new


class RecursiveFmq(Conventional):
    """Recursive FMQ: between mean and maximum by how often the maximum comes, and the convention."""

    def start(self, n_rows: int, lowest: float) -> Rows:
        """Fresh tables; maxima start at 0, as the values do, with frequency 1."""
        zeros = torch.zeros(n_rows, *self.mask.shape)
        return {
            "action_value": zeros,
            "max_value": zeros.clone(),
            "frequency": torch.ones_like(zeros),
            "greedy_action": self.first_greedy(n_rows),
        }

    def evaluation(self, rows: Rows) -> Tensor:
        """Between mean and maximum."""
        return recursive_fmq_evaluation(rows["action_value"], rows["max_value"], rows["frequency"])

    def learn(self, rows: Rows, action: Tensor, value_target: Tensor, noise: StepNoise) -> Rows:
        """The tables after a step in the states of ``rows``."""
        new = IndependentQ.learn(self, rows, action, value_target, noise)
        new["max_value"], new["frequency"] = recursive_frequency_update(
            rows["max_value"],
            rows["frequency"],
            action,
            value_target,
            alpha_frequency=self.settings.alpha_frequency,
        )
        return new | {"greedy_action": self.kept(rows, new, noise)}


class WolfPhc(IndependentQ):
    """WoLF-PHC: Q-learning, and a policy that climbs towards its greedy action.

    It draws from that policy whatever the exploration: epsilon is on top of it.
    """

    exploration = "epsilon_greedy"

    def start(self, n_rows: int, lowest: float) -> Rows:
        """Fresh tables; policies are uniform."""
        even = self.mask / self.mask.sum(-1, keepdim=True)
        policy = even.expand(n_rows, -1, -1).clone()
        visits = torch.zeros(n_rows, self.mask.shape[0])
        rows = {"policy": policy, "average_policy": policy.clone(), "n_visits": visits}
        return super().start(n_rows, lowest) | rows

    def act(self, rows: Rows, noise: StepNoise, step: int) -> Tensor:
        """Drawn from the policies, or at random with probability epsilon."""
        return self.explored(policy_action(rows["policy"], noise.action), noise)

    def greedy(self, rows: Rows) -> Tensor:
        """The most probable actions."""
        return masked_argmax(rows["policy"], self.mask_of(rows["policy"]))

    def learn(self, rows: Rows, action: Tensor, value_target: Tensor, noise: StepNoise) -> Rows:
        """The tables after a step in the states of ``rows``."""
        new = super().learn(rows, action, value_target, noise)
        new["n_visits"] = rows["n_visits"] + 1.0
        new["average_policy"] = average_policy_update(
            rows["average_policy"], rows["policy"], new["n_visits"]
        )
        value = new["action_value"]
        mask = self.mask_of(value)
        new["policy"] = wolf_update(
            rows["policy"],
            new["average_policy"],
            value,
            random_greedy(value, noise.tie, mask),
            mask,
            delta_win=self.settings.delta_win,
            delta_lose=self.settings.delta_lose,
        )
        return new


METHODS: dict[str, type[IndependentQ]] = {
    "iql_tabular": IndependentQ,
    "distributed_q": DistributedQ,
    "hysteretic_q": HystereticQ,
    "fmq": Fmq,
    "recursive_fmq": RecursiveFmq,
    "wolf_phc": WolfPhc,
}
"""Methods by name."""
