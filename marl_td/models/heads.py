"""Heads that turn a network's output into an action."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Categorical
from torchrl.modules import MaskedCategorical

from marl_td.losses.functional.action_values import chosen_action_value, masked_argmax


class BoundedAction(nn.Module):
    """Deterministic continuous action: tanh, scaled to ``[low, high]``.

    Args:
        low: lower bounds, broadcastable to ``[*B, n_agents, d_action]``.
        high: upper bounds, likewise.

    Raises:
        ValueError: if a bound is not finite or ``low >= high`` somewhere.
    """

    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        if not is_bounded(low, high):
            raise ValueError(
                f"a deterministic policy needs finite action bounds with low < high; got low={low}, "
                f"high={high}. Bound the action space of the environment."
            )
        self.register_buffer("low", low.clone())
        self.register_buffer("high", high.clone())

    def forward(self, parameter: Tensor) -> Tensor:
        """Action ``[*B, n_agents, d_action]`` from an unbounded parameter of that shape."""
        return self.low + (torch.tanh(parameter) + 1.0) * 0.5 * (self.high - self.low)


def is_bounded(low: Tensor, high: Tensor) -> bool:
    """Whether every interval is finite and not empty (unbounded specs have the largest floats as bounds)."""
    width = high - low
    return bool((width.isfinite() & (width > 0)).all())


class GreedyAction(nn.Module):
    """The available action of largest value."""

    def forward(self, action_value: Tensor, action_mask: Tensor | None = None) -> Tensor:
        """Action ``[*B, n_agents]`` from values and mask ``[*B, n_agents, n_actions]``."""
        return masked_argmax(action_value, action_mask)


class DuelingValue(nn.Module):
    """Action values from a state value and advantages.

        Q(a) = V + A(a) - mean over the available actions of A

    (Wang et al. 2016, https://arxiv.org/abs/1511.06581, eq. 9.) The input is ``[*B, 1 + n_actions]``, V
    first. Where no action is available (padding) the mean is 0.
    """

    def forward(self, value_and_advantage: Tensor, action_mask: Tensor | None = None) -> Tensor:
        """Values ``[*B, n_actions]``; the mask, if given, has that shape."""
        value, advantage = value_and_advantage[..., :1], value_and_advantage[..., 1:]
        if action_mask is None:
            return value + advantage - advantage.mean(-1, keepdim=True)
        total = torch.where(action_mask, advantage, 0.0).sum(-1, keepdim=True)
        return value + advantage - total / action_mask.sum(-1, keepdim=True).clamp(min=1)


@torch.no_grad()
def scale_output(network: nn.Module, gain: float) -> nn.Module:
    """Multiply the last linear layer of ``network`` by ``gain`` and zero its bias, in place.

    A small gain makes the first outputs near zero, so that no action is preferred by chance. A network that
    does not end in a linear layer with a bias keeps its own initialisation.
    """
    named = dict(network.named_parameters())
    stems = {name.rpartition(".")[0] for name in list(named)[-2:]}
    stem = stems.pop()
    weight, bias = named.get(f"{stem}.weight"), named.get(f"{stem}.bias")
    if not stems and weight is not None and bias is not None and weight.ndim == bias.ndim + 1:
        weight.mul_(gain)
        bias.zero_()
    return network


def narrow(bound: Tensor) -> Tensor:
    """``bound`` ``[n_agents, d_action]`` without the leading dimensions over which it is constant.

    A bound for each agent makes compiled log-probabilities run in scalar instructions, as the innermost
    dimensions are shorter than a vector: the sampled step of simple_spread took half as long again.
    """
    while bound.ndim and bool((bound == bound[:1]).all()):
        bound = bound[0]
    return bound


def finite(value: Tensor) -> Tensor:
    """``torch.nan_to_num`` in vector instructions: no number becomes 0, infinity the largest number."""
    largest = torch.finfo(value.dtype).max
    number = value == value  # NaN does not equal itself
    return torch.where(number, value, 0.0).clamp(-largest, largest)


def draw(probabilities: Tensor) -> Tensor:
    """One index ``[*B]`` drawn from each row of ``probabilities`` ``[*B, n]``.

    The first arrival of ``n`` exponential clocks with these rates. So does ``torch.multinomial``, with
    the same random numbers; written out, it compiles into the kernels of what surrounds it.
    """
    arrival = probabilities / _exponential(probabilities)
    if arrival.is_cpu and torch.compiler.is_compiling():
        arrival = _written(arrival.movedim(-1, 0).contiguous()).movedim(0, -1)
    return arrival.argmax(-1)


def _written(value: Tensor) -> Tensor:
    """``value`` as numbers in memory, for the CPU's compiler.

    It would make them within the loop that looks for the largest of a row, where rows lie apart in memory
    and everything is computed number by number.
    """
    return value.as_strided(value.shape, value.stride())


def _exponential(like: Tensor) -> Tensor:
    """Exponential numbers with mean 1, shaped as ``like``: those of ``Tensor.exponential_``.

    On a CPU torch takes the logarithms of uniform numbers one by one; here they are vectors where that is
    compiled. A draw for 800 agents with five actions takes 44 us then, of which the uniform numbers are 29,
    and 99 with torch's own.
    """
    kind = torch.float64 if like.is_cpu else like.dtype
    numbers = torch.empty_like(like, dtype=kind, memory_format=torch.contiguous_format)
    if not like.is_cpu:
        return numbers.exponential_()
    number = -torch.log1p(-numbers.uniform_()).to(like.dtype)
    return _written(number) if torch.compiler.is_compiling() else number


class FiniteCategorical(Categorical):
    """Categorical distribution that takes logits that are not numbers for 0.

    A NaN observation would otherwise end in the sampler's own error (on a GPU, of the whole process). So
    the data is collected, and the check of the batch names the entry, the environment and the step.

    Args:
        logits: ``[*B, n_actions]``.
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__(logits=finite(logits), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probabilities of actions, both ``[*B]``."""
        return chosen_action_value(self.logits, value)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Actions ``[*sample_shape, *B]``."""
        return draw(self.probs.detach().expand(*sample_shape, *self.probs.shape))

    @property
    def deterministic_sample(self) -> Tensor:
        """The most probable action, ``[*B]``."""
        return self.mode


class FiniteMaskedCategorical(MaskedCategorical):
    """The same over available actions only.

    Args:
        logits: ``[*B, n_actions]``.
        mask: bool like ``logits``; at least one action is available.
    """

    def __init__(self, logits: Tensor, mask: Tensor) -> None:
        # TorchRL's other way to the log-probability warns at every call.
        super().__init__(logits=finite(logits), mask=mask, use_cross_entropy=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probabilities of actions, both ``[*B]``; ``-inf`` for one that is not available."""
        return chosen_action_value(self.logits, value)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Actions ``[*sample_shape, *B]``."""
        return draw(self.probs.detach().expand(*sample_shape, *self.probs.shape))
