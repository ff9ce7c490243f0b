"""Policy gradient with a counterfactual baseline from a central critic: COMA."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from marl_td.losses.arguments import (
    check_modules,
    checked_keys,
    checked_value_norm,
    none_if_off,
)
from marl_td.losses.common import MultiAgentLoss
from marl_td.losses.entries import (
    flag,
    living,
    masked_mean,
    next_key,
    read,
    read_flag,
    require,
    run,
)
from marl_td.losses.functional.action_values import chosen_action_value
from marl_td.losses.functional.checks import check_not_negative, check_same_shape
from marl_td.losses.functional.counterfactual import counterfactual_advantage
from marl_td.losses.functional.policy_gradient import explained_variance, regression_error
from marl_td.losses.functional.returns import lambda_return
from marl_td.losses.stochastic_actor import (
    action_distribution,
    actor_parts,
    draw_actions,
    log_prob_of,
)
from marl_td.losses.targets import target_copy
from marl_td.losses.trajectory import (
    before_padding,
    counted,
    cut_off,
    end_of_life,
    trajectory_values,
)
from marl_td.losses.value_norm import ValueNorm

Others = Mapping[str, TensorDictModuleBase]


class ComaLoss(MultiAgentLoss):
    """Counterfactual multi-agent policy gradients (Foerster et al. 2018, https://arxiv.org/abs/1705.08926).

        A_i         = Q_i(s, u) - sum over a of pi_i(a | o_i) Q_i(s, (a, u_-i))
        loss_actor  = -mean of A_i log pi_i(u_i | o_i) - entropy_coeff * entropy
        loss_critic = mean of (Q_i(s, u) - G_i)^2 / 2
        G_i,t       = r_t + gamma (1 - terminated_t) [(1 - lmbda) Q_i'(s_t+1, u_t+1) + lmbda G_i,t+1]

    with Q' from a target network. First :meth:`estimate` adds the targets G to a batch ``[n_envs, T]`` of
    consecutive steps; then the loss is called on minibatches ``[*B]`` of it. The actor's gradient is that of
    the policy that acted: take few steps on a batch.

    Args:
        actor: layers and a head; its distribution scores ``action`` ``[*B, n_agents]`` and has ``probs``.
        critic: reads the others' ``action`` and whatever else; writes ``action_value`` ``[*B, n_agents,
            n_actions]``, which must not depend on the agent's own action.
        entropy_coeff: weight of the entropy bonus, >= 0.
        critic_coeff: weight of the critic's loss, >= 0.
        huber_delta: where the critic's error becomes linear, in its units; None or 0 for squared.
        value_norm: running normalisation of the critic's targets; None for none.
        mask_dead_values: an agent's death ends its return, and the critic's loss leaves the dead out; the
            actor's never counts them.
        critic_states: keys of a recurrent critic's hidden state, as for
            :class:`marl_td.losses.ppo.MAPPOLoss`.
        others: other groups whose actions the critic reads, by name: the policy with which each acts. It is
            run on ``("joint", name)`` and on the entries of all groups where a trajectory is cut.

    Reads (defaults): ``action``, ``log_prob``, ``value_target``; if present the alive mask ``mask``
    ``[*B, n_agents]`` (with ``mask_dead_values`` also under ``"next"``, and there ``truncated``: who was only
    cut off) and the padding mask ``step_mask`` ``[*B, 1]``. Writes ``loss_actor``, ``loss_critic``; and as
    metrics ``entropy``, ``kl_approx`` (of the policy from the one that acted), ``advantage`` (mean absolute),
    ``explained_variance``.

    Raises:
        TypeError: for an actor without a distribution, a critic that is no TensorDictModule, or a
            ``value_norm`` that is none.
        ValueError: if a number is negative or not finite.
    """

    @dataclass
    class _AcceptedKeys:
        action: NestedKey = ("agents", "action")
        sample_log_prob: NestedKey = ("agents", "log_prob")
        action_value: NestedKey = ("agents", "action_value")
        value_target: NestedKey = ("agents", "value_target")
        reward: NestedKey = ("agents", "reward")
        done: NestedKey = ("agents", "done")
        terminated: NestedKey = ("agents", "terminated")
        truncated: NestedKey = ("agents", "truncated")
        mask: NestedKey = ("agents", "mask")
        step_mask: NestedKey = "step_mask"

    out_keys: ClassVar[list[str]] = [
        "loss_actor",
        "loss_critic",
        "entropy",
        "kl_approx",
        "advantage",
        "explained_variance",
    ]

    def __init__(
        self,
        actor: Any,
        critic: TensorDictModuleBase,
        *,
        entropy_coeff: float = 0.0,
        critic_coeff: float = 1.0,
        huber_delta: float | None = None,
        value_norm: ValueNorm | None = None,
        mask_dead_values: bool = False,
        critic_states: Sequence[NestedKey] = (),
        others: Others | None = None,
    ) -> None:
        super().__init__()
        check_modules(critic=critic)
        check_not_negative(entropy_coeff=entropy_coeff, critic_coeff=critic_coeff)
        layers, head = actor_parts(actor)
        self.actor = actor
        self.critic = critic
        self.target_critic = target_copy(critic)
        # Views: the actor itself owns its parts, other groups' losses own their actors.
        self.__dict__["_actor_layers"] = layers
        self.__dict__["_actor_head"] = head
        self.__dict__["_others"] = dict(others or {})
        self.entropy_coeff = entropy_coeff
        self.critic_coeff = critic_coeff
        self.huber_delta = none_if_off("huber_delta", huber_delta)
        self.value_norm = checked_value_norm(value_norm)
        self.mask_dead_values = mask_dead_values
        self.critic_states = checked_keys("critic_states", critic_states)

    def target_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """The critic and its target."""
        return [(self.critic, self.target_critic)]

    @property
    def memory_keys(self) -> list[NestedKey]:
        """Keys of the hidden states of the critic and its target that go on from one batch to the next."""
        return [*self.critic_states, *map(target_key, self.critic_states)]

    # --------------------------------------------------------------- estimate
    @torch.no_grad()
    def estimate(self, batch: TensorDictBase, *, gamma: float, lmbda: float) -> TensorDictBase:
        """Add ``value_target`` to consecutive steps ``[n_envs, T]``, in place.

        A termination does not bootstrap. A time limit, the end of the batch and the last real step before
        padding do: with the value of actions that the policies draw in the state that was reached.

        Args:
            batch: consecutive steps ``[T]`` or ``[n_envs, T]`` with agent-shaped signals under ``"next"``. Of
                the critics' hidden states (:attr:`memory_keys`) the first entry of each row is read, if there
                is one; they are put into the batch.
            gamma: discount in [0, 1].
            lmbda: mixing of n-step returns in [0, 1].

        Returns:
            The same batch.

        Raises:
            KeyError: naming an entry that is missing.
        """
        keys = self.tensor_keys
        reward = read(batch, next_key(keys.reward))
        time = batch.batch_dims - 1
        done = read_flag(batch, next_key(keys.done))
        check_same_shape(reward=reward, done=done)
        done = done | before_padding(flag(batch, keys.step_mask), reward, time)
        cut = cut_off(batch, keys.mask, keys.truncated)
        work = self._with_next_actions(batch, done.all(-1), cut, time)
        reached = self._target_values(batch, work)
        next_value = chosen_action_value(reached, require(work, next_key(keys.action)))
        terminated = read_flag(batch, next_key(keys.terminated))
        died = end_of_life(batch, keys.mask, keys.truncated) if self.mask_dead_values else None
        if died is not None:  # nobody trains the values of the dead
            terminated = terminated | died
            done = done if cut is None else done | cut
        value_target = lambda_return(
            reward,
            self.denormalise(next_value),
            done,
            terminated,
            gamma=gamma,
            lmbda=lmbda,
            time_dim=time,
        )
        return batch.set(keys.value_target, value_target.unsqueeze(-1))

    def denormalise(self, value: Tensor) -> Tensor:
        """Critic outputs in units of the return."""
        return value if self.value_norm is None else self.value_norm.denormalise(value)

    def _with_next_actions(
        self, batch: TensorDictBase, ended: Tensor, alone: Tensor | None, time: int
    ) -> TensorDictBase:
        """A copy with the actions in the reached states: those taken, or drawn where it is cut.

        For all where it ``ended`` ``[*B]``, for agents of the own group also ``alone`` ``[*B, n_agents]``.
        """
        work = batch.copy()
        last = torch.zeros_like(ended)
        last.narrow(time, ended.shape[time] - 1, 1).fill_(True)
        cut = (ended | last).unsqueeze(-1)
        group = self.tensor_keys.action[0]
        sources = {group: (self.actor, (group,))}
        sources.update({name: (actor, ("joint", name)) for name, actor in self._others.items()})
        following = require(batch, "next")
        for name, (actor, prefix) in sources.items():
            taken = require(batch, (*prefix, "action"))
            drawn = draw_actions(actor, name, require(following, prefix), following)
            shifted = taken.roll(-1, time)
            where = cut if alone is None or name != group else cut | alone
            where = where.reshape(*where.shape, *[1] * (taken.ndim - where.ndim))
            work.set(("next", *prefix, "action"), torch.where(where, drawn, shifted))
        return work

    def _target_values(self, batch: TensorDictBase, work: TensorDictBase) -> Tensor:
        """Target values ``[n_envs, T, n_agents, n_actions]`` of the reached states.

        The hidden states of a recurrent critic and of its target are put into the batch.
        """
        keys = self.tensor_keys
        options = {"value": keys.action_value, "done": keys.done, "states": self.critic_states}
        if self.critic_states:
            trajectory_values(self.critic, work, **options)
        own = work.copy()
        for key in self.critic_states:
            batch.set(key, work.get(key)).set(next_key(key), work.get(next_key(key)))
            start = batch.get(target_key(key), None)
            own.set(key, torch.zeros_like(own.get(key)) if start is None else start)
        _, reached = trajectory_values(self.target_critic, own, **options)
        for key in self.critic_states:
            batch.set(target_key(key), own.get(key))
            batch.set(next_key(target_key(key)), own.get(next_key(key)))
        return reached

    # ---------------------------------------------------------------- compute
    def compute(self, tensordict: TensorDictBase) -> dict[str, Tensor]:
        """Losses and metrics from a minibatch ``[*B]``."""
        keys = self.tensor_keys
        value_target = read(tensordict, keys.value_target)
        alive, steps = living(tensordict, keys.mask), flag(tensordict, keys.step_mask)
        value_mask = counted(alive if self.mask_dead_values else None, steps, value_target)
        if self.value_norm is not None:
            if self.training:
                self.value_norm.update(value_target, value_mask)
            value_target = self.value_norm.normalise(value_target)
        action_value = run(self.critic, tensordict, keys.action_value)
        chosen = chosen_action_value(action_value, require(tensordict, keys.action))
        error = regression_error(chosen, value_target, huber_delta=self.huber_delta)
        return {
            **self._policy(tensordict, action_value.detach(), counted(alive, steps, value_target)),
            "loss_critic": self.critic_coeff * masked_mean(error, value_mask),
            "explained_variance": explained_variance(chosen.detach(), value_target, value_mask),
        }

    def _policy(
        self, tensordict: TensorDictBase, action_value: Tensor, mask: Tensor | None
    ) -> dict[str, Tensor]:
        action = require(tensordict, self.tensor_keys.action)
        old_log_prob = require(tensordict, self.tensor_keys.sample_log_prob)
        distribution = self.distribution(tensordict)
        log_prob = log_prob_of(distribution, action)
        # Differences of values: the normalisation's mean plays no part, its scale does.
        advantage = counterfactual_advantage(
            self.denormalise(action_value.transpose(-1, -2)).transpose(-1, -2),
            distribution.probs.detach(),
            action,
        )
        entropy = masked_mean(distribution.entropy(), mask)
        log_ratio = (log_prob - old_log_prob).detach()
        gain = masked_mean(advantage * log_prob, mask)
        return {
            "loss_actor": -gain - self.entropy_coeff * entropy,
            "entropy": entropy,
            "kl_approx": masked_mean(log_ratio.exp() - 1.0 - log_ratio, mask),
            "advantage": masked_mean(advantage.abs(), mask),
        }

    def distribution(self, tensordict: TensorDictBase) -> Any:
        """The actor's action distribution over a batch ``[*B]``, which is left unchanged."""
        return action_distribution(self._actor_layers, self._actor_head, tensordict)


def target_key(key: NestedKey) -> NestedKey:
    """Where the hidden state of the target of a network with its state at ``key`` is."""
    return f"target_{key}" if isinstance(key, str) else (*key[:-1], f"target_{key[-1]}")
