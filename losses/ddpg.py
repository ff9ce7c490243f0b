"""Multi-agent DDPG: the loss of MADDPG with or without policy ensembles, and of IDDPG."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from marl_td.losses.arguments import check_modules
from marl_td.losses.deterministic_policy import DeterministicPolicyLoss
from marl_td.losses.entries import require
from marl_td.losses.functional.checks import check_choice, check_count
from marl_td.losses.functional.ensembles import ensemble_weight
from marl_td.losses.group_actor import GroupActor

ACTOR_GRADIENTS = ("own", "all")
DISCRETE_GRADIENTS = ("straight_through", "expected")


def check_discrete_gradient(discrete_gradient: str, actor_gradient: str) -> None:
    """Refuse the mean over own actions where the others' actions change, too.

    Raises:
        ValueError: if the two do not go together.
    """
    if discrete_gradient == "expected" and actor_gradient != "own":
        raise ValueError(
            "discrete_gradient=expected is the mean over an agent's own actions, beside what the others did: "
            f"it needs actor_gradient=own (got {actor_gradient})."
        )


class MADDPGLoss(DeterministicPolicyLoss):
    """DDPG for a group of agents with central critics (Lowe et al. 2017, https://arxiv.org/abs/1706.02275).

        y_i        = r_i + gamma (1 - terminated_i) Q_i^-(x', mu_1^-(o_1'), .., mu_N^-(o_N'))
        loss_value = mean_i (Q_i(x, u_1, .., u_N) - y_i)^2
        loss_actor = -mean_i Q_i(x, u_1, .., mu_i(o_i), .., u_N) + c mean(parameter^2)

    x is what the critic reads of the batch, u the actions in the batch; the N agents are those of *all*
    groups in the critic's scope. Dead agents teach no actor. ``central=False`` is IDDPG: Q_i(o_i, u_i).

    With an ensemble (section 4.3 of the paper) every agent has ``ensemble_size`` sub-policies and plays an
    episode with one of them, whose index is in the batch; the actor must read it. A sub-policy learns from
    what it played, and all count the same: the mean of Q over steps becomes the mean over sub-policies of the
    means over their steps (eq. 10), see :func:`marl_td.losses.functional.ensembles.ensemble_weight`.

    Args:
        actor: actor of this loss's group.
        critic: as for :class:`DeterministicPolicyLoss`.
        actor_gradient: ``"own"`` takes all others' actions from the batch (the paper); ``"all"`` takes the
            new actions of the whole group, so that each critic teaches every actor of the group (the central
            policy gradient of FACMAC, and what BenchMARL does).
        discrete_gradient: for discrete actions. ``"straight_through"`` follows the critic's slope at a sample
            by Gumbel-softmax (the reference code), which says nothing certain about the value of *another*
            action. ``"expected"`` climbs the exact mean of the critic over the agent's own actions, as
            discrete SAC does, for a forward pass of the critic per action; ``actor_gradient="own"`` only.
        ensemble_size: sub-policies of each agent, >= 1: K.
        options: as for :class:`DeterministicPolicyLoss`.

    Reads and writes what :class:`DeterministicPolicyLoss` lists, and with an ensemble reads
    ``(group, "sub_policy")``, int64 ``[*B, n_agents]``.

    Raises:
        ValueError: for an unknown option, a number out of range, or ``target_actors`` without this group.
    """

    def __init__(
        self,
        actor: GroupActor,
        critic: TensorDictModuleBase,
        *,
        actor_gradient: Literal["own", "all"] = "own",
        discrete_gradient: Literal["straight_through", "expected"] = "straight_through",
        ensemble_size: int = 1,
        target_actors: Mapping[str, GroupActor] | None = None,
        **options: Any,
    ) -> None:
        check_modules(critic=critic)
        super().__init__(actor, critic, target_actors=target_actors, **options)
        check_choice("actor_gradient", actor_gradient, ACTOR_GRADIENTS)
        check_choice("discrete_gradient", discrete_gradient, DISCRETE_GRADIENTS)
        check_discrete_gradient(discrete_gradient, actor_gradient)
        check_count(ensemble_size=ensemble_size)
        self.actor_gradient = actor_gradient
        self._critic_keys = list(critic.in_keys)
        self.expected = actor.discrete and discrete_gradient == "expected"
        self.ensemble_size = ensemble_size

    def _actor_value(
        self,
        tensordict: TensorDictBase,
        taken: list[Tensor],
        action: Tensor,
        parameter: Tensor | None,
    ) -> Tensor:
        if not self.expected or parameter is None:
            return super()._actor_value(tensordict, taken, action, parameter)
        probs = self.actor.probabilities(tensordict, parameter)
        return (probs * self._value_of_each_action(tensordict, taken)).sum(-1)

    @torch.no_grad()
    def _value_of_each_action(self, tensordict: TensorDictBase, taken: list[Tensor]) -> Tensor:
        """Q of each of an agent's own actions beside what the others did, ``[*B, n_agents, n_actions]``."""
        like = taken[self._position]
        n_actions = like.shape[-1]
        each = torch.eye(n_actions, device=like.device).unbind(0)
        rows = [self._rows(taken, action.expand_as(like)) for action in each]
        # One pass over all of them, side by side in the first dimension: a sequence stays a sequence.
        seen = tensordict.select(*self._critic_keys, strict=False)
        copies = seen.expand(n_actions, *seen.batch_size).flatten(0, 1)
        value = self._action_value(self.critic, copies, torch.cat(rows))
        return torch.stack(value.chunk(n_actions), -1)

    def _actor_rows(self, taken: list[Tensor], action: Tensor) -> Tensor:
        if self.actor_gradient == "own":
            return self._rows(taken, action)
        position = self._position
        return self._rows([*taken[:position], action, *taken[position + 1 :]])

    def _actor_mean(self, tensordict: TensorDictBase, value: Tensor, mask: Tensor | None) -> Tensor:
        if self.ensemble_size == 1:
            return super()._actor_mean(tensordict, value, mask)
        index = require(tensordict, (self.actor.group, "sub_policy"))
        return (value * ensemble_weight(index, self.ensemble_size, mask)).sum()
