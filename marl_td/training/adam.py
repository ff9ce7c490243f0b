"""Adam as tensor operations, for graphs of whole optimiser steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

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
