"""What every loss with a state-value critic shares: advantages, value targets and the critic's own loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor

from marl_td.losses.arguments import (
    check_modules,
    checked_keys,
    checked_value_norm,
    none_if_off,
)
from marl_td.losses.common import MultiAgentLoss
from marl_td.losses.entries import flag, living, masked_mean, next_key, read, read_flag, run
from marl_td.losses.functional.checks import check_not_negative, check_same_shape
from marl_td.losses.functional.normalisation import normalise_advantage
from marl_td.losses.functional.policy_gradient import clipped_value_error, explained_variance
from marl_td.losses.functional.returns import gae
from marl_td.losses.stochastic_actor import action_distribution, actor_parts
from marl_td.losses.trajectory import before_padding, counted, end_of_life, trajectory_values
from marl_td.losses.value_norm import ValueNorm


class AdvantageLoss(MultiAgentLoss):
    """Base of the on-policy losses with a stochastic actor and a critic V.

    First :meth:`estimate` adds advantages and value targets to a batch ``[n_envs, T]`` of consecutive steps;
    then the loss is called on minibatches ``[*B]`` of it. A subclass says how the policy learns
    (:meth:`policy`).

    Args:
        actor: reads observations; its distribution scores ``action`` ``[*B, n_agents, ...]``.
        critic: writes the ``value`` key ``[*B, n_agents, 1]``, in normalised units with a ``value_norm``.
        critic_coeff: weight of the value loss, >= 0.
        clip_value: range of the value's change, in the critic's units; None or 0 for no clipping.
        huber_delta: where the value error becomes linear, in the critic's units; None or 0 for squared.
        value_norm: running normalisation of value targets (or PopArt); None for none.
        normalize_advantage: normalise advantages over the batch, counting alive entries only.
        normalize_advantage_exclude_dims: dimensions of ``[n_envs, T, n_agents]`` with statistics of their
            own; ``(-1,)`` normalises per agent.
        mask_dead_values: an agent's death ends its return: its advantages and value targets do not look
            beyond it, and the value loss leaves the dead out. By default the critic is trained on them:
            while the team's return goes on, the values of the living bootstrap from theirs.
        critic_states: keys of a recurrent critic's hidden state ``[*B, ...]``, which it reads before each
            step and writes under ``"next"`` after it; empty for other critics.

    Reads (defaults): ``action``, ``log_prob``, ``advantage``, ``value_target``, the critic's ``value`` and
    its denormalised copy ``old_value``; if present the alive mask ``mask`` ``[*B, n_agents]`` (with
    ``mask_dead_values`` also under ``"next"``, and there ``truncated``: who was only cut off) and the padding
    mask ``step_mask`` ``[*B, 1]`` (both true = counts).

    Raises:
        TypeError: for an actor without a distribution, a critic that is no TensorDictModule, or a
            ``value_norm`` that is none.
        ValueError: if a number is negative or not finite.
    """

    @dataclass
    class _AcceptedKeys:
        action: NestedKey = ("agents", "action")
        sample_log_prob: NestedKey = ("agents", "log_prob")
        value: NestedKey = ("agents", "state_value")
        old_value: NestedKey = ("agents", "old_value")
        advantage: NestedKey = ("agents", "advantage")
        value_target: NestedKey = ("agents", "value_target")
        reward: NestedKey = ("agents", "reward")
        done: NestedKey = ("agents", "done")
        terminated: NestedKey = ("agents", "terminated")
        truncated: NestedKey = ("agents", "truncated")
        mask: NestedKey = ("agents", "mask")
        step_mask: NestedKey = "step_mask"

    def __init__(
        self,
        actor: ProbabilisticTensorDictSequential,
        critic: TensorDictModuleBase,
        *,
        critic_coeff: float = 1.0,
        clip_value: float | None = 0.2,
        huber_delta: float | None = 10.0,
        value_norm: ValueNorm | None = None,
        normalize_advantage: bool = True,
        normalize_advantage_exclude_dims: tuple[int, ...] = (),
        mask_dead_values: bool = False,
        critic_states: Sequence[NestedKey] = (),
    ) -> None:
        super().__init__()
        check_modules(critic=critic)
        check_not_negative(critic_coeff=critic_coeff)
        # Views of the actor's parts; the actor itself owns the parameters.
        layers, head = actor_parts(actor)
        self.actor = actor
        self.critic = critic
        self.__dict__["_actor_layers"] = layers
        self.__dict__["_actor_head"] = head
        self.critic_coeff = critic_coeff
        self.clip_value = none_if_off("clip_value", clip_value)
        self.huber_delta = none_if_off("huber_delta", huber_delta)
        self.value_norm = checked_value_norm(value_norm)
        self.normalize_advantage = normalize_advantage
        if isinstance(normalize_advantage_exclude_dims, int):
            normalize_advantage_exclude_dims = (normalize_advantage_exclude_dims,)
        self.normalize_advantage_exclude_dims = tuple(normalize_advantage_exclude_dims)
        self.mask_dead_values = mask_dead_values
        self.critic_states = checked_keys("critic_states", critic_states)

    # --------------------------------------------------------------- estimate
    def estimate(self, batch: TensorDictBase, *, gamma: float, lmbda: float) -> TensorDictBase:
        """Add values, advantages and value targets to consecutive steps ``[n_envs, T]``, in place.

        Values are denormalised before any return is computed. A step that terminated does not bootstrap;
        a time limit, the end of the batch and the last real step before padding do.

        Args:
            batch: consecutive steps ``[T]`` or ``[n_envs, T]`` with agent-shaped signals under ``"next"``.
                Of a recurrent critic's state the first entry of each row is read, if there is one.
            gamma: discount in [0, 1].
            lmbda: GAE's mixing in [0, 1].

        Returns:
            The same batch.

        Raises:
            KeyError: naming an entry that is missing.
        """
        for key, value in self.estimates(batch, gamma=gamma, lmbda=lmbda).items():
            batch.set(key, value)
        self.begin_batch()
        return batch

    def begin_batch(self) -> None:
        """Called when a batch has been estimated, before the loss is called on minibatches of it."""

    @torch.no_grad()
    def estimates(
        self, batch: TensorDictBase, *, gamma: float, lmbda: float
    ) -> dict[NestedKey, Tensor]:
        """What :meth:`estimate` adds, by key; only a recurrent critic's states are put into the batch.

        This is what gets compiled.
        """
        keys = self.tensor_keys
        raw, raw_next = trajectory_values(
            self.whole_critic, batch, value=keys.value, done=keys.done, states=self.critic_states
        )
        value = self.denormalise(raw.squeeze(-1))
        reward = read(batch, next_key(keys.reward))
        check_same_shape(value=value, reward=reward)
        time = batch.batch_dims - 1
        done, terminated = (read_flag(batch, next_key(key)) for key in (keys.done, keys.terminated))
        cut = before_padding(flag(batch, keys.step_mask), reward, time)
        died = end_of_life(batch, keys.mask, keys.truncated) if self.mask_dead_values else None
        if died is not None:  # nobody trains the values of the dead
            done, terminated = done | died, terminated | died
        advantage, value_target = gae(
            reward,
            value,
            self.denormalise(raw_next.squeeze(-1)),
            done | cut,
            terminated,
            gamma=gamma,
            lmbda=lmbda,
            time_dim=time,
        )
        if self.normalize_advantage:
            advantage = normalise_advantage(
                advantage,
                self._mask(batch, advantage, alive=True),
                exclude_dims=self.normalize_advantage_exclude_dims,
            )
        return {
            keys.value: raw,
            keys.old_value: value.unsqueeze(-1),
            keys.advantage: advantage.unsqueeze(-1),
            keys.value_target: value_target.unsqueeze(-1),
        }

    @property
    def whole_critic(self) -> TensorDictModuleBase:
        """What values observations: the critic, with whatever it shares with the actor."""
        return self.critic

    def denormalise(self, value: Tensor) -> Tensor:
        """Critic outputs ``[*B, n_agents]`` in units of the return."""
        return value if self.value_norm is None else self.value_norm.denormalise(value)

    # ---------------------------------------------------------------- compute
    def compute(self, tensordict: TensorDictBase) -> dict[str, Tensor]:
        """Losses and metrics from a minibatch ``[*B]``."""
        advantage = read(tensordict, self.tensor_keys.advantage)
        mask = self._mask(tensordict, advantage, alive=True)
        value_mask = self._mask(tensordict, advantage, alive=self.mask_dead_values)
        # The statistics move before the critic is run: PopArt changes its output layer in place.
        value_target = self._normalised_target(tensordict, value_mask)
        return {
            **self.policy(tensordict, advantage, mask),
            **self._value(tensordict, value_target, value_mask),
        }

    def policy(
        self, tensordict: TensorDictBase, advantage: Tensor, mask: Tensor | None
    ) -> dict[str, Tensor]:
        """The policy's loss and metrics from a minibatch ``[*B]``; advantage and mask ``[*B, n_agents]``."""
        raise NotImplementedError

    def distribution(self, tensordict: TensorDictBase) -> Any:
        """The actor's action distribution over a batch ``[*B]``, which is left unchanged."""
        return action_distribution(self._actor_layers, self._actor_head, tensordict)

    def _value(
        self, tensordict: TensorDictBase, value_target: Tensor, mask: Tensor | None
    ) -> dict[str, Tensor]:
        keys = self.tensor_keys
        old_value = read(tensordict, keys.value)
        if self.value_norm is not None and self.value_norm.rescales:
            old_value = self.value_norm.normalise(read(tensordict, keys.old_value))
        value = run(self.critic, tensordict, keys.value).squeeze(-1)
        error = clipped_value_error(
            value,
            old_value,
            value_target,
            clip_epsilon=self.clip_value,
            huber_delta=self.huber_delta,
        )
        return {
            "loss_critic": self.critic_coeff * masked_mean(error, mask),
            "explained_variance": explained_variance(value.detach(), value_target, mask),
        }

    def _normalised_target(self, tensordict: TensorDictBase, mask: Tensor | None) -> Tensor:
        value_target = read(tensordict, self.tensor_keys.value_target)
        if self.value_norm is None:
            return value_target
        if self.training:
            self.value_norm.update(value_target, mask)
        return self.value_norm.normalise(value_target)

    def _mask(self, tensordict: TensorDictBase, like: Tensor, *, alive: bool) -> Tensor | None:
        """Entries ``[*B, n_agents]`` that are real steps (of living agents), or None if all are."""
        lives = living(tensordict, self.tensor_keys.mask) if alive else None
        return counted(lives, flag(tensordict, self.tensor_keys.step_mask), like)


def entropy_of(distribution: Any, noise: Tensor | None = None) -> Tensor:
    """Entropy ``[*B, n_agents]``, by one reparametrised sample where there is no closed form.

    Args:
        distribution: of the agents' actions.
        noise: standard normal draws ``[*B, n_agents, d_action]`` of that sample; fresh ones if None.
    """
    try:
        return distribution.entropy()
    except NotImplementedError:
        if noise is None:
            return -distribution.log_prob(distribution.rsample())
    normal = unsquashed(distribution)
    action = normal.loc + normal.scale * noise
    for transform in distribution.transforms:
        action = transform(action)
    return -distribution.log_prob(action)


def unsquashed(distribution: Any) -> Any:
    """The normal distribution beneath what maps its draws into bounds."""
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return distribution
