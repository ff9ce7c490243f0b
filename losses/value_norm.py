"""Normalisation of value targets by running statistics, and true PopArt on top of it."""

import torch
from torch import Tensor, nn

from marl_td.losses.functional.checks import check_fraction
from marl_td.losses.functional.normalisation import masked_moments, popart_rescale


class ValueNorm(nn.Module):
    """Debiased exponential moving statistics of value targets, as MAPPO's reference keeps them.

    A critic trained against normalised targets predicts in normalised units; :meth:`denormalise` turns its
    output back into returns, which is what advantages are computed from.

    Args:
        n_agents: None for one statistic over everything, or the number of agents for one each.
        beta: rate of the moving average in [0, 1); the reference uses 0.99999.
        min_variance: floor of the variance, in squared return units.

    Raises:
        ValueError: if ``beta`` is outside [0, 1) or ``min_variance`` is not positive.
    """

    rescales = False
    """Whether :meth:`update` also rescales the critic's output layer."""

    running_mean: Tensor
    running_mean_square: Tensor
    debiasing: Tensor

    def __init__(
        self, n_agents: int | None = None, *, beta: float = 0.99999, min_variance: float = 1e-2
    ) -> None:
        super().__init__()
        check_fraction("beta", beta)
        if beta == 1.0 or min_variance <= 0.0:
            raise ValueError(
                f"`beta` must be below 1 and `min_variance` above 0; got {beta} and {min_variance}."
            )
        self.n_agents = n_agents
        self.beta = beta
        self.min_variance = min_variance
        shape = () if n_agents is None else (n_agents,)
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_mean_square", torch.zeros(shape))
        self.register_buffer("debiasing", torch.zeros(()))

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and scale, each ``[]`` or ``[n_agents]``; 0 and 1 before the first update."""
        weight = self.debiasing.clamp(min=1e-5)
        mean = self.running_mean / weight
        variance = (self.running_mean_square / weight - mean.square()).clamp(min=self.min_variance)
        fresh = self.debiasing == 0
        return mean, torch.where(fresh, torch.ones_like(variance), variance.sqrt())

    @torch.no_grad()
    def update(self, value_target: Tensor, mask: Tensor | None = None) -> None:
        """Move the statistics towards those of ``value_target`` ``[*B, n_agents]``."""
        last = value_target.ndim - (0 if self.n_agents is None else 1)
        mean, mean_square = masked_moments(value_target, mask, tuple(range(last)))
        self.running_mean.lerp_(mean, 1.0 - self.beta)
        self.running_mean_square.lerp_(mean_square, 1.0 - self.beta)
        self.debiasing.lerp_(torch.ones_like(self.debiasing), 1.0 - self.beta)

    def normalise(self, value: Tensor) -> Tensor:
        """Returns ``[*B, n_agents]`` in normalised units."""
        mean, scale = self.statistics()
        return (value - mean) / scale

    def denormalise(self, value: Tensor) -> Tensor:
        """Critic outputs ``[*B, n_agents]`` in units of the return."""
        mean, scale = self.statistics()
        return value * scale + mean


class PopArt(ValueNorm):
    """Value normalisation that preserves the critic's outputs precisely (PopArt).

    After each change of the statistics the critic's output layer is rescaled in place, so that its
    denormalised outputs stay what they were (:func:`marl_td.losses.functional.normalisation.popart_rescale`).

    Args:
        critic: network whose last linear layer has one output; that layer is rescaled.
        n_agents: as in :class:`ValueNorm`; statistics per agent need an output layer per agent.
        beta: as in :class:`ValueNorm`.
        min_variance: as in :class:`ValueNorm`.

    Raises:
        ValueError: if the critic has no last linear layer with one output and a bias.
    """

    rescales = True

    def __init__(
        self,
        critic: nn.Module,
        n_agents: int | None = None,
        *,
        beta: float = 0.99999,
        min_variance: float = 1e-2,
    ) -> None:
        super().__init__(n_agents, beta=beta, min_variance=min_variance)
        # Kept outside the module's own registry: the critic owns these parameters.
        self.__dict__["_output_layer"] = output_layer(critic)

    @torch.no_grad()
    def update(self, value_target: Tensor, mask: Tensor | None = None) -> None:
        """Move the statistics and rescale the output layer."""
        old_mean, old_scale = self.statistics()
        super().update(value_target, mask)
        new_mean, new_scale = self.statistics()
        weight, bias = self._output_layer
        column = (lambda x: x.unsqueeze(-1)) if self.n_agents is not None else (lambda x: x)
        new_weight, new_bias = popart_rescale(
            weight, bias, column(old_mean), column(old_scale), column(new_mean), column(new_scale)
        )
        weight.copy_(new_weight)
        bias.copy_(new_bias)


def output_layer(critic: nn.Module) -> tuple[nn.Parameter, nn.Parameter]:
    """Weight ``[..., 1, d]`` and bias ``[..., 1]`` of the last linear layer.

    Raises:
        ValueError: if the last layer is not linear with one output and a bias.
    """
    named = dict(critic.named_parameters())
    biases = [name for name in named if name.endswith("bias")]
    for name in reversed(biases):
        weight = named.get(name.removesuffix("bias") + "weight")
        if weight is not None and weight.shape[:-1] == named[name].shape and weight.shape[-2] == 1:
            return weight, named[name]
        break
    raise ValueError(
        "PopArt needs a critic that ends in a linear layer with one output and a bias; "
        f"its last parameters are {list(named)[-2:]}. Use value_norm='running' for this critic."
    )
