"""Multi-agent soft actor-critic: the loss of MASAC, and of ISAC with independent critics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from marl_td.losses.arguments import check_critics, checked_value_norm
from marl_td.losses.central_critic import CentralCriticLoss
from marl_td.losses.entries import living, masked_mean, next_key, read, read_flag, run
from marl_td.losses.functional.checks import check_choice, check_count, check_positive
from marl_td.losses.functional.deterministic import joint_action_rows
from marl_td.losses.functional.returns import n_step_return
from marl_td.losses.functional.soft import PolicySample, soft_state_value
from marl_td.losses.group_actor import GroupActor
from marl_td.losses.regression import LOSS_FUNCTIONS, LossFunction, regression_error
from marl_td.losses.soft_actor import SoftActor
from marl_td.losses.targets import FrozenView, target_copy
from marl_td.losses.temperature import Temperature
from marl_td.losses.value_norm import ValueNorm

ACTOR_GRADIENTS = ("own", "current", "all")
ENTROPY_BONUSES = ("own", "team")


class MASACLoss(CentralCriticLoss):
    """Soft actor-critic for a group of agents (Haarnoja et al. 2018, https://arxiv.org/abs/1812.05905).

        y_i        = r_i + gamma (1 - terminated_i) [min_k Q_ik^-(x', u') - alpha_i log pi_i(u_i' | o_i')]
        loss_value = sum_k mean_i (Q_ik(x, u) - y_i)^2
        loss_actor = mean_i [alpha_i log pi_i(v_i | o_i) - min_k Q_ik(x, u_1, .., v_i, .., u_N)]
        loss_alpha = -mean_i log alpha_i (log pi_i(v_i | o_i) + H)

    x is what the critics read of the batch; u is the batch's joint action; u' and v are drawn from the live
    policies. Continuous actions are reparametrised. Of a discrete agent's own actions nothing is drawn: its
    critics give the values of all of them, given the others' actions, and both the target and the actor's
    loss are expectations over its policy (Christodoulou 2019, https://arxiv.org/abs/1910.07207). Dead agents
    teach no actor and no temperature, and their entropy is worth nothing.

    Args:
        actor: actor of this loss's group.
        critics: each reads x and (``central``, or continuous) the ``joint_action`` key ``[*B, n_agents, D]``,
            row i for agent i, and writes the ``action_value`` key: ``[*B, n_agents, 1]`` (continuous) or
            ``[*B, n_agents, n_actions]`` (discrete; agent i's own action is left out of its row as zeros).
        temperature: alpha.
        gamma: discount in [0, 1].
        loss_function: ``"l2"``, ``"l1"``, ``"smooth_l1"`` or ``"huber"``.
        huber_delta: where ``"huber"`` becomes linear, in the critics' units, > 0.
        actor_gradient: others' actions in the actor's loss. ``"own"`` takes them from the batch (as MADDPG),
            ``"current"`` those the rest of the group would take now: each actor answers present policies.
            ``"all"`` lets each agent's critics teach every (continuous) actor of the group as well, as
            BenchMARL does: where N critics value the same return, alpha is worth alpha / N.
        central: whether critics read the joint action; if false a continuous agent's read its own action
            and a discrete one's none.
        entropy_bonus: whose entropy the targets add: the agent's ``"own"``, or the ``"team"``'s sum.
        value_norm: running normalisation of the targets, which the critics then predict; None for none.
        n_steps: rewards in a target, at least 1. Of sequences it is computed here; single steps are to hold
            the discounted sum as reward, what is then reached under ``"next"``, and ``discount``.
        mask_dead_values: an agent's death ends its return: critics learn nothing from its later steps and
            bootstrap nothing from them. By default they learn what death is worth.
        actors: live actors of every group in the critics' order, this one included; those of other groups
            are only asked for their next actions. None: this group is alone.
        recurrent: whether batches are sequences ``[*B, T]`` for recurrent networks.
        priority_eta: share of the largest error in a sequence's priority, in [0, 1]; the rest is their mean.

    Reads and writes what :class:`marl_td.losses.ddpg.MADDPGLoss` does; besides, it reads
    ``("next", "agents", "discount")`` ``[*B, n_agents, 1]`` where there is one, and writes ``loss_alpha`` (of
    a fixed temperature without gradient), ``alpha`` and ``entropy`` (nats per agent). Errors and priorities
    are in the critics' units, the largest over the critics; values are in units of the return.

    Raises:
        TypeError: for an actor, critic, temperature or normaliser of another kind.
        ValueError: for an unknown option, a number out of range, no critic, or ``actors`` without this group.
    """

    ACTOR: ClassVar[type[GroupActor]] = SoftActor

    @dataclass
    class _AcceptedKeys(CentralCriticLoss._AcceptedKeys):
        done: NestedKey = ("agents", "done")
        discount: NestedKey = ("agents", "discount")

    out_keys: ClassVar[list[str]] = [
        "loss_actor",
        "loss_value",
        "loss_alpha",
        "alpha",
        "entropy",
        "td_error",
        "pred_value",
        "target_value",
        "pred_value_max",
        "target_value_max",
    ]

    def __init__(
        self,
        actor: SoftActor,
        critics: Sequence[TensorDictModuleBase],
        temperature: Temperature,
        *,
        gamma: float = 0.99,
        loss_function: LossFunction = "l2",
        huber_delta: float = 1.0,
        actor_gradient: Literal["own", "current", "all"] = "current",
        central: bool = True,
        entropy_bonus: Literal["own", "team"] = "own",
        value_norm: ValueNorm | None = None,
        n_steps: int = 1,
        mask_dead_values: bool = False,
        actors: Mapping[str, SoftActor] | None = None,
        recurrent: bool = False,
        priority_eta: float = 0.9,
    ) -> None:
        check_choice("loss_function", loss_function, LOSS_FUNCTIONS)
        check_choice("actor_gradient", actor_gradient, ACTOR_GRADIENTS)
        check_choice("entropy_bonus", entropy_bonus, ENTROPY_BONUSES)
        self.check_actor(actor)
        check_critics(critics)
        check_count(n_steps=n_steps)
        check_positive(huber_delta=huber_delta)
        if not isinstance(temperature, Temperature):
            raise TypeError(f"`temperature` must be a Temperature; got {temperature!r}.")
        super().__init__(
            "actors",
            {actor.group: actor} if actors is None else actors,
            actor.group,
            gamma=gamma,
            central=central,
            mask_dead_values=mask_dead_values,
            recurrent=recurrent,
            priority_eta=priority_eta,
        )
        self.loss_function = loss_function
        self.huber_delta = huber_delta
        self.actor_gradient = actor_gradient
        self.entropy_bonus = entropy_bonus
        self.n_steps = n_steps
        self.actor = actor
        self.critics = nn.ModuleList(critics)
        self.target_critics = target_copy(self.critics)
        self.temperature = temperature
        self.value_norm = checked_value_norm(value_norm)
        self._frozen_critics = FrozenView(self.critics)

    def networks(self) -> dict[str, list[nn.Module]]:
        """The networks that each named loss teaches."""
        return {
            "loss_actor": [self.actor],
            "loss_value": [self.critics],
            "loss_alpha": [self.temperature],
        }

    def target_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """The critics with their targets; actors have none."""
        return [(self.critics, self.target_critics)]

    def compute(self, tensordict: TensorDictBase) -> dict[str, Tensor]:
        """Losses, metrics and priority from a batch ``[*B]`` (``[*B, T]`` if recurrent)."""
        taken = self._taken(tensordict)
        alpha = self.temperature()
        value = self._value(tensordict, taken, alpha)
        # The actor's loss goes first: its gradient goes through the critics, and trainers that step one loss
        # after the other must not have moved them by then.
        return {**self._policy(tensordict, taken, alpha), **value, "alpha": alpha.mean()}

    # ------------------------------------------------------------------ value
    def _value(
        self, tensordict: TensorDictBase, taken: list[Tensor], alpha: Tensor
    ) -> dict[str, Tensor]:
        predicted = self._values(self.critics, tensordict, self._rows(taken))
        if self.actor.discrete:
            predicted = (predicted * taken[self._position]).sum(-1)
        target = self._target(tensordict, alpha)
        mask = self._mask(tensordict, target, alive=self.mask_dead_values)
        normalised = self._normalised(target, mask).expand_as(predicted)
        error = regression_error(predicted, normalised, self.loss_function, self.huber_delta)
        value = self._in_units(predicted.detach()).mean(0)
        td_error = (predicted.detach() - normalised).abs().amax(0)
        return {
            "loss_value": masked_mean(self._weighted(tensordict, error.sum(0)), mask),
            "td_error": masked_mean(td_error, mask),
            "pred_value": masked_mean(value, mask),
            "target_value": masked_mean(target, mask),
            "pred_value_max": value.max(),
            "target_value_max": target.max(),
            "priority": td_error,
        }

    @torch.no_grad()
    def _target(self, tensordict: TensorDictBase, alpha: Tensor) -> Tensor:
        """Regression target y in units of the return, ``[*B, n_agents]``."""
        keys = self.tensor_keys
        next_value = self._next_value(self._following(tensordict), alpha)
        if self.recurrent:
            next_value = next_value[..., 1:, :]
        ended = read_flag(tensordict, next_key(keys.terminated))
        ended = self._with_deaths(tensordict, ended)
        reward = read(tensordict, next_key(keys.reward))
        if self.recurrent and self.n_steps > 1:
            done = read_flag(tensordict, next_key(keys.done))
            steps = (reward, next_value, done, ended)
            return n_step_return(*steps, gamma=self.gamma, n_steps=self.n_steps, time_dim=-2)
        kept = torch.where(ended, torch.zeros_like(next_value), next_value)
        discount = tensordict.get(next_key(keys.discount), None)
        return reward + (self.gamma if discount is None else discount.squeeze(-1)) * kept

    def _next_value(self, following: TensorDictBase, alpha: Tensor) -> Tensor:
        """Soft value of the states in ``following``, ``[*B, n_agents]``."""
        joint = self._joint(following)
        samples = [actor(joint) for actor in self._actors.values()]
        own = samples[self._position]
        rows = self._rows([sample.action for sample in samples])
        bonus = -alpha * own.log_prob
        alive = living(following, self.tensor_keys.mask)
        if alive is not None:
            bonus = torch.where(alive, bonus, torch.zeros_like(bonus))
        if self.entropy_bonus == "team":
            bonus = bonus.sum(-1, keepdim=True).expand_as(bonus)
        return soft_state_value(self._least(self.target_critics, following, rows), own, bonus)

    # ----------------------------------------------------------------- policy
    def _policy(
        self, tensordict: TensorDictBase, taken: list[Tensor], alpha: Tensor
    ) -> dict[str, Tensor]:
        sample = self.actor(tensordict)
        action, alive = sample.action, living(tensordict, self.tensor_keys.mask)
        if self.actor_gradient == "own":
            rows = self._rows(taken, action)
        elif self.actor_gradient == "current":
            rows = self._rows(self._replaced(taken, action.detach()), action)
        else:
            if alive is not None:  # what the dead would do is no lesson for them
                action = torch.where(alive.unsqueeze(-1), action, action.detach())
            rows = self._rows(self._replaced(taken, action))
        gain = self._gain(tensordict, rows, sample, alpha)
        mask = self._mask(tensordict, gain, alive=True)
        return {
            "loss_actor": -masked_mean(gain, mask),
            "loss_alpha": self.temperature.loss(sample.log_prob, mask),
            "entropy": -masked_mean(sample.log_prob.detach(), mask),
        }

    def _gain(
        self,
        tensordict: TensorDictBase,
        rows: Tensor | None,
        sample: PolicySample,
        alpha: Tensor,
    ) -> Tensor:
        """What each actor maximises, ``[*B, n_agents]``: the soft value of its policy."""
        least = self._least(self._frozen_critics.module, tensordict, rows)
        return soft_state_value(least, sample, -alpha * sample.log_prob)

    # ---------------------------------------------------------------- helpers
    def _rows(self, actions: list[Tensor], own_action: Tensor | None = None) -> Tensor | None:
        """What each agent's critics take as action, ``[*B, n_agents, D]``; None for nothing."""
        own = actions[self._position]
        if not self.central:
            return None if self.actor.discrete else own if own_action is None else own_action
        if self.actor.discrete:
            own_action = torch.zeros_like(own)
        return joint_action_rows(actions, self._position, own_action)

    def _values(
        self, critics: nn.Module, tensordict: TensorDictBase, rows: Tensor | None
    ) -> Tensor:
        """Every critic's output, ``[n_critics, *B, n_agents]`` (discrete: and ``n_actions``)."""
        source = tensordict.copy()
        if rows is not None:
            source.set(self.tensor_keys.joint_action, rows)
        found = [
            run(critic, source, self.tensor_keys.action_value) for critic in critics.children()
        ]
        values = torch.stack(found)
        return values if self.actor.discrete else values.squeeze(-1)

    def _least(self, critics: nn.Module, tensordict: TensorDictBase, rows: Tensor | None) -> Tensor:
        """The smallest of the critics' values in units of the return."""
        return self._in_units(self._values(critics, tensordict, rows).amin(0))

    def _in_units(self, value: Tensor) -> Tensor:
        """Critics' outputs in units of the return."""
        return value if self.value_norm is None else self.value_norm.denormalise(value)

    def _normalised(self, target: Tensor, mask: Tensor | None) -> Tensor:
        """Targets in the critics' units; in training the statistics move with them."""
        if self.value_norm is None:
            return target
        if self.training:
            self.value_norm.update(target, mask)
        return self.value_norm.normalise(target)
