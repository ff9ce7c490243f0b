"""Updates of one agent at a time: whose turn it is, and parameters that stay as they are until it comes."""

from collections.abc import Iterable
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from marl_td.losses.functional.agent_order import agent_order
from marl_td.losses.functional.checks import check_count
from marl_td.losses.functional.sequential import turn_position


class Turn(NamedTuple):
    """One update of one agent."""

    agent: Tensor
    """Its index, int64 ``[]``."""
    earlier: Tensor
    """Who had a turn before it, bool ``[n_agents]``."""
    n_before: Tensor
    """Updates in this turn so far, int64 ``[]``."""


class AgentTurns(nn.Module):
    """A random order of the agents for every batch, and the updates on it divided among them.

    The order of the k-th batch is a function of the seed and k, and k is part of the state dict (as are the
    order and the number of updates done): a resumed run goes on with the same orders.

    Args:
        n_agents: number of agents.
        n_updates: updates on one batch, at least 1; agent by agent as
            :func:`~marl_td.losses.functional.sequential.turn_position` divides them.
        seed: of the orders.
        fixed_order: agent 0 first, every time.

    Raises:
        ValueError: if ``n_updates`` is below 1.
    """

    order: Tensor
    agent: Tensor
    n_done: Tensor
    n_batches: Tensor

    def __init__(
        self, n_agents: int, n_updates: int, *, seed: int = 0, fixed_order: bool = False
    ) -> None:
        super().__init__()
        check_count(n_updates=n_updates)
        self.n_agents = n_agents
        self.n_updates = n_updates
        self.seed = seed
        self.fixed_order = fixed_order
        self.register_buffer("n_batches", torch.tensor(0))
        self.register_buffer("order", torch.arange(n_agents))
        self.register_buffer("n_done", torch.tensor(0))
        # Whose turn the last update was.
        self.register_buffer("agent", self.order[0].clone())

    def begin(self) -> None:
        """A new batch: a new order, nobody has had a turn."""
        self.n_done.zero_()
        self.order.copy_(self.order_of(self.n_batches))
        self.n_batches.add_(1)

    def order_of(self, n_batches: Tensor) -> Tensor:
        """The order of the batch with this number (int64, from 0), ``[n_agents]`` on its device."""
        if self.fixed_order:
            return torch.arange(self.n_agents, device=n_batches.device)
        return agent_order(n_batches.new_tensor(self.seed), n_batches, self.n_agents)

    def order_of_updates(self) -> Tensor:
        """Whose turn each update on this batch is, int64 ``[n_updates]``."""
        n_done = torch.arange(self.n_updates, device=self.order.device)
        return self.order[turn_position(n_done, self.n_updates, self.n_agents)]

    def next(self) -> Turn:
        """Whose turn the next update is; counted while training."""
        position = turn_position(self.n_done, self.n_updates, self.n_agents)
        first = -(-position * self.n_updates // self.n_agents)
        self.agent.copy_(self.order.gather(0, position.reshape(1)).squeeze(0))
        # The inverse of the order says where in it each agent stands.
        turn = Turn(self.agent.clone(), self.order.argsort() < position, self.n_done - first)
        if self.training:
            self.n_done.add_(1)
        return turn


class AgentRows:
    """Each agent's row of stacked parameters ``[n_agents, ...]`` as parameters of its own.

    What an optimiser does not find a gradient for it leaves as it is, momentum included; of stacked
    parameters it would move all rows. So it is given the rows, which share their memory with the stacks, and
    after a backward pass only those of the agent whose turn it is have a gradient.

    Args:
        stacked: parameters ``[n_agents, ...]`` of the agents' networks.
        turns: whose :attr:`~AgentTurns.agent` has the turn.
    """

    def __init__(self, stacked: Iterable[nn.Parameter], turns: AgentTurns) -> None:
        self.stacked = list(stacked)
        self.turns = turns
        self.agent = 0
        # By agent, then by stack.
        self.rows = [
            [nn.Parameter(stack.detach()[agent]) for stack in self.stacked]
            for agent in range(turns.n_agents)
        ]
        for index, stack in enumerate(self.stacked):
            stack.register_post_accumulate_grad_hook(partial(self._hand_on, index))

    def parameters(self) -> list[nn.Parameter]:
        """All rows, agent by agent."""
        return [row for rows in self.rows for row in rows]

    def tie(self) -> None:
        """Share memory with the stacks again, after their tensors were replaced."""
        for agent, rows in enumerate(self.rows):
            for row, stack in zip(rows, self.stacked, strict=True):
                row.data = stack.detach()[agent]

    def _hand_on(self, index: int, stack: Tensor) -> None:
        """Give the gradient of a stack to the row of the agent whose turn it is."""
        if stack.grad is None:  # the hook runs when there is one
            return
        gradient, row = stack.grad[self.agent], self.rows[self.agent][index]
        row.grad = gradient if row.grad is None else row.grad + gradient
        stack.grad = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "AgentRows":
        """The rows of the copied stacks."""
        return AgentRows(deepcopy(self.stacked, memo), deepcopy(self.turns, memo))


def stacked_parameters(actor: nn.Module, n_agents: int) -> list[nn.Parameter]:
    """The parameters of an actor that has one network per agent, each ``[n_agents, ...]``.

    Raises:
        ValueError: naming a parameter that is not such a stack.
    """
    parameters = dict(actor.named_parameters())
    for name, parameter in parameters.items():
        if parameter.ndim == 0 or parameter.shape[0] != n_agents:
            raise ValueError(
                f"agents that are updated one after the other need a network each, as stacks of parameters "
                f"[{n_agents}, ...]; the actor's '{name}' has shape {list(parameter.shape)}. Use a network "
                "with share_params=False that keeps such stacks (layers/mlp, layers/cnn, layers/marl_td/gru)."
            )
    return list(parameters.values())
