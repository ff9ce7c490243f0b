"""What the losses that update one agent after the other share (HAPPO, HATRPO)."""

from collections.abc import Callable, Mapping
from typing import Any

from tensordict import TensorDict, TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModuleBase
from torch import Tensor, nn

from marl_td.losses.advantage import AdvantageLoss
from marl_td.losses.entries import living, require
from marl_td.losses.functional.sequential import sequential_factor
from marl_td.losses.stochastic_actor import action_distribution, log_prob_of
from marl_td.losses.turns import AgentRows, AgentTurns, stacked_parameters


class SequentialLoss(AdvantageLoss):
    """Base of the losses of Kuba et al. 2022 (https://arxiv.org/abs/2109.11251), algorithm 2.

    The ``n_updates`` calls of the loss on one batch are divided among the agents, in a random order that
    :meth:`estimate` draws. Each call changes the policy of one agent; the critic learns in every call. What
    the agents before it in the order have changed counts by the factor M
    (:func:`~marl_td.losses.functional.sequential.sequential_factor`), computed from their present policies:
    they do not change again before the next batch.

    Args:
        actor: one network per agent, all parameters as stacks ``[n_agents, ...]``.
        critic: as in :class:`~marl_td.losses.advantage.AdvantageLoss`.
        n_agents: number of agents.
        n_updates: calls per batch.
        seed: of the orders.
        fixed_order: agent 0 first, every time.
        earlier_groups: actors of other groups that were updated on this batch before, by group. They read
            ``("joint", group, ...)``, where the batch also has their actions and old log-probabilities.
        options: of the class that follows.

    Raises:
        ValueError: if the actor's parameters are no stacks, or ``n_updates`` is below 1.
    """

    rows: AgentRows | None
    turns: AgentTurns
    earlier_groups: dict[str, ProbabilisticTensorDictSequential]

    def __init__(
        self,
        actor: ProbabilisticTensorDictSequential,
        critic: TensorDictModuleBase,
        *,
        n_agents: int,
        n_updates: int,
        seed: int = 0,
        fixed_order: bool = False,
        earlier_groups: Mapping[str, ProbabilisticTensorDictSequential] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(actor, critic, **options)
        stacked_parameters(actor, n_agents)
        self.turns = AgentTurns(n_agents, n_updates, seed=seed, fixed_order=fixed_order)
        # Their own losses own these.
        self.__dict__["earlier_groups"] = dict(earlier_groups or {})
        self.__dict__["rows"] = None

    def begin_batch(self) -> None:
        """Draw the order of the agents."""
        self.turns.begin()

    def agent_parameters(self) -> list[nn.Parameter]:
        """What an optimiser is to be given: every agent's parameters for themselves.

        In a backward pass only those of the agent whose turn it is get a gradient, so that an optimiser with
        momentum leaves the others alone.
        """
        rows = self.rows
        if rows is None:
            stacks = stacked_parameters(self.actor, self.turns.n_agents)
            rows = self.__dict__["rows"] = AgentRows(stacks, self.turns)
        return rows.parameters()

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """As in the base; gradients of the next backward pass are the present agent's."""
        out = super().forward(tensordict)
        if self.rows is not None:
            self.rows.agent = int(self.turns.agent)
        return out

    def factor(
        self,
        tensordict: TensorDictBase,
        log_prob: Tensor,
        old_log_prob: Tensor,
        earlier: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        """M of the agents that had their turn, those of other groups included: ``[*B]``."""
        factor = sequential_factor(log_prob, old_log_prob, earlier, mask)
        for group, actor in self.earlier_groups.items():
            factor = factor * self._factor_of(group, actor, tensordict)
        return factor

    def _factor_of(self, group: str, actor: Any, tensordict: TensorDictBase) -> Tensor:
        """M of all agents of another group, ``[*B]``."""
        data = TensorDict({group: require(tensordict, ("joint", group))}, tensordict.batch_size)
        is_init = tensordict.get("is_init", None)
        if is_init is not None:
            data.set("is_init", is_init)
        *layers, head = actor
        action = require(data, (group, "action"))
        log_prob = log_prob_of(action_distribution(layers, head, data), action)
        old_log_prob = require(data, (group, "log_prob"))
        everyone = log_prob.new_ones(log_prob.shape[-1]).bool()
        alive = living(data, (group, "mask"))
        return sequential_factor(log_prob, old_log_prob, everyone, alive).detach()

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> "SequentialLoss":
        super()._apply(fn)
        if self.rows is not None:
            self.rows.tie()
        return self


def of_agent(value: Tensor, agent: Tensor) -> Tensor:
    """The column ``[*B, 1]`` of the agent with this index, int64 ``[]``, of ``[*B, n_agents]``."""
    return value.index_select(-1, agent.reshape(1))
