"""Small networks and batches for tests of the soft actor-critic losses."""

from __future__ import annotations

from typing import Any

import torch
from small_ddpg import D_OBS, network
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torchrl.modules import NormalParamExtractor

from marl_td.losses.masac import MASACLoss
from marl_td.losses.soft_actor import SoftActor
from marl_td.losses.temperature import Temperature
from marl_td.models.inputs import AgentInput, JointInput


def make_actor(
    group: str = "agents",
    n_agents: int = 2,
    d_action: int = 2,
    n_actions: int | None = None,
    share: bool = False,
    **options: Any,
) -> SoftActor:
    """Actor over observations of width ``D_OBS``, continuous in [-1, 1] or discrete."""
    observation = (group, "observation")
    width = n_actions or 2 * d_action
    net = TensorDictModule(
        network(n_agents, D_OBS, width, share), [observation], [(group, "logits")]
    )
    if n_actions is not None:
        return SoftActor(net, group, n_actions=n_actions, **options)
    extract = TensorDictModule(
        NormalParamExtractor(), [(group, "logits")], [(group, "loc"), (group, "scale")]
    )
    return SoftActor(TensorDictSequential(net, extract), group, **options)


def make_critic(groups: dict[str, int], group: str, d_action: int, d_out: int) -> Any:
    """A critic per agent of ``group`` over the observations and actions of all ``groups``."""
    keys = [("joint", g, "observation") if len(groups) > 1 else (g, "observation") for g in groups]
    n_agents, n_all = groups[group], sum(groups.values())
    return TensorDictSequential(
        TensorDictModule(JointInput([2] * len(keys)), keys, ["critic_input"]),
        TensorDictModule(
            AgentInput(n_agents, own_observation=True, agent_id=False),
            ["critic_input", (group, "joint_action")],
            [(group, "critic_input")],
        ),
        TensorDictModule(
            network(n_agents, n_all * (D_OBS + d_action), d_out, share=False),
            [(group, "critic_input")],
            [(group, "chosen_action_value")],
        ),
    )


def point_to(loss: MASACLoss, group: str) -> MASACLoss:
    """The same loss, with its keys in ``group``."""
    names = ("joint_action", "reward", "done", "terminated", "discount", "mask")
    loss.set_keys(
        action_value=(group, "chosen_action_value"),
        priority=(group, "td_error"),
        item_priority=(group, "priority"),
        **{name: (group, name) for name in names},
    )
    return loss


def make_losses(
    groups: dict[str, int],
    n_actions: int | None = None,
    share: bool = False,
    n_critics: int = 2,
    loss_class: type[MASACLoss] = MASACLoss,
    alpha: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, MASACLoss]:
    """The losses of all groups, each of which knows the live actors of the others."""
    width = n_actions or 2
    actors = {g: make_actor(g, n, n_actions=n_actions, share=share) for g, n in groups.items()}
    losses = {}
    for g, actor in actors.items():
        critics = [make_critic(groups, g, width, n_actions or 1) for _ in range(n_critics)]
        temperature = Temperature(**{"target_entropy": -2.0, "init": 0.3, **(alpha or {})})
        loss = loss_class(actor, critics, temperature, actors=actors, **options)
        with torch.no_grad():  # targets that are not the live critics
            for parameter in loss.target_critics.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        losses[g] = point_to(loss, g)
    return losses


def make_loss(n_agents: int = 2, **options: Any) -> MASACLoss:
    """The loss of one group, ``"agents"``."""
    return make_losses({"agents": n_agents}, **options)["agents"]


def with_masks(batch: TensorDict, group: str, n_actions: int) -> TensorDict:
    """``batch`` with some actions unavailable, now and next; the taken ones are available."""
    for data, taken in ((batch, batch[group, "action"]), (batch["next"], None)):
        mask = torch.rand(*data[group].shape, n_actions) < 0.6
        mask[..., 0] = True
        if taken is not None:
            mask.scatter_(-1, taken.unsqueeze(-1), True)
        data[group, "action_mask"] = mask
        if "joint" in data.keys():
            data["joint", group, "action_mask"] = mask
    return batch
