"""Normalisation of value targets by running statistics, and true PopArt on top of it."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from marl_td.losses.functional.checks import (
    check_count,
    check_fraction,
    check_positive,
    check_shape,
)
from marl_td.losses.functional.normalisation import (
    masked_moments,
    popart_rescale,
    running_moments,
)


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
    running_variance: Tensor
    weight: Tensor

    def __init__(
        self, n_agents: int | None = None, *, beta: float = 0.99999, min_variance: float = 1e-2
    ) -> None:
        super().__init__()
        check_fraction("beta", beta)
        if beta == 1.0:
            raise ValueError("`beta` must be below 1; got 1.0.")
        check_positive(min_variance=min_variance)
        if n_agents is not None:
            check_count(n_agents=n_agents)
        self.n_agents = n_agents
        self.beta = beta
        self.min_variance = min_variance
        shape = () if n_agents is None else (n_agents,)
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_variance", torch.ones(shape))
        # What the moving averages have gathered so far; near 1 after many updates.
        self.register_buffer("weight", torch.zeros(shape))

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and scale, each ``[]`` or ``[n_agents]``; 0 and 1 before the first update."""
        return self.running_mean, self.running_variance.clamp(min=self.min_variance).sqrt()

    @torch.no_grad()
    def update(self, value_target: Tensor, mask: Tensor | None = None) -> None:
        """Move the statistics towards those of ``value_target`` ``[*B, n_agents]`` where ``mask`` is true.

        Statistics of which no entry counts stay as they are.
        """
        self._check(value_target)
        last = value_target.ndim - (0 if self.n_agents is None else 1)
        mean, variance, count = masked_moments(value_target, mask, tuple(range(last)))
        rate = (1.0 - self.beta) * (count > 0).to(mean.dtype)
        moved = running_moments(
            self.running_mean, self.running_variance, self.weight, mean, variance, rate
        )
        for buffer, new in zip(
            (self.running_mean, self.running_variance, self.weight), moved, strict=True
        ):
            buffer.copy_(new)

    def normalise(self, value: Tensor) -> Tensor:
        """Returns ``[*B, n_agents]`` in normalised units."""
        self._check(value)
        mean, scale = self.statistics()
        return (value - mean) / scale

    def denormalise(self, value: Tensor) -> Tensor:
        """Critic outputs ``[*B, n_agents]`` in units of the return."""
        self._check(value)
        mean, scale = self.statistics()
        return value * scale + mean

    def _check(self, value: Tensor) -> None:
        if self.n_agents is not None:
            check_shape("value", value, (self.n_agents,), "[*B, n_agents]")


class PopArt(ValueNorm):
    """Value normalisation that preserves the critic's outputs precisely (PopArt).

    After each change of the statistics the critic's output layer is rescaled in place, so that its
    denormalised outputs stay what they were (:func:`marl_td.losses.functional.normalisation.popart_rescale`).

    Args:
        critic: network that ends in one linear layer with one output, or in one stack of them (one per
            agent); that layer is rescaled.
        n_agents: as in :class:`ValueNorm`; statistics per agent need an output layer per agent.
        beta: as in :class:`ValueNorm`.
        min_variance: as in :class:`ValueNorm`.

    Raises:
        ValueError: if the critic has no such layer, or one layer for statistics per agent.
    """

    rescales = True

    _critic: nn.Module
    _output_layer: tuple[nn.Parameter, nn.Parameter]

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
        self.__dict__["_critic"] = critic
        self.tie()
        weight, _ = self._output_layer
        if n_agents is not None and weight.shape[:-2] != (n_agents,):
            raise ValueError(
                f"statistics for {n_agents} agents need an output layer for each of them, of shape "
                f"[{n_agents}, 1, d]; the critic's is {list(weight.shape)}. Use one network per agent, "
                "or one statistic for all (n_agents=None)."
            )

    def tie(self) -> None:
        """Find the critic's output layer (again, after its tensors were replaced)."""
        self.__dict__["_output_layer"] = output_layer(self._critic)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PopArt":
        super()._apply(fn, recurse)
        self.tie()
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], *args: Any) -> None:
        super()._load_from_state_dict(state_dict, *args)
        self.tie()

    @torch.no_grad()
    def update(self, value_target: Tensor, mask: Tensor | None = None) -> None:
        """Move the statistics and rescale the output layer."""
        old_mean, old_scale = (statistic.clone() for statistic in self.statistics())
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
    """Weight ``[..., 1, d]`` and bias ``[..., 1]`` of the critic's last linear layer.

    Raises:
        ValueError: if the critic does not end in one linear layer (or stack) with one output and a bias.
    """
    if not isinstance(critic, nn.Module):
        raise TypeError(f"`critic` must be the critic's module; got {type(critic).__name__}.")
    named = dict(critic.named_parameters())
    found = []
    for name, bias in named.items():
        weight = named.get(name.removesuffix("bias") + "weight") if name.endswith("bias") else None
        if weight is not None and weight.ndim == bias.ndim + 1 and weight.shape[-2] == 1:
            found.append((name, weight, bias))
    biases = [name for name in named if name.endswith("bias")]
    if len(found) == 1 and found[0][0] == biases[-1]:
        return found[0][1], found[0][2]
    raise ValueError(
        "PopArt needs a critic that ends in one linear layer with one output and a bias (or one stack "
        f"[n_agents, 1, d] of them); layers with one output here: {[name for name, _, _ in found]}, "
        f"last parameters: {list(named)[-2:]}. Use running value normalisation for this critic."
    )
