"""Adam on networks that are stacked by agent, for algorithms that move one agent at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from marl_td.losses.arguments import none_if_off
from marl_td.losses.turns import stacked_parameters


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
        clip_norm: largest norm of an agent's gradient; None or 0 for no limit.
        clip_value: largest size of an entry of it; None or 0 for no limit.

    Raises:
        ValueError: if a number is out of range, both limits are given, or a parameter is not stacked.
    """

    lr: Tensor
    count: Tensor
    mean: Tensor
    square: Tensor
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
        self.clip_norm = none_if_off("clip_norm", clip_norm)
        self.clip_value = none_if_off("clip_value", clip_value)
        if self.clip_norm is not None and self.clip_value is not None:
            raise ValueError("give `clip_norm` or `clip_value`, not both.")
        stacked_parameters(network, n_agents)
        self._network = [network]  # in a list, so that its parameters are not listed twice
        self.betas = betas
        self.eps = eps
        self.register_buffer("lr", torch.tensor(lr), persistent=False)
        self.register_buffer("count", torch.zeros(n_agents))
        flat = _flat(self.parameters_moved()).detach()
        self.register_buffer("mean", torch.zeros_like(flat))
        self.register_buffer("square", torch.zeros_like(flat))

    def parameters_moved(self) -> list[nn.Parameter]:
        """The parameters, in the order in which :meth:`step` takes their gradients."""
        return list(self._network[0].parameters())

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], moves: Tensor) -> Tensor:
        """Move the agents of ``moves`` in place, or nobody where the norm is not finite.

        Args:
            gradients: of :meth:`parameters_moved`; those of other agents may be anything.
            moves: bool ``[n_agents]``.

        Returns:
            norm of the gradient of those that move, before clipping.
        """
        beta1, beta2 = self.betas
        rows = moves.unsqueeze(-1)
        # All parameters as one row per agent: in a graph that is one kernel, whatever the network.
        gradient, norm = self._clipped(torch.where(rows, _flat(gradients), 0.0))
        # No trainer can leave this step out: it is taken inside the loss, in a graph.
        moves = moves & norm.isfinite()
        rows = moves.unsqueeze(-1)
        self.count += moves
        count = self.count.clamp(min=1.0).unsqueeze(-1)
        mean = torch.where(rows, self.mean.lerp(gradient, 1.0 - beta1), self.mean)
        faded = beta2 * self.square + (1.0 - beta2) * gradient.square()
        square = torch.where(rows, faded, self.square)
        divisor = square.sqrt() / (1.0 - beta2**count).sqrt() + self.eps
        step = torch.where(rows, self.lr / (1.0 - beta1**count) * mean / divisor, 0.0)
        self.mean.copy_(mean)
        self.square.copy_(square)
        params = self.parameters_moved()
        parts = step.split([parameter[0].numel() for parameter in params], dim=-1)
        for parameter, part in zip(params, parts, strict=True):
            parameter.sub_(part.reshape(parameter.shape))
        return norm

    def _clipped(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient ``[n_agents, n]`` clipped, and its norm before it."""
        norm = gradient.square().sum().sqrt()
        if self.clip_norm is not None:
            gradient = gradient * (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        if self.clip_value is not None:
            gradient = gradient.clamp(-self.clip_value, self.clip_value)
        return gradient, norm


def _flat(stacked: Sequence[Tensor]) -> Tensor:
    """Tensors ``[n_agents, ...]`` side by side, ``[n_agents, n]``."""
    return torch.cat([tensor.flatten(1) for tensor in stacked], dim=-1)
