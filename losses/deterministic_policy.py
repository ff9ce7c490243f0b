"""What the losses of deterministic actor-critics share: MADDPG, MATD3, FACMAC and their relatives."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.objectives.utils import distance_loss

from marl_td.losses.arguments import check_target
from marl_td.losses.central_critic import CentralCriticLoss
from marl_td.losses.entries import living, masked_mean, next_key, read, run
from marl_td.losses.functional.checks import check_bool, check_choice, check_not_negative
from marl_td.losses.functional.deterministic import joint_action_rows
from marl_td.losses.functional.returns import one_step_target
from marl_td.losses.group_actor import GroupActor
from marl_td.losses.targets import FrozenView, target_copy

LOSS_FUNCTIONS = ("l2", "l1", "smooth_l1")


class DeterministicPolicyLoss(CentralCriticLoss):
    """Base of the losses whose actors follow the gradient of a critic with respect to actions.

        y          = r + gamma (1 - terminated) Q^-(x', u'),   u' by the target actors
        loss_value = mean of (Q(x, u) - y)^2
        loss_actor = -mean of Q(x, u with new actions) + c mean(parameter^2)

    Values are ``[*B, n_values]``: one per agent, or one of the team. A subclass changes the methods that say
    what critics take as actions and what they value: :meth:`_actor_rows`, :meth:`_target_rows`,
    :meth:`_action_value`, :meth:`_next_value`, :meth:`_signal`, :meth:`_of_values`, :meth:`_actor_mean`.

    Args:
        actor: actor of this loss's group.
        critic: reads x and the ``joint_action`` key ``[*B, n_agents, D]`` (row i for agent i, made by this
            loss) and writes the ``action_value`` key ``[*B, n_agents, 1]``.
        gamma: discount in [0, 1].
        loss_function: ``"l2"``, ``"l1"`` or ``"smooth_l1"``.
        central: whether critics take the joint action, or their own agent's action only.
        regularisation_coeff: c, >= 0; the reference code of MADDPG takes 1e-3.
        mask_dead_values: an agent's death ends its return: critics learn nothing from its later steps and
            bootstrap nothing from them. By default they learn what death is worth.
        target_actors: target actors (``target_copy``) of every group in the critic's order, this group's own
            included; losses of competing groups are given the *same* mapping. Each loss owns, saves and moves
            only its own group's target actor, and sees what the others have done. None: this group is alone.
        recurrent: whether batches are sequences ``[*B, T]`` for recurrent networks.
        priority_eta: share of the largest error in a sequence's priority, in [0, 1]; the rest is their mean.

    Reads (defaults): ``("next", "agents", "reward" | "terminated")`` ``[*B, n_agents, 1]``, the actions, what
    the networks read; with several groups, everything of group g is under ``("joint", g)``. If present: alive
    mask ``mask`` ``[*B, n_agents]`` (with ``mask_dead_values`` also under ``"next"``, and there
    ``truncated``: who was only cut off), padding mask ``step_mask`` ``[*B, 1]`` (both true = counts),
    importance weight ``priority_weight`` ``[*B]`` of the critic's error (the actor's loss is not weighted, as
    in D4PG, Barth-Maron et al. 2018, https://arxiv.org/abs/1804.08617, algorithm 1).

    Writes ``loss_actor``, ``loss_value`` and metrics ``td_error`` (mean absolute), ``pred_value``,
    ``target_value``, ``pred_value_max``, ``target_value_max``, ``parameter_square``, ``entropy`` (discrete
    only); :meth:`forward` also writes the absolute error per agent to the batch's ``priority`` key, and the
    priority of each replayed item to its ``item_priority`` key, ``[*B, n_agents, 1]`` both.

    Raises:
        TypeError: for an actor that is no GroupActor, or a critic that is no TensorDictModule.
        ValueError: for an unknown option, a number out of range, or ``target_actors`` without this group or
            with its live actor.
    """

    out_keys: ClassVar[list[str]] = [
        "loss_actor",
        "loss_value",
        "td_error",
        "pred_value",
        "target_value",
        "pred_value_max",
        "target_value_max",
        "parameter_square",
    ]

    def __init__(
        self,
        actor: GroupActor,
        critic: TensorDictModuleBase | nn.Module,
        *,
        gamma: float = 0.95,
        loss_function: Literal["l2", "l1", "smooth_l1"] = "l2",
        central: bool = True,
        regularisation_coeff: float = 0.0,
        mask_dead_values: bool = False,
        target_actors: Mapping[str, GroupActor] | None = None,
        recurrent: bool = False,
        priority_eta: float = 0.9,
    ) -> None:
        self.check_actor(actor)
        check_choice("loss_function", loss_function, LOSS_FUNCTIONS)
        check_not_negative(regularisation_coeff=regularisation_coeff)
        if target_actors is None:
            target_actors = {actor.group: target_copy(actor)}
        check_target("target_actors", actor, target_actors.get(actor.group))
        super().__init__(
            "target_actors",
            target_actors,
            actor.group,
            gamma=gamma,
            central=central,
            mask_dead_values=mask_dead_values,
            recurrent=recurrent,
            priority_eta=priority_eta,
        )
        self.loss_function = loss_function
        self.regularisation_coeff = regularisation_coeff
        self.actor = actor
        self.critic = critic
        self.target_actor = target_actors[actor.group]
        self.target_critic = target_copy(critic)
        self._frozen_critic = FrozenView(critic)

    def networks(self) -> dict[str, list[nn.Module]]:
        """The networks that each named loss teaches."""
        return {"loss_actor": [self.actor], "loss_value": [self.critic]}

    def target_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Actor and critic with their targets; other groups' target actors are theirs to move."""
        return [(self.actor, self.target_actor), (self.critic, self.target_critic)]

    def compute(self, tensordict: TensorDictBase) -> dict[str, Tensor]:
        """Losses, metrics and priority from a batch ``[*B]`` (``[*B, T]`` if recurrent)."""
        taken = self._taken(tensordict)
        value = self._value(tensordict, taken)
        # The actor's loss first: its gradient goes through the critic, and trainers that step one loss after
        # the other must not have moved the critic by then.
        return {**self._policy(tensordict, taken), **value}

    # ------------------------------------------------------------------ value
    def _value(self, tensordict: TensorDictBase, taken: list[Tensor]) -> dict[str, Tensor]:
        predicted = self._action_value(self.critic, tensordict, self._rows(taken))
        return self._regression(tensordict, predicted, self._target(tensordict))

    def _regression(
        self, tensordict: TensorDictBase, predicted: Tensor, target: Tensor
    ) -> dict[str, Tensor]:
        """Loss, metrics and priority of regressing values on their target, both ``[*B, n_values]``."""
        mask = self._mask(tensordict, predicted, alive=self.mask_dead_values)
        error = distance_loss(predicted, target, loss_function=self.loss_function)
        error = self._weighted(tensordict, error)
        predicted = predicted.detach()
        td_error = (predicted - target).abs()
        return {
            "loss_value": masked_mean(error, mask),
            "td_error": masked_mean(td_error, mask),
            "pred_value": masked_mean(predicted, mask),
            "target_value": masked_mean(target, mask),
            "pred_value_max": predicted.max(),
            "target_value_max": target.max(),
            "priority": td_error,
        }

    @torch.no_grad()
    def _target(self, tensordict: TensorDictBase) -> Tensor:
        """Regression target y, ``[*B, n_values]``."""
        keys = self.tensor_keys
        following = self._following(tensordict)
        next_value = self._next_value(following, self._target_rows(self._joint(following)))
        if self.recurrent:
            next_value = next_value[..., 1:, :]
        ended = self._signal(tensordict, next_key(keys.terminated))
        check_bool(next_key(keys.terminated), ended)
        ended = self._with_deaths(tensordict, ended)
        reward = self._signal(tensordict, next_key(keys.reward))
        return one_step_target(reward, next_value, ended, gamma=self.gamma)

    def _next_value(self, following: TensorDictBase, rows: Tensor) -> Tensor:
        """Value of the next step by the target networks, ``[*B, n_values]``."""
        return self._action_value(self.target_critic, following, rows)

    def _target_rows(self, joint: TensorDictBase) -> Tensor:
        """What each agent's target critic takes as the next action, ``[*B, n_agents, D]``."""
        actors = self._actors.values()
        return self._rows([self._target_action(actor, joint) for actor in actors])

    def _target_action(self, actor: GroupActor, joint: TensorDictBase) -> Tensor:
        """Next actions of one group by its target actor."""
        return actor(joint)[0]

    def _signal(self, tensordict: TensorDictBase, key: NestedKey) -> Tensor:
        """A reward or an end, ``[*B, n_values]``."""
        return read(tensordict, key)

    # ----------------------------------------------------------------- policy
    def _policy(self, tensordict: TensorDictBase, taken: list[Tensor]) -> dict[str, Tensor]:
        action, parameter = self.actor(tensordict)
        alive = living(tensordict, self.tensor_keys.mask)
        if alive is not None:  # what the dead would do is no lesson for them
            action = torch.where(alive.unsqueeze(-1), action, action.detach())
        value = self._actor_value(tensordict, taken, action, parameter)
        mask = self._mask(tensordict, action[..., 0], alive=True)
        out = {"loss_actor": -self._actor_mean(tensordict, value, self._of_values(mask))}
        if parameter is not None:
            square = self._actor_mean(tensordict, parameter.square().mean(-1), mask)
            out["loss_actor"] = out["loss_actor"] + self.regularisation_coeff * square
            out["parameter_square"] = square
            if self.actor.discrete:
                entropy = self.actor.entropy(tensordict, parameter.detach())
                out["entropy"] = masked_mean(entropy, mask)
        return out

    def _actor_value(
        self,
        tensordict: TensorDictBase,
        taken: list[Tensor],
        action: Tensor,
        parameter: Tensor | None,
    ) -> Tensor:
        """What the actors climb, ``[*B, n_values]``: the value of their new actions."""
        rows = self._actor_rows(taken, action)
        return self._action_value(self._frozen_critic.module, tensordict, rows)

    def _actor_rows(self, taken: list[Tensor], action: Tensor) -> Tensor:
        """What each agent's critic takes as action in the actor's loss, ``[*B, n_agents, D]``."""
        return self._rows(taken, action)

    def _of_values(self, mask: Tensor | None) -> Tensor | None:
        """Which values ``[*B, n_values]`` teach actors, from the agents' ``[*B, n_agents]``."""
        return mask

    def _actor_mean(self, tensordict: TensorDictBase, value: Tensor, mask: Tensor | None) -> Tensor:
        """Mean over the entries that teach actors, of values ``[*B, n_values]`` (or one number per agent)."""
        return masked_mean(value, mask)

    # ---------------------------------------------------------------- helpers
    def _rows(self, actions: list[Tensor], own_action: Tensor | None = None) -> Tensor:
        """What each agent's critic takes as action, ``[*B, n_agents, D]``."""
        if self.central:
            return joint_action_rows(actions, self._position, own_action)
        return actions[0] if own_action is None else own_action

    def _action_value(self, critic: Any, tensordict: TensorDictBase, rows: Tensor) -> Tensor:
        """Q, ``[*B, n_values]``."""
        source = tensordict.copy().set(self.tensor_keys.joint_action, rows)
        return run(critic, source, self.tensor_keys.action_value).squeeze(-1)
