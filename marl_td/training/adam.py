"""Adam in one call of torch's fused kernel, on the parameters and the state of an ordinary optimiser."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

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
        self.count.add_(1)
        beta1, beta2 = self.betas
        torch._fused_adam_(
            self.params,
            gradients,
            self.means,
            self.squares,
            [],
            [self.count] * len(self.params),
            lr=self.lr,
            beta1=beta1,
            beta2=beta2,
            eps=self.eps,
            weight_decay=0.0,
            amsgrad=False,
            maximize=False,
            grad_scale=divisor,
        )

    def begin(self) -> None:
        """Before some updates: take over the learning rate, and the state if it was loaded anew."""
        self.lr = float(self.optimiser.param_groups[0]["lr"])
        if self.optimiser.state[self.params[0]]["exp_avg"] is not self.means[0]:
            self.bind()

    def end(self) -> None:
        """After some updates: write the number of steps back into the optimiser's state."""
        torch._foreach_copy_(self.steps, [self.count] * len(self.steps))
