"""The stochastic actor of one group of agents, and its actions in the form that critics take."""

from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from marl_td.losses.functional.deterministic import gumbel_noise
from marl_td.losses.functional.soft import PolicySample, categorical_sample, normal_sample
from marl_td.losses.group_actor import GroupActor


class SoftActor(GroupActor):
    """A (tanh-squashed) normal policy, or a categorical one over the available actions.

    Critics take actions as they do of a :class:`~marl_td.losses.group_actor.GroupActor`: one-hot, or scaled
    from their bounds to ``[-action_scale, action_scale]``.

    Args:
        network: reads ``(group, "observation")``. Continuous: writes ``(group, "loc")`` and
            ``(group, "scale")``, ``[*B, n_agents, d_action]``. Discrete: ``(group, "logits")``
            ``[*B, n_agents, n_actions]``.
        group: name of the group in the batch.
        squash: squash continuous actions by tanh into their bounds.
        options: as for ``GroupActor``.
    """

    def __init__(
        self,
        network: TensorDictModuleBase,
        group: str = "agents",
        *,
        squash: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(network, group, **options)
        self.squash = squash
        self.action_scale = options.get("action_scale", 1.0)

    def forward(self, tensordict: TensorDictBase) -> PolicySample:  # type: ignore[override]
        """Fresh actions ``[*B, n_agents, d_action or n_actions]`` and their log-probabilities.

        Densities are of actions counted in [-1, 1] where there are bounds, squashed or not.
        """
        out = self._out(tensordict, *(("loc", "scale") if self.n_actions is None else ("logits",)))
        if self.n_actions is not None:
            logits = out.get((self.group, "logits"))
            return categorical_sample(logits, self._mask(tensordict), gumbel_noise(logits))
        loc, scale = out.get((self.group, "loc")), out.get((self.group, "scale"))
        # The same numbers whatever the order in memory, which is another one in a graph.
        noise = torch.randn_like(loc, memory_format=torch.contiguous_format)
        sample = normal_sample(loc, scale, noise, squash=self.squash)
        if self.squash:
            return sample._replace(action=sample.action * self.action_scale)
        return PolicySample(self._scaled(sample.action), sample.log_prob + self._stretch(loc), None)

    def _stretch(self, loc: Tensor) -> Tensor | float:
        """Log of half the range, summed over dimensions, ``[*B, n_agents]``; 0 without bounds."""
        if self.half_range is None:
            return 0.0
        return (self.half_range * self.action_scale).log().expand_as(loc).sum(-1)
