"""Adam on networks that are stacked by agent, for algorithms that move one agent at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class AgentAdam(nn.Module):
    """Adam with a state per agent: a step moves one agent, of the others nothing changes at all.

    An optimiser of torch has one state per tensor. Where a tensor holds every agent's parameters, an agent
    without a gradient would still be moved by its momentum, and its statistics would fade.

    (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 1, as ``torch.optim.Adam`` does it; the
    state is in buffers, so that checkpoints keep it.)

    Args:
        network: whose parameters it moves, each ``[n_agents, ...]``; they stay the network's own.
        n_agents: number of agents.
        lr: learning rate, > 0.
        betas: decay of both moments, in [0, 1).
        eps: added to the denominator, > 0.
        clip_norm: largest norm of an agent's gradient; None for no limit.
        clip_value: largest size of an entry of it; None for no limit.

    Raises:
        ValueError: if a number is out of range, both limits are given, or a parameter is not stacked.
    """

    lr: Tensor
    count: Tensor
    _network: Sequence[nn.Module]

    def __init__(
        self,
        network: nn.Module,
        n_agents: int,
        *,
        lr: float = 5e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__()
        if not (lr > 0.0 and eps > 0.0) or not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(
                "`lr` and `eps` must be above 0 and `betas` in [0, 1); got "
                f"{lr:g}, {eps:g} and {betas}."
            )
        if clip_norm is not None and clip_value is not None:
            raise ValueError("give `clip_norm` or `clip_value`, not both.")
        for name, parameter in network.named_parameters():
            if tuple(parameter.shape[:1]) != (n_agents,):
                raise ValueError(
                    f"the parameter '{name}' has shape {list(parameter.shape)}; agents that move one at a "
                    f"time need networks of their own, stacked as [{n_agents}, ...]."
                )
        self._network = [network]  # in a list, so that its parameters are not listed twice
        self.betas = betas
        self.eps = eps
        self.clip_norm = clip_norm
        self.clip_value = clip_value
        self.register_buffer("lr", torch.tensor(lr), persistent=False)
        self.register_buffer("count", torch.zeros(n_agents))
        for index, parameter in enumerate(self.parameters_moved()):
            self.register_buffer(f"mean_{index}", torch.zeros_like(parameter))
            self.register_buffer(f"square_{index}", torch.zeros_like(parameter))

    def parameters_moved(self) -> list[nn.Parameter]:
        """The parameters, in the order in which :meth:`step` takes their gradients."""
        return list(self._network[0].parameters())

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], moves: Tensor) -> Tensor:
        """Move the agents of ``moves`` in place.

        Args:
            gradients: of :meth:`parameters_moved`; those of other agents may be anything.
            moves: bool ``[n_agents]``.

        Returns:
            norm of the gradient of those that move, before clipping.
        """
        beta1, beta2 = self.betas
        own, norm = self._clipped(gradients, moves)
        self.count += moves
        count = self.count.clamp(min=1.0)
        size, scale = self.lr / (1.0 - beta1**count), (1.0 - beta2**count).sqrt()
        for index, (parameter, gradient) in enumerate(
            zip(self.parameters_moved(), own, strict=True)
        ):
            rows = _rows_of(moves, parameter)
            mean, square = self.get_buffer(f"mean_{index}"), self.get_buffer(f"square_{index}")
            new_mean = torch.where(rows, mean.lerp(gradient, 1.0 - beta1), mean)
            new_square = torch.where(
                rows, beta2 * square + (1.0 - beta2) * gradient.square(), square
            )
            divisor = new_square.sqrt() / _rows_of(scale, parameter) + self.eps
            step = _rows_of(size, parameter) * new_mean / divisor
            mean.copy_(new_mean)
            square.copy_(new_square)
            parameter.sub_(torch.where(rows, step, 0.0))
        return norm

    def _clipped(self, gradients: Sequence[Tensor], moves: Tensor) -> tuple[list[Tensor], Tensor]:
        """Gradients of the agents that move, clipped, and their norm before it."""
        own = [torch.where(_rows_of(moves, grad), grad, 0.0) for grad in gradients]
        norm = torch.stack([grad.square().sum() for grad in own]).sum().sqrt()
        if self.clip_norm is not None:
            factor = (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
            own = [grad * factor for grad in own]
        if self.clip_value is not None:
            own = [grad.clamp(-self.clip_value, self.clip_value) for grad in own]
        return own, norm


def _rows_of(per_agent: Tensor, like: Tensor) -> Tensor:
    """``[n_agents]`` in front of as many dimensions as ``like`` has."""
    return per_agent.reshape(-1, *[1] * (like.ndim - 1))
