"""Q-learning from fresh data, without replay and without target network: PQN, for teams PQN-VDN."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from marl_td.losses.arguments import check_modules
from marl_td.losses.entries import flag, next_key, next_of, read, read_flag, require, run
from marl_td.losses.functional.returns import lambda_return
from marl_td.losses.q_mixing import MixedQLoss
from marl_td.losses.trajectory import before_padding, cut_off, real_steps, trajectory_values


class PqnLoss(MixedQLoss):
    """Regression of the team's value on lambda-returns of the same network, held constant.

        Q_tot = mix(Q_1(o_1, u_1), .., Q_N(o_N, u_N))
        G_t   = r_t + gamma (1 - terminated_t) [(1 - lmbda) V_{t+1} + lmbda G_{t+1}]
        V     = mix(max_u Q_1(o_1, u), .., max_u Q_N(o_N, u))
        loss_value = mean over the steps that count of (Q_tot - G)^2

    (Gallici et al. 2024, "Simplifying Deep Temporal Difference Learning",
    https://arxiv.org/abs/2407.04811, algorithm 1 with the sum of VDN for the mixture.) The maximum is over
    available actions, G_{t+1} = V_{t+1} where a trajectory is cut, and no gradient flows into G.

    There are two ways to use it:

    * a batch ``[*B, T]`` of consecutive steps: the targets are made of the parameters as they are now;
    * :meth:`estimate` once on such a batch, then minibatches ``[*B]`` of its single steps in any order:
      targets are those of the parameters at the time of the estimate.

    Args:
        network: reads observations, writes ``action_value`` ``[*B, n_agents, n_actions]``. Normalise its
            hidden layers: nothing else keeps the values from running away.
        mixer: as for :class:`marl_td.losses.q_mixing.QMixingLoss`, monotone in every agent's value.
        gamma: discount in [0, 1].
        lmbda: mixing of n-step returns in [0, 1]; 0 is one-step Q-learning.
        loss_function: ``"l2"``, ``"l1"``, ``"smooth_l1"`` or ``"huber"`` of the error.
        huber_delta: error at which ``"huber"`` becomes linear, in units of the return, > 0.
        states: keys of a recurrent network's hidden state, which it reads before each step and writes under
            ``"next"`` after it; a batch of consecutive steps starts from the states in its first step.

    Reads what :class:`marl_td.losses.q_mixing.MixedQLoss` lists, and of consecutive steps
    ``("next", "done")`` ``[*B, 1]`` of the team; a row may go on in a new episode. ``value_target``
    ``[*B, 1]``, if it is there, is taken as the target. Writes ``loss_value`` and metrics ``td_error`` (mean
    absolute), ``global_value``, ``target_value``, ``chosen_action_value``.

    Raises:
        ValueError: for an unknown loss function or a number out of range.
    """

    @dataclass
    class _AcceptedKeys(MixedQLoss._AcceptedKeys):
        value_target: NestedKey = "value_target"

    has_target = False
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
        lmbda: float = 0.65,
        states: Sequence[NestedKey] = (),
        **options: Any,
    ) -> None:
        super().__init__(network, lmbda=lmbda, sequences=True, states=states, **options)
        check_modules(mixer=mixer)
        self.mixer = mixer

    def networks(self) -> dict[str, list[nn.Module]]:
        """The agents' network and the mixer."""
        return {"loss_value": [self.network, self.mixer]}

    @torch.no_grad()
    def estimate(self, batch: TensorDictBase) -> TensorDictBase:
        """Add ``value_target`` to consecutive steps ``[*B, T]``, in place.

        A termination does not bootstrap; a time limit, the end of the batch and the last real step before
        padding do.

        Raises:
            KeyError: naming an entry that is missing.
        """
        _, value_target = self._consecutive(batch)
        return batch.set(self.tensor_keys.value_target, value_target.unsqueeze(-1))

    def compute(self, tensordict: TensorDictBase) -> dict[str, Tensor]:
        """Loss, metrics and priority from consecutive steps ``[*B, T]``, or from estimated ones ``[*B]``."""
        keys = self.tensor_keys
        if tensordict.get(keys.value_target, None) is None:
            action_value, value_target = self._consecutive(tensordict)
        else:
            action_value = run(self.network, tensordict, keys.action_value)
            value_target = read(tensordict, keys.value_target)
        action = require(tensordict, keys.action)
        global_value = self._mix(self.mixer, tensordict, action_value, action)
        steps = flag(tensordict, keys.step_mask)
        valid = None if steps is None else real_steps(steps, global_value)
        return self._regression(tensordict, action_value, global_value, value_target, valid)

    def item_priority(self, tensordict: TensorDictBase, error: Tensor) -> Tensor:
        """The error of every step by itself: fresh data is not drawn by priority."""
        return error[..., 0, 0]

    def _consecutive(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor]:
        """Live action values of consecutive steps, with their gradient, and the targets ``[*B, T]``."""
        keys = self.tensor_keys
        action_value, reached = trajectory_values(
            self.network,
            tensordict.copy(),
            value=keys.action_value,
            done=keys.done,
            states=self.states,
        )
        following = next_of(tensordict)
        with torch.no_grad():
            next_action = self._next_action(tensordict, reached)
            next_value = self._mix(self.mixer, following, reached, next_action)
        reward = read(tensordict, next_key(keys.reward))
        time = tensordict.ndim - 1
        cut = before_padding(flag(tensordict, keys.step_mask), reward, time)
        alone = cut_off(tensordict, keys.mask, keys.truncated)
        cut = cut if alone is None else cut | alone.any(-1)
        value_target = lambda_return(
            reward,
            next_value,
            read_flag(tensordict, next_key(keys.done)) | cut,
            read_flag(tensordict, next_key(keys.terminated)),
            gamma=self.gamma,
            lmbda=self.returns.lmbda,
            time_dim=time,
        )
        return action_value, value_target

    def team_value(self, tensordict: TensorDictBase) -> Tensor:
        """The team value ``[*B]`` of the batch's joint actions."""
        return self._value_of(self.network, self.mixer, tensordict)
