"""MADDPG whose agents do not know the others' policies, but infer them from what they do."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from marl_td.losses.ddpg import MADDPGLoss
from marl_td.losses.entries import flag, living, masked_mean
from marl_td.losses.functional.checks import check_not_negative
from marl_td.losses.functional.inference import believed_action_rows, inference_error
from marl_td.losses.group_actor import GroupActor
from marl_td.losses.inferred_policies import InferredPolicies
from marl_td.losses.targets import target_copy


class InferringMADDPGLoss(MADDPGLoss):
    """MADDPG with inferred policies (Lowe et al. 2017, https://arxiv.org/abs/1706.02275, section 4.2).

        y_i            = r_i + gamma (1 - terminated_i) Q_i^-(x', mu_hat_i^1-(o_1'), .., mu_i^-(o_i'), ..)
        loss_inference = mean over i and j != i of -(log mu_hat_i^j(u_j | o_j) + lambda H(mu_hat_i^j))

    All else is MADDPG: the actors' loss takes the others' actions from the batch. Agents that are dead teach
    nobody what they do. InferredPolicies have target networks of their own.

    Args:
        actor: actor of this loss's group.
        critic: as for :class:`marl_td.losses.ddpg.MADDPGLoss`.
        beliefs: what this group's agents believe, one for each group in the critic's order.
        policies: the true policies of these groups, for the metric ``inference_kl`` only; by default the
            target actors and this loss's own actor.
        inference_entropy_coeff: lambda, >= 0.
        options: as for :class:`marl_td.losses.ddpg.MADDPGLoss`; ``actor_gradient`` must be ``"own"``.

    Reads what MADDPG reads; if present the alive mask ``(group, "mask")`` of every group. Writes
    ``loss_inference`` besides, and the metrics ``inference_kl`` (nats, from the true policies to the
    inferred ones: ``InferredPolicies.divergence``) and ``inference_entropy`` (nats).

    Raises:
        ValueError: for critics of one agent's action, another ``actor_gradient``, or a number out of range.
    """

    out_keys: ClassVar[list[str]] = [
        *MADDPGLoss.out_keys,
        "loss_inference",
        "inference_kl",
        "inference_entropy",
    ]

    def __init__(
        self,
        actor: GroupActor,
        critic: TensorDictModuleBase,
        beliefs: Sequence[InferredPolicies],
        *,
        policies: Mapping[str, GroupActor] | None = None,
        inference_entropy_coeff: float = 1e-3,
        target_actors: Mapping[str, GroupActor] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(actor, critic, target_actors=target_actors, **options)
        check_not_negative(inference_entropy_coeff=inference_entropy_coeff)
        if not self.central or self.actor_gradient != "own":
            raise ValueError(
                "policies are inferred for central critics and `actor_gradient='own'` only: other critics "
                "see nobody else's action, and 'all' takes the others' own policies."
            )
        names = [belief.group for belief in beliefs]
        if names != list(self._actors):
            raise ValueError(
                f"`beliefs` must be of the groups {list(self._actors)}, in this order; got {names}."
            )
        self.inference_entropy_coeff = inference_entropy_coeff
        self.beliefs = nn.ModuleList(beliefs)
        self.target_beliefs = target_copy(self.beliefs)
        # A plain dict: policies are read, not owned.
        self._policies = {**self._actors, actor.group: actor, **(policies or {})}

    def networks(self) -> dict[str, list[nn.Module]]:
        """The networks that each named loss teaches."""
        return {**super().networks(), "loss_inference": [self.beliefs]}

    def target_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Actor, critic and beliefs with their targets."""
        return [*super().target_pairs(), (self.beliefs, self.target_beliefs)]

    def compute(self, tensordict: TensorDictBase) -> dict[str, Tensor]:
        """Losses, metrics and priority from a batch ``[*B]`` (``[*B, T]`` if recurrent)."""
        return {**super().compute(tensordict), **self._inference(tensordict)}

    def _target_rows(self, joint: TensorDictBase) -> Tensor:
        own = self._target_action(self.target_actor, joint)
        believed = [beliefs.action(joint) for beliefs in _listed(self.target_beliefs)]
        return believed_action_rows(believed, self._position, own)

    def _inference(self, tensordict: TensorDictBase) -> dict[str, Tensor]:
        """Loss and metrics of the beliefs, over all pairs of agents ``[*B, n_agents, N]``."""
        joint = self._joint(tensordict)
        errors, entropies, divergences, masks = [], [], [], []
        for taken, beliefs in zip(self._taken(tensordict), _listed(self.beliefs), strict=True):
            log_prob, entropy = beliefs.fit(joint, taken)
            coeff = self.inference_entropy_coeff
            errors.append(inference_error(log_prob, entropy, entropy_coeff=coeff))
            entropies.append(entropy.detach())
            divergences.append(beliefs.divergence(joint, self._policies[beliefs.group]))
            masks.append(self._pairs(tensordict, joint, beliefs.group, entropy))
        mask = torch.cat(masks, -1)
        return {
            "loss_inference": masked_mean(torch.cat(errors, -1), mask),
            "inference_kl": masked_mean(torch.cat(divergences, -1), mask),
            "inference_entropy": masked_mean(torch.cat(entropies, -1), mask),
        }

    def _pairs(
        self, tensordict: TensorDictBase, joint: TensorDictBase, group: str, like: Tensor
    ) -> Tensor:
        """Which pairs ``[*B, n_agents, n_agents_g]`` count: others that live, in real steps."""
        mask = torch.ones_like(like, dtype=torch.bool)
        if group == self.actor.group:
            mask = mask & ~torch.eye(like.shape[-1], dtype=torch.bool, device=like.device)
        alive = living(joint, (group, "mask"))
        if alive is not None:
            mask = mask & alive.unsqueeze(-2)
        steps = flag(tensordict, self.tensor_keys.step_mask)
        return mask if steps is None else mask & steps.unsqueeze(-1)


def _listed(beliefs: nn.ModuleList) -> list[InferredPolicies]:
    return cast(list[InferredPolicies], list(beliefs))
