"""Small networks and batches for tests of the DDPG losses."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import Tensor, nn
from torchrl.modules import MultiAgentMLP

from marl_td.losses.ddpg import MADDPGLoss
from marl_td.losses.facmac import FACMACLoss
from marl_td.losses.group_actor import GroupActor
from marl_td.losses.inferred_policies import InferredPolicies
from marl_td.losses.maddpg_inference import InferringMADDPGLoss
from marl_td.losses.matd3 import MATD3Loss
from marl_td.losses.targets import target_copy
from marl_td.models.heads import BoundedAction
from marl_td.models.inputs import AgentInput, JointInput, RepeatAgents

D_OBS = 3


def network(n_agents: int, d_in: int, d_out: int, share: bool, d_hidden: int = 16) -> MultiAgentMLP:
    """One hidden layer, per agent or shared."""
    return MultiAgentMLP(
        n_agent_inputs=d_in,
        n_agent_outputs=d_out,
        n_agents=n_agents,
        centralized=False,
        share_params=share,
        num_cells=[d_hidden],
        activation_class=nn.Tanh,
    )


def make_actor(
    group: str = "agents",
    n_agents: int = 2,
    d_action: int = 2,
    n_actions: int | None = None,
    share: bool = False,
    **options: Any,
) -> GroupActor:
    """Actor over observations of width ``D_OBS``, continuous in [-1, 1] or discrete."""
    observation = (group, "observation")
    if n_actions is not None:
        net = network(n_agents, D_OBS, n_actions, share)
        module: Any = TensorDictModule(net, [observation], [(group, "logits")])
    else:
        net = network(n_agents, D_OBS, d_action, share)
        bounds = torch.ones(n_agents, d_action)
        module = TensorDictSequential(
            TensorDictModule(net, [observation], [(group, "parameter")]),
            TensorDictModule(
                BoundedAction(-bounds, bounds), [(group, "parameter")], [(group, "action")]
            ),
        )
    return GroupActor(module, group, n_actions=n_actions, **options)


def make_critic(
    groups: dict[str, int], group: str, d_action: int = 2, d_hidden: int = 16
) -> TensorDictSequential:
    """One critic per agent of ``group`` over the observations and actions of all ``groups``."""
    joint = len(groups) > 1
    keys = [("joint", name, "observation") if joint else (name, "observation") for name in groups]
    n_agents, n_all = groups[group], sum(groups.values())
    return TensorDictSequential(
        TensorDictModule(JointInput([2] * len(keys)), keys, ["critic_input"]),
        TensorDictModule(
            AgentInput(n_agents, own_observation=True, agent_id=False),
            ["critic_input", (group, "joint_action")],
            [(group, "critic_input")],
        ),
        TensorDictModule(
            network(n_agents, n_all * (D_OBS + d_action), 1, share=False, d_hidden=d_hidden),
            [(group, "critic_input")],
            [(group, "chosen_action_value")],
        ),
    )


def point_to(loss: Any, group: str) -> Any:
    """The same loss, with its keys in ``group``."""
    names = ("joint_action", "reward", "terminated", "mask")
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
    d_hidden: int = 16,
    bounds: Any = None,
    **options: Any,
) -> dict[str, MADDPGLoss]:
    """The losses of all groups, which share one mapping of target actors."""
    width = n_actions or 2
    kind = {"n_actions": n_actions, "share": share, "bounds": bounds}
    actors = {g: make_actor(g, n, **kind) for g, n in groups.items()}
    targets = {g: target_copy(actor) for g, actor in actors.items()}
    critics = {g: make_critic(groups, g, width, d_hidden) for g in groups}
    return {
        g: point_to(MADDPGLoss(actors[g], critics[g], target_actors=targets, **options), g)
        for g in groups
    }


def make_loss(n_agents: int = 2, **options: Any) -> MADDPGLoss:
    """The loss of one group, ``"agents"``."""
    return make_losses({"agents": n_agents}, **options)["agents"]


def make_matd3(
    n_agents: int = 2,
    n_actions: int | None = None,
    equal: bool = False,
    d_hidden: int = 16,
    bounds: Any = None,
    action_scale: float = 1.0,
    **options: Any,
) -> MATD3Loss:
    """The loss of one group, with different target networks and two critics (or twice the same)."""
    groups, width = {"agents": n_agents}, n_actions or 2
    scaled = {"bounds": bounds, "action_scale": action_scale}
    actor = make_actor("agents", n_agents, n_actions=n_actions, **scaled)
    first = make_critic(groups, "agents", width, d_hidden)
    second = deepcopy(first) if equal else make_critic(groups, "agents", width, d_hidden)
    return MATD3Loss(actor, first, second, **options)


def own_critic(n_agents: int = 2, d_action: int = 2, group: str = "agents") -> TensorDictModule:
    """Critics of each agent's own observation and action."""
    return TensorDictModule(
        network(n_agents, D_OBS + d_action, 1, share=False),
        [(group, "observation"), (group, "joint_action")],
        [(group, "chosen_action_value")],
    )


def make_facmac(
    mixer: Any, n_agents: int = 2, n_actions: int | None = None, **options: Any
) -> FACMACLoss:
    """The loss of one team, with ``mixer`` over its agents' values."""
    actor = make_actor("agents", n_agents, n_actions=n_actions)
    return FACMACLoss(actor, own_critic(n_agents, n_actions or 2), mixer, **options)


def make_inferred(actor: GroupActor, n_believers: int, n_agents: int) -> InferredPolicies:
    """What ``n_believers`` believe of the ``n_agents`` of the actor's group."""
    width = actor.n_actions or 4
    group = actor.group
    network_of_pairs = TensorDictSequential(
        TensorDictModule(RepeatAgents(n_believers, [2]), [(group, "observation")], ["observed"]),
        TensorDictModule(
            network(n_believers * n_agents, D_OBS, width, share=False), ["observed"], ["belief"]
        ),
    )
    return InferredPolicies(network_of_pairs, actor, n_believers)


def make_inferring(
    groups: dict[str, int], group: str, n_actions: int | None = None, **options: Any
) -> InferringMADDPGLoss:
    """The loss of ``group``, whose agents infer the policies of the agents of all ``groups``."""
    actors = {g: make_actor(g, n, n_actions=n_actions) for g, n in groups.items()}
    loss = InferringMADDPGLoss(
        actors[group],
        make_critic(groups, group, n_actions or 2),
        [make_inferred(actors[g], groups[group], n) for g, n in groups.items()],
        policies=actors,
        target_actors={g: target_copy(actor) for g, actor in actors.items()},
        **options,
    )
    return point_to(loss, group)


def team_batch(n_agents: int = 2, **options: Any) -> TensorDict:
    """A random batch with a state of width 3 and the team's signals."""
    batch = make_batch({"agents": n_agents}, **options)
    for entries in (batch, batch["next"]):
        entries["state"] = torch.randn(*batch.shape, 3)
    for name in ("reward", "terminated"):
        batch["next", name] = batch["next", "agents", name][..., 0, :].clone()
    return batch


def group_data(shape: tuple[int, ...], n_agents: int, n_actions: int | None) -> TensorDict:
    """Observations and actions of one group."""
    full = (*shape, n_agents)
    action: Tensor = torch.rand(*full, 2) * 2 - 1
    if n_actions is not None:
        action = torch.randint(n_actions, full)
    return TensorDict({"observation": torch.randn(*full, D_OBS), "action": action}, full)


def make_batch(
    groups: dict[str, int] | None = None,
    group: str = "agents",
    n_actions: int | None = None,
    shape: tuple[int, ...] = (8,),
    joint: TensorDict | None = None,
) -> TensorDict:
    """A random batch of ``group``; data of all groups under ``"joint"`` where there are several."""
    groups = groups or {"agents": 2}
    now = joint or TensorDict(
        {g: group_data(shape, n, n_actions) for g, n in groups.items()}, shape
    )
    after = TensorDict({g: group_data(shape, n, n_actions) for g, n in groups.items()}, shape)
    after = after.exclude(*[(g, "action") for g in groups])
    n_agents = groups[group]
    batch = TensorDict({group: now[group].clone(), "next": {group: after[group].clone()}}, shape)
    batch["next"].batch_size = shape
    batch["next", group].batch_size = (*shape, n_agents)
    batch["next", group, "reward"] = torch.randn(*shape, n_agents, 1)
    batch["next", group, "terminated"] = torch.rand(*shape, n_agents, 1) < 0.3
    if len(groups) > 1:
        batch["joint"] = now
        batch["next", "joint"] = after
    return batch
