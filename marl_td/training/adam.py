"""Adam in one call of torch's fused kernel, on the parameters and the state of an ordinary optimiser."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from marl_td.losses.turns import AgentRows
from marl_td.models.compiling import NotCompilable

PLAIN_ADAM = {"weight_decay": 0, "amsgrad": False, "maximize": False, "differentiable": False}
"""Adam's options that :class:`AdamStep` knows, and the values it knows them with."""


class AdamStep:
    """Adam on one loss's parameters, on the optimiser's own state.

    Kingma and Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 1. It is ``torch.optim.Adam`` with
    ``fused=True``, without what that does around the kernel: most of the time, for small networks.

    Args:
        optimiser: whose parameters and state are used.
        device: of the parameters.

    Raises:
        NotCompilable: if it is not a plain Adam with one group of parameters, or a parameter is not in order
            in memory.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, device: Any) -> None:
        if type(optimiser) is not torch.optim.Adam or len(optimiser.param_groups) != 1:
            raise NotCompilable(f"the optimiser is a {type(optimiser).__name__}, not a plain Adam")
        self.optimiser = optimiser
        group = optimiser.param_groups[0]
        changed = [name for name, value in PLAIN_ADAM.items() if group[name] != value]
        if changed:
            raise NotCompilable(f"Adam has the options {', '.join(changed)}")
        self.params: list[Tensor] = list(group["params"])
        if not all(param.is_contiguous() for param in self.params):
            raise NotCompilable("a parameter is not contiguous in memory")
        self.betas, self.eps = group["betas"], group["eps"]
        self.bad: Tensor | None = None
        """1 where the next step is to be left out, ``[]``; None takes every step."""
        self.count = torch.zeros((), device=device)
        self.bind()
        self.begin()

    def bind(self) -> None:
        """Make the optimiser's state where it has none yet, and hold on to its tensors."""
        state = self.optimiser.state
        for param in self.params:
            if not state[param]:
                state[param]["step"] = torch.tensor(0.0)
                state[param]["exp_avg"] = torch.zeros_like(param)
                state[param]["exp_avg_sq"] = torch.zeros_like(param)
        self.means: list[Tensor] = [state[param]["exp_avg"] for param in self.params]
        self.squares: list[Tensor] = [state[param]["exp_avg_sq"] for param in self.params]
        self.steps: list[Tensor] = [state[param]["step"] for param in self.params]
        self.count.copy_(self.steps[0])

    @torch.no_grad()
    def __call__(self, gradients: list[Tensor], divisor: Tensor | None = None) -> None:
        """Change the parameters in place; ``gradients``, in memory order, are divided by ``divisor``."""
        self._move(self.params, gradients, self.means, self.squares, self.count, divisor)

    def _move(
        self,
        params: list[Tensor],
        gradients: list[Tensor],
        means: list[Tensor],
        squares: list[Tensor],
        count: Tensor,
        divisor: Tensor | None,
    ) -> None:
        """Count the step in ``count`` ``[]``, and move ``params``."""
        count.add_(1 if self.bad is None else 1.0 - self.bad)
        beta1, beta2 = self.betas
        torch._fused_adam_(
            params,
            gradients,
            means,
            squares,
            [],
            [count] * len(params),
            lr=self.lr,
            beta1=beta1,
            beta2=beta2,
            eps=self.eps,
            weight_decay=0.0,
            amsgrad=False,
            maximize=False,
            grad_scale=divisor,
            found_inf=self.bad,
        )

    def begin(self) -> None:
        """Before some updates: take over the learning rate, and the state if it was loaded anew."""
        self.lr = float(self.optimiser.param_groups[0]["lr"])
        if self.optimiser.state[self.params[0]]["exp_avg"] is not self.means[0]:
            self.bind()

    def end(self) -> None:
        """After some updates: write the number of steps back into the optimiser's state."""
        count = self.count.to(self.steps[0].device)
        torch._foreach_copy_(self.steps, [count] * len(self.steps))


class AgentAdamStep(AdamStep):
    """Adam on the rows of stacked parameters ``[n_agents, ...]``: that of the agent whose turn it is moves.

    Gradients are taken of the stacks. The state of each row is a part of one tensor per stack.

    Args:
        optimiser: of the rows, agent by agent.
        device: of the parameters.
        rows: whose rows they are.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, device: Any, rows: AgentRows) -> None:
        self.rows = rows
        super().__init__(optimiser, device)
        self.params = list(rows.stacked)

    def bind(self) -> None:
        """Put the states of the rows, where they have one yet, into one tensor per stack."""
        state = self.optimiser.state
        self.means = [torch.zeros_like(stack) for stack in self.rows.stacked]
        self.squares = [torch.zeros_like(stack) for stack in self.rows.stacked]
        self.counts = self.count.new_zeros(self.rows.turns.n_agents)
        for agent, rows in enumerate(self.rows.rows):
            for row, mean, square in zip(rows, self.means, self.squares, strict=True):
                mine = state[row]
                for name, whole in (("exp_avg", mean), ("exp_avg_sq", square)):
                    if name in mine:
                        whole[agent].copy_(mine[name])
                    mine[name] = whole[agent]
                mine.setdefault("step", torch.tensor(0.0))
                self.counts[agent] = mine["step"]

    @torch.no_grad()
    def __call__(self, gradients: list[Tensor], divisor: Tensor | None = None) -> None:
        """Change the parameters of the agent whose turn it was in place."""
        agent = self._order[min(self._n_done, len(self._order) - 1)]
        self._n_done += 1
        self._move(
            [row.data for row in self.rows.rows[agent]],
            [gradient[agent] for gradient in gradients],
            [mean[agent] for mean in self.means],
            [square[agent] for square in self.squares],
            self.counts[agent],
            divisor,
        )

    def begin(self) -> None:
        """Before some updates: take over the learning rate, and the state if it was loaded anew."""
        self.lr = float(self.optimiser.param_groups[0]["lr"])
        kept = self.optimiser.state[self.rows.rows[0][0]]["exp_avg"]
        if kept.data_ptr() != self.means[0].data_ptr():
            self.bind()
        # Read once for all: asked at every update, the host would wait for it.
        turns = self.rows.turns
        self._order: list[int] = turns.order_of_updates().tolist()
        self._n_done = int(turns.n_done)

    def end(self) -> None:
        """After some updates: write the numbers of steps back into the optimiser's state."""
        for rows, count in zip(self.rows.rows, self.counts.cpu(), strict=True):
            for row in rows:
                self.optimiser.state[row]["step"].copy_(count)


def adam_step(optimiser: torch.optim.Optimizer, device: Any, loss: Any) -> AdamStep:
    """Adam on the parameters of ``optimiser``, which may be the agents' rows of the loss's stacks.

    Raises:
        NotCompilable: if it is not a plain Adam with one group of parameters.
    """
    rows = getattr(loss, "rows", None)
    if rows is not None and optimiser.param_groups[0]["params"][0] is rows.rows[0][0]:
        return AgentAdamStep(optimiser, device, rows)
    return AdamStep(optimiser, device)
