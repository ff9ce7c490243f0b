"""The actor of one group of agents, and its actions in the form that critics take."""

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from marl_td.losses.common import require
from marl_td.losses.functional.action_values import mask_unavailable, one_hot_action
from marl_td.losses.functional.deterministic import gumbel_noise, smoothing_noise, straight_through
from marl_td.losses.functional.distributions import categorical_entropy


class GroupActor(nn.Module):
    """A deterministic actor (continuous), or logits made differentiable by Gumbel-softmax (discrete).

    Critics take discrete actions as one-hot vectors and continuous ones scaled from their bounds to
    ``[-action_scale, action_scale]`` (as they are if no bounds are given): an action that moves in a narrow
    range beside wide observations would be hard to tell apart for a critic.

    Args:
        network: reads ``(group, "observation")``. Continuous: writes ``(group, "action")``
            ``[*B, n_agents, d_action]``, and ``(group, "parameter")`` of that shape before the bound, if the
            loss regularises it. Discrete: writes ``(group, "logits")`` ``[*B, n_agents, n_actions]``.
        group: name of the group in the batch.
        n_actions: number of discrete actions; None for continuous ones.
        temperature: of the Gumbel-softmax, > 0; discrete actions only.
        bounds: ``(low, high)`` of continuous actions, each ``[n_agents, d_action]`` or broadcastable to it.
        action_scale: half range of the scaled actions, > 0.

    Raises:
        ValueError: if ``temperature`` or ``action_scale`` is not above 0.
    """

    middle: Tensor | None
    half_range: Tensor | None

    def __init__(
        self,
        network: TensorDictModuleBase,
        group: str = "agents",
        *,
        n_actions: int | None = None,
        temperature: float = 1.0,
        bounds: tuple[Tensor, Tensor] | None = None,
        action_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if not temperature > 0.0:
            raise ValueError(f"`temperature` must be above 0; got {temperature}.")
        if not action_scale > 0.0:
            raise ValueError(f"`action_scale` must be above 0; got {action_scale}.")
        middle = half_range = None
        if bounds is not None:
            low, high = bounds
            middle, half_range = (high + low) / 2, (high - low) / 2 / action_scale
        self.register_buffer("middle", middle)
        self.register_buffer("half_range", half_range)
        self.network = network
        self.group = group
        self.n_actions = n_actions
        self.temperature = temperature
        self.action_scale = action_scale

    @property
    def discrete(self) -> bool:
        """Whether the actions are discrete."""
        return self.n_actions is not None

    def taken(self, tensordict: TensorDictBase) -> Tensor:
        """Actions in the batch, as a critic takes them: ``[*B, n_agents, d_action or n_actions]``.

        Raises:
            KeyError: if the batch has no action of this group.
        """
        action = require(tensordict, (self.group, "action"))
        if self.n_actions is not None:
            return one_hot_action(action, self.n_actions)
        return self._scaled(action)

    def forward(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor | None]:
        """Fresh actions ``[*B, n_agents, d_action or n_actions]``, and what made them.

        Discrete actions are sampled from the softmax of the logits and carry its gradient.

        Returns:
            action and the logits, or the parameter before the bound if the network writes one.
        """
        out = self.network(tensordict.copy())
        if self.n_actions is None:
            action = self._scaled(out.get((self.group, "action")))
            return action, out.get((self.group, "parameter"), None)
        logits = out.get((self.group, "logits"))
        action = straight_through(
            logits, self._mask(tensordict), gumbel_noise(logits), temperature=self.temperature
        )
        return action, logits

    def policy(self, tensordict: TensorDictBase) -> Tensor:
        """The policy itself, without a sample: actions as critics take them, or the logits if discrete."""
        out = self.network(tensordict.copy())
        if self.discrete:
            return out.get((self.group, "logits"))
        return self._scaled(out.get((self.group, "action")))

    def smoothed(self, tensordict: TensorDictBase, *, sigma: float, clip: float) -> Tensor:
        """Fresh continuous actions with clipped Gaussian noise, clamped to their bounds.

        Discrete actions are samples already and get no more noise.

        Args:
            tensordict: as for :meth:`forward`.
            sigma: standard deviation of the noise, as a share of half the range (of 1 without bounds).
            clip: largest noise, likewise.
        """
        action, _ = self(tensordict)
        if self.discrete:
            return action
        scale = self.action_scale if self.is_bounded else 1.0
        noisy = action + smoothing_noise(action, sigma=sigma * scale, clip=clip * scale)
        return noisy.clamp(-scale, scale) if self.is_bounded else noisy

    @property
    def is_bounded(self) -> bool:
        """Whether the bounds of the continuous actions are known."""
        return self.middle is not None

    def probabilities(self, tensordict: TensorDictBase, logits: Tensor) -> Tensor:
        """The discrete policy, ``[*B, n_agents, n_actions]``; 0 for actions that are not available."""
        return mask_unavailable(logits, self._mask(tensordict)).softmax(-1)

    def entropy(self, tensordict: TensorDictBase, logits: Tensor) -> Tensor:
        """Entropy ``[*B, n_agents]`` in nats of the discrete policy."""
        return categorical_entropy(logits, self._mask(tensordict))

    def _scaled(self, action: Tensor) -> Tensor:
        if self.middle is None or self.half_range is None:
            return action
        return (action - self.middle) / self.half_range

    def _mask(self, tensordict: TensorDictBase) -> Tensor | None:
        return tensordict.get((self.group, "action_mask"), None)
