"""Adam as tensor operations inside a compiled update, on the optimiser's own state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from marl_td.losses.turns import AgentRows
from marl_td.models.compiling import NotCompilable

PLAIN_ADAM = {"weight_decay": 0, "amsgrad": False, "maximize": False, "differentiable": False}
"""Adam's options that the compiled update knows, and the values it knows them with."""


class AdamStep:
    """Adam on one loss's parameters as tensor operations, on the optimiser's own state.

    Kingma and Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 1, written as ``torch.optim.Adam`` does it.

    Args:
        optimiser: whose parameters and state are used.
        device: of the learning rate.

    Raises:
        NotCompilable: if it is not a plain Adam with one group of parameters.
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
        """What gradients are taken of."""
        self.betas, self.eps = group["betas"], group["eps"]
        self.lr = torch.tensor(float(group["lr"]), device=device)
        self.bind()

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
        self.count = self.steps[0].detach().clone().to(self.lr.device)

    def __call__(self, gradients: list[Tensor]) -> None:
        """Change the parameters in place."""
        beta1, beta2 = self.betas
        self.count.add_(1)
        size = self.lr / (1 - beta1**self.count)
        scale = (1 - beta2**self.count).sqrt()
        pairs = zip(self.params, gradients, self.means, self.squares, strict=True)
        for param, gradient, mean, square in pairs:
            mean.lerp_(gradient, 1 - beta1)
            square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            param.sub_(size * mean / (square.sqrt() / scale + self.eps))

    def begin(self) -> None:
        """Before some updates: take over the learning rate, and the state if it was loaded anew."""
        group = self.optimiser.param_groups[0]
        self.lr.fill_(float(group["lr"]))
        if self.optimiser.state[self.params[0]]["exp_avg"] is not self.means[0]:
            self.bind()

    def end(self) -> None:
        """After some updates: write the number of steps back into the optimiser's state."""
        for step in self.steps:
            step.copy_(self.count)


class AgentAdamStep(AdamStep):
    """Adam on the rows of stacked parameters ``[n_agents, ...]``: that of the agent whose turn it is moves.

    Gradients are taken of the stacks. The state of each row is a part of one tensor per stack.

    Args:
        optimiser: of the rows, agent by agent.
        device: of the learning rate.
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
        self.count = torch.zeros(self.rows.turns.n_agents, device=self.lr.device)
        for agent, rows in enumerate(self.rows.rows):
            for row, mean, square in zip(rows, self.means, self.squares, strict=True):
                mine = state[row]
                for name, whole in (("exp_avg", mean), ("exp_avg_sq", square)):
                    if name in mine:
                        whole[agent].copy_(mine[name])
                    mine[name] = whole[agent]
                mine.setdefault("step", torch.tensor(0.0))
                self.count[agent] = mine["step"]

    def __call__(self, gradients: list[Tensor]) -> None:
        """Change the agent's parameters in place."""
        beta1, beta2 = self.betas
        turn = torch.arange(len(self.count), device=self.count.device) == self.rows.turns.agent
        self.count.add_(turn)
        # Of agents that have not moved yet the step is not used; it must not be infinite either.
        count = self.count.clamp(min=1.0)
        size = self.lr / (1 - beta1**count)
        scale = (1 - beta2**count).sqrt()
        pairs = zip(self.params, gradients, self.means, self.squares, strict=True)
        for param, gradient, mean, square in pairs:
            ones = [1] * (param.ndim - 1)
            mine, step, root = (x.reshape(-1, *ones) for x in (turn, size, scale))
            mean.copy_(torch.where(mine, mean.lerp(gradient, 1 - beta1), mean))
            moved = square * beta2 + (1 - beta2) * gradient.square()
            square.copy_(torch.where(mine, moved, square))
            change = step * mean / (square.sqrt() / root + self.eps)
            param.sub_(torch.where(mine, change, torch.zeros_like(change)))

    def begin(self) -> None:
        """Before some updates: take over the learning rate, and the state if it was loaded anew."""
        self.lr.fill_(float(self.optimiser.param_groups[0]["lr"]))
        kept = self.optimiser.state[self.rows.rows[0][0]]["exp_avg"]
        if kept.data_ptr() != self.means[0].data_ptr():
            self.bind()

    def end(self) -> None:
        """After some updates: write the numbers of steps back into the optimiser's state."""
        for rows, count in zip(self.rows.rows, self.count.cpu(), strict=True):
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
