"""Q-learning on a mixed team value: the loss of QMIX, and of VDN with a sum as mixer."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torch.nn.functional import huber_loss
from torchrl.objectives.utils import distance_loss

from marl_td.losses.common import MultiAgentLoss, masked_mean, next_key, read, require, run
from marl_td.losses.functional.action_values import chosen_action_value, greedy_value
from marl_td.losses.functional.checks import check_fraction
from marl_td.losses.functional.returns import lambda_return, one_step_target
from marl_td.losses.targets import target_copy

LOSS_FUNCTIONS = ("l2", "l1", "smooth_l1", "huber")


class QMixingLoss(MultiAgentLoss):
    """Q-learning on a team value that is mixed from the agents' values.

        Q_tot(s, u) = mix(Q_1(o_1, u_1), .., Q_N(o_N, u_N); s)
        y           = r + gamma (1 - terminated) mix^-(Q_1^-(o_1', u_1'), .., Q_N^-(o_N', u_N'); s')
        loss_value  = mean over the steps that count of (Q_tot - y)^2

    (Rashid et al. 2018, https://arxiv.org/abs/1803.11485, eq. 6.) ``^-`` are target networks. u_i' is
    agent i's greedy available action by the live network (double Q-learning) or by the target network.
    A dead agent's value counts as 0, now and next: its action changes nothing, so it neither learns
    nor adds to the team's value.

    With ``sequences`` a row of the batch ``[*B, T]`` is one episode, and the networks are run once
    over its T + 1 observations, from a zero hidden state. A row that goes on after its episode
    ended, or is padded, does no harm: those steps do not count.

    Args:
        network: reads observations, writes ``action_value`` ``[*B, n_agents, n_actions]``.
        mixer: reads ``chosen_action_value`` ``[*B, n_agents, 1]`` (and a state), writes
            ``global_value`` ``[*B, 1]``; see :mod:`marl_td.models.mixers`, or TorchRL's mixers.
        gamma: discount in [0, 1].
        double_q: the live network chooses the next action and the target network values it; if
            false, the target network does both.
        loss_function: ``"l2"``, ``"l1"``, ``"smooth_l1"`` or ``"huber"`` of the error.
        huber_delta: error at which ``"huber"`` becomes linear, in units of the return, > 0.
        lmbda: mixing of n-step returns in [0, 1]; 0 is one-step. Above 0 it needs ``sequences``.
        sequences: whether a batch is ``[*B, T]`` with one episode a row.

    Reads (defaults): ``action`` ``[*B, n_agents]``, what the networks read, the same under ``"next"``,
    and ``("next", "reward" | "terminated")`` ``[*B, 1]`` of the team; with ``sequences`` also
    ``("next", "done")``. If present, here and under ``"next"``: the action mask
    ``[*B, n_agents, n_actions]``, the alive mask ``mask`` ``[*B, n_agents]``; and ``step_mask``
    ``[*B, 1]`` (false on padding) and ``priority_weight`` ``[*B]``.

    Writes ``loss_value`` and metrics ``td_error`` (mean absolute), ``global_value``, ``target_value``,
    ``chosen_action_value``; :meth:`forward` also writes the absolute error to the batch's ``priority``
    key, ``[*B, n_agents, 1]``.

    Raises:
        ValueError: for an unknown loss function, a number out of range, or ``lmbda`` above 0
            without ``sequences``.
    """

    @dataclass
    class _AcceptedKeys:
        action: NestedKey = ("agents", "action")
        action_value: NestedKey = ("agents", "action_value")
        action_mask: NestedKey = ("agents", "action_mask")
        chosen_action_value: NestedKey = ("agents", "chosen_action_value")
        global_value: NestedKey = "global_value"
        mask: NestedKey = ("agents", "mask")
        step_mask: NestedKey = "step_mask"
        is_init: NestedKey = "is_init"
        reward: NestedKey = "reward"
        done: NestedKey = "done"
        terminated: NestedKey = "terminated"
        priority: NestedKey = ("agents", "td_error")
        priority_weight: NestedKey = "priority_weight"

    out_keys: ClassVar[list[str]] = [
        "loss_value",
        "td_error",
        "global_value",
        "target_value",
        "chosen_action_value",
    ]

    def __init__(
        self,
        network: TensorDictModuleBase,
        mixer: TensorDictModuleBase,
        *,
        gamma: float = 0.99,
        double_q: bool = True,
        loss_function: Literal["l2", "l1", "smooth_l1", "huber"] = "l2",
        huber_delta: float = 1.0,
        lmbda: float = 0.0,
        sequences: bool = False,
    ) -> None:
        super().__init__()
        check_fraction("gamma", gamma)
        check_fraction("lmbda", lmbda)
        if loss_function not in LOSS_FUNCTIONS:
            known = ", ".join(LOSS_FUNCTIONS)
            raise ValueError(f"`loss_function` must be one of {known}; got '{loss_function}'.")
        if not huber_delta > 0.0:
            raise ValueError(f"`huber_delta` must be above 0; got {huber_delta}.")
        if lmbda > 0.0 and not sequences:
            raise ValueError(
                f"`lmbda` = {lmbda} needs whole episodes; set sequences=True and give batches "
                "[*B, T] with one episode a row."
            )
        self.network = network
        self.mixer = mixer
        self.target_network = target_copy(network)
        self.target_mixer = target_copy(mixer)
        self.gamma = gamma
        self.double_q = double_q
        self.loss_function = loss_function
        self.huber_delta = huber_delta
        self.lmbda = lmbda
        self.sequences = sequences

    def target_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """The networks that have targets: the agents' and the mixer."""
        return [(self.network, self.target_network), (self.mixer, self.target_mixer)]

    # ---------------------------------------------------------------- compute
    def compute(self, tensordict: TensorDictBase) -> dict[str, Tensor]:
        """Loss, metrics and priority from a batch ``[*B]``."""
        action_value, selecting, evaluated = self._action_values(tensordict)
        action = require(tensordict, self.tensor_keys.action)
        local_value = chosen_action_value(action_value, action)  # [*B, n_agents]
        global_value = self._mix(self.mixer, tensordict, local_value)  # [*B]
        valid = self._valid(tensordict)
        with torch.no_grad():
            value_target = self._value_target(tensordict, selecting, evaluated, valid)
        if valid is not None:  # what does not count may hold anything: keep it out of the gradient
            value_target = torch.where(valid, value_target, global_value.detach())
        error = self._distance(global_value, value_target)
        weight = tensordict.get(self.tensor_keys.priority_weight, None)
        if weight is not None:
            error = error * weight.reshape(error.shape)
        td_error = (global_value - value_target).detach().abs()
        return {
            "loss_value": masked_mean(error, valid),
            "td_error": masked_mean(td_error, valid),
            "global_value": masked_mean(global_value.detach(), valid),
            "target_value": masked_mean(value_target, valid),
            "chosen_action_value": masked_mean(local_value.detach().mean(-1), valid),
            "priority": td_error.unsqueeze(-1).expand_as(local_value).unsqueeze(-1),
        }

    def team_value(self, tensordict: TensorDictBase) -> Tensor:
        """The live team value ``[*B]`` of the batch's joint actions (batches of single steps)."""
        action_value = run(self.network, tensordict, self.tensor_keys.action_value)
        action = require(tensordict, self.tensor_keys.action)
        return self._mix(self.mixer, tensordict, chosen_action_value(action_value, action))

    # ------------------------------------------------------------------ parts
    def _action_values(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor, Tensor]:
        """Live values of this step, and of the next: those that select and those that evaluate.

        Each ``[*B, n_agents, n_actions]``; the first carries the gradient.
        """
        key = self.tensor_keys.action_value
        if self.sequences:
            inputs = self._episode_inputs(tensordict)
            time = tensordict.ndim - 1
            n_steps = tensordict.shape[-1]
            live = run(self.network, inputs, key)
            with torch.no_grad():
                evaluated = run(self.target_network, inputs, key).narrow(time, 1, n_steps)
            selecting = live.detach().narrow(time, 1, n_steps)
            return (
                live.narrow(time, 0, n_steps),
                selecting if self.double_q else evaluated,
                evaluated,
            )
        following = tensordict.get("next")
        live = run(self.network, tensordict, key)
        with torch.no_grad():
            evaluated = run(self.target_network, following, key)
            selecting = run(self.network, following, key) if self.double_q else evaluated
        return live, selecting, evaluated

    def _episode_inputs(self, tensordict: TensorDictBase) -> TensorDictBase:
        """What the network reads at the T + 1 observations of an episode, ``[*B, T + 1]``.

        Within one episode the observation reached by step t is the one that step t + 1 starts from.
        """
        keys = [key for key in self.network.in_keys if key != self.tensor_keys.is_init]
        inputs = tensordict.select(*keys, strict=False)
        following = tensordict.get("next").select(*keys, strict=False)
        is_init = tensordict.get(self.tensor_keys.is_init, None)
        if is_init is not None:
            inputs.set(self.tensor_keys.is_init, is_init)
            following.set(self.tensor_keys.is_init, torch.zeros_like(is_init))
        return torch.cat([inputs[..., :1], following], dim=tensordict.ndim - 1)

    def _value_target(
        self,
        tensordict: TensorDictBase,
        selecting: Tensor,
        evaluated: Tensor,
        valid: Tensor | None,
    ) -> Tensor:
        """The regression target ``[*B]``, one-step or lambda-return."""
        keys = self.tensor_keys
        following = tensordict.get("next")
        mask = following.get(keys.action_mask, None)
        next_value = self._mix(
            self.target_mixer, following, greedy_value(evaluated, selecting, mask)
        )
        reward = read(tensordict, next_key(keys.reward))
        terminated = read(tensordict, next_key(keys.terminated))
        if self.lmbda == 0.0 or valid is None:
            return one_step_target(reward, next_value, terminated, gamma=self.gamma)
        more = torch.cat([valid[..., 1:], torch.zeros_like(valid[..., :1])], dim=-1)
        return lambda_return(
            reward, next_value, ~more, terminated, gamma=self.gamma, lmbda=self.lmbda
        )

    def _mix(
        self, mixer: TensorDictModuleBase, tensordict: TensorDictBase, local_value: Tensor
    ) -> Tensor:
        """Team value ``[*B]`` of local values ``[*B, n_agents]``; dead agents count as 0."""
        keys = self.tensor_keys
        alive = tensordict.get(keys.mask, None)
        if alive is not None:
            local_value = torch.where(alive, local_value, torch.zeros_like(local_value))
        inputs = tensordict.copy().set(keys.chosen_action_value, local_value.unsqueeze(-1))
        return read(mixer(inputs), keys.global_value)

    def _valid(self, tensordict: TensorDictBase) -> Tensor | None:
        """Steps ``[*B]`` that count: not padding and, in a sequence, not after its first end."""
        steps = tensordict.get(self.tensor_keys.step_mask, None)
        if steps is not None:
            steps = steps.squeeze(-1)
        if not self.sequences:
            return steps
        done = read(tensordict, next_key(self.tensor_keys.done))
        first = (done.cumsum(-1) - done.long()) == 0
        return first if steps is None else first & steps

    def _distance(self, value: Tensor, value_target: Tensor) -> Tensor:
        """Unreduced loss ``[*B]``."""
        if self.loss_function == "huber":
            return huber_loss(value, value_target, reduction="none", delta=self.huber_delta)
        return distance_loss(value, value_target, self.loss_function)
