"""Stochastic discrete policies that never give up an action: a softmax with a floor that falls."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictModule
from torch import Tensor

from marl_td.losses.functional.counterfactual import floored_log_probability
from marl_td.models.exploration import check_epsilon
from marl_td.models.heads import FiniteCategorical


class FlooredSoftmax(ProbabilisticTensorDictModule):
    """Draws each agent's action from a softmax in which every available action keeps a share.

        pi_eps(a) = (1 - eps) softmax(logits)(a) + eps / number of available actions

    (Foerster et al. 2018, https://arxiv.org/abs/1705.08926.) Epsilon falls linearly; it is a buffer, so
    checkpoints keep it. A deterministic exploration type (evaluation) takes the most probable action.

    Args:
        group: reads ``(group, "logits")`` ``[*B, n_agents, n_actions]``, writes ``(group, "action")`` and
            ``(group, "log_prob")`` ``[*B, n_agents]``.
        masked: reads available actions ``(group, "action_mask")`` too.
        eps_init: epsilon at the start, in [0, 1].
        eps_end: epsilon after annealing, in [0, ``eps_init``].
        annealing_steps: number of frames over which epsilon falls, >= 1.

    Raises:
        ValueError: if a number is out of its range.
    """

    eps: Tensor

    def __init__(
        self, group: str, masked: bool, *, eps_init: float, eps_end: float, annealing_steps: int
    ) -> None:
        check_epsilon(eps_init, eps_end, annealing_steps)
        super().__init__(
            in_keys=[(group, "logits"), *([(group, "action_mask")] if masked else [])],
            out_keys=[(group, "action")],
            distribution_class=FiniteCategorical,
            return_log_prob=True,
            log_prob_key=(group, "log_prob"),
        )
        self.eps_end = eps_end
        self.decrease = (eps_init - eps_end) / annealing_steps
        self.register_buffer("eps", torch.tensor(eps_init, dtype=torch.float32))

    def step(self, frames: int = 1) -> None:
        """Lower epsilon by what ``frames`` collected frames are worth."""
        self.eps.sub_(self.decrease * frames).clamp_(min=self.eps_end)

    def get_dist(self, tensordict: TensorDictBase) -> Any:
        """The distribution ``[*B, n_agents]`` over actions."""
        logits, *mask = (tensordict.get(key) for key in self.in_keys)
        # Logits that are not numbers are left to the check of the collected batch.
        finite = torch.nan_to_num(logits)
        return FiniteCategorical(
            floored_log_probability(finite, mask[0] if mask else None, self.eps)
        )
