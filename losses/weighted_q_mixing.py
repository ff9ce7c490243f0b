"""Q-learning on a mixed team value whose errors are weighted by an unrestricted one: CW- and OW-QMIX."""

from typing import Any, ClassVar, Literal

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from marl_td.losses.arguments import check_modules
from marl_td.losses.entries import flag, living, masked_mean, next_of, require
from marl_td.losses.functional.action_values import masked_argmax
from marl_td.losses.functional.checks import check_choice, check_fraction
from marl_td.losses.functional.weighting import central_weight, optimistic_weight
from marl_td.losses.q_learning import metrics_of
from marl_td.losses.q_mixing import MixedQLoss
from marl_td.losses.targets import target_copy

WEIGHTINGS = ("central", "optimistic")


class WeightedQMixingLoss(MixedQLoss):
    """Q-learning on a mixed team value beside an unrestricted one, which makes targets and weights.

        y            = r + gamma (1 - terminated) Q*^-(s', u')
        loss_value   = mean over the steps that count of w (Q_tot(s, u) - y)^2
        loss_central = mean over the steps that count of (Q*(s, u) - y)^2

    (Rashid et al. 2020, https://arxiv.org/abs/2006.10800.) Q* mixes the values of agents'
    networks of its own by a network that need not be monotone; ``^-`` are target networks; u' is greedy by
    Q_tot's agents. The weight w is 1 for joint actions that matter for finding the best one and alpha for
    others, see :mod:`marl_td.losses.functional.weighting`.

    Args:
        network: reads observations, writes ``action_value`` ``[*B, n_agents, n_actions]``.
        mixer: monotone, as for :class:`marl_td.losses.q_mixing.QMixingLoss`.
        central_network: like ``network``, for Q*.
        central_mixer: like ``mixer``, not restricted.
        weighting: ``"central"`` or ``"optimistic"``.
        alpha: weight of the joint actions that matter less, in [0, 1].
        options: as for :class:`marl_td.losses.q_learning.QLearningLoss`.

    Reads what :class:`marl_td.losses.q_mixing.MixedQLoss` lists. Writes ``loss_value``, ``loss_central`` and
    metrics ``td_error`` (mean absolute, of Q_tot), ``global_value``, ``central_value``, ``target_value``,
    ``full_weight`` (share of the steps with weight 1).

    Raises:
        ValueError: for an unknown ``weighting`` or ``alpha`` out of range.
    """

    out_keys: ClassVar[list[str]] = [
        "loss_value",
        "loss_central",
        "td_error",
        "global_value",
        "central_value",
        "target_value",
        "full_weight",
    ]

    def __init__(
        self,
        network: TensorDictModuleBase,
        mixer: TensorDictModuleBase,
        central_network: TensorDictModuleBase,
        central_mixer: TensorDictModuleBase,
        *,
        weighting: Literal["central", "optimistic"] = "central",
        alpha: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(network, **options)
        check_modules(mixer=mixer, central_network=central_network, central_mixer=central_mixer)
        check_choice("weighting", weighting, WEIGHTINGS)
        check_fraction("alpha", alpha)
        self.mixer = mixer
        self.central_network = central_network
        self.central_mixer = central_mixer
        self.target_central_network = target_copy(central_network)
        self.target_central_mixer = target_copy(central_mixer)
        self.weighting = weighting
        self.alpha = alpha

    def networks(self) -> dict[str, list[nn.Module]]:
        """The factorised value, and the unrestricted one."""
        return {
            "loss_value": [self.network, self.mixer],
            "loss_central": [self.central_network, self.central_mixer],
        }

    def target_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """The networks that have targets: the agents' and the unrestricted ones."""
        return [
            *super().target_pairs(),
            (self.central_network, self.target_central_network),
            (self.central_mixer, self.target_central_mixer),
        ]

    def compute(self, tensordict: TensorDictBase) -> dict[str, Tensor]:
        """Losses, metrics and priority from a batch ``[*B]``."""
        key = self.tensor_keys.action_value
        action_value, choosing = self._values_and_choosing(tensordict)
        central, _ = self._live(self.central_network, tensordict, key, following=False)
        now, evaluated = self._target(
            self.target_central_network, tensordict, key, now=self.weighting == "central"
        )
        tensordict = self._learnt(tensordict)
        action = require(tensordict, self.tensor_keys.action)
        global_value = self._mix(self.mixer, tensordict, action_value, action)
        central_value = self._mix(self.central_mixer, tensordict, central, action)
        valid = self._valid(tensordict, global_value)
        with torch.no_grad():
            next_action = self._next_action(tensordict, choosing)
            next_value = self._mix(
                self.target_central_mixer, next_of(tensordict), evaluated, next_action
            )
            value_target = self._value_target(
                tensordict,
                next_value,
                valid,
                action_value=action_value,
                chosen_value=lambda: self._mix(self.target_central_mixer, tensordict, now, action),
            )
            weight = self._weight(tensordict, action_value, global_value, now, value_target)
        error, shown, td_error = self._error(tensordict, global_value, value_target, valid)
        central_error, _, _ = self._error(tensordict, central_value, value_target, valid)
        return {
            "loss_value": masked_mean(weight * error, valid),
            "loss_central": masked_mean(central_error, valid),
            **metrics_of(
                valid,
                td_error=td_error,
                global_value=global_value,
                central_value=central_value,
                target_value=shown,
                full_weight=(weight == 1.0).to(weight.dtype),
            ),
            "priority": self._priority(td_error, action),
        }

    def team_value(self, tensordict: TensorDictBase) -> Tensor:
        """The live factorised value ``[*B]`` of the batch's joint actions (batches of single steps)."""
        return self._value_of(self.network, self.mixer, tensordict)

    def joint_value(self, tensordict: TensorDictBase) -> Tensor:
        """The live unrestricted value ``[*B]`` of the same."""
        return self._value_of(self.central_network, self.central_mixer, tensordict)

    # ------------------------------------------------------------------ parts
    def _weight(
        self,
        tensordict: TensorDictBase,
        action_value: Tensor,
        global_value: Tensor,
        target_central: Tensor,
        value_target: Tensor,
    ) -> Tensor:
        """Weights ``[*B]``."""
        if self.weighting == "optimistic":
            return optimistic_weight(global_value, value_target, alpha=self.alpha)
        mask = flag(tensordict, self.tensor_keys.action_mask)
        greedy = masked_argmax(action_value, mask)
        differs = greedy != require(tensordict, self.tensor_keys.action)
        alive = living(tensordict, self.tensor_keys.mask)
        if alive is not None:
            differs = differs & alive
        greedy_value = self._mix(self.target_central_mixer, tensordict, target_central, greedy)
        return central_weight(~differs.any(-1), value_target, greedy_value, alpha=self.alpha)
