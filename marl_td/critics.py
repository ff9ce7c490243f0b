"""The one place that builds central inputs and critics, from an algorithm's specs and model settings.

What a critic may see is a *scope*: ``"agent"`` (own observation), ``"group"`` (all agents of the group) or
``"environment"`` (all agents of all groups: competing teams included). Where the environment has a global
state it stands for the joint observation. Inputs of other groups are read under ``("joint", group, ...)``,
which :class:`marl_td.algorithms.callbacks.JointKeys` keeps in every group's data.
"""

from __future__ import annotations

from typing import Any

import torch
from tensordict.nn import TensorDictModule, TensorDictSequential
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.data import Composite, Unbounded

SCOPES = ("agent", "group", "environment")


def scope_groups(algorithm: Any, group: str, scope: str) -> list[tuple[str, tuple[str, ...]]]:
    """Groups within ``scope`` and the key prefix of their data in the batch of ``group``."""
    if scope == "environment" and len(algorithm.group_map) > 1:
        return [(name, ("joint", name)) for name in algorithm.group_map]
    return [(group, (group,))]


def state_key(algorithm: Any) -> NestedKey | None:
    """Key of the global state, or None where the environment has none."""
    if algorithm.state_spec is None:
        return None
    return next(iter(algorithm.state_spec.keys(True, True)))


def joint_observation_keys(algorithm: Any, group: str, scope: str) -> list[NestedKey]:
    """Keys that together make the central input: the global state, or all observations in scope."""
    state = state_key(algorithm)
    if state is not None:
        return [state]
    keys: list[NestedKey] = []
    for name, prefix in scope_groups(algorithm, group, scope):
        leaves = algorithm.observation_spec[name].keys(True, True)
        keys += [(*prefix, *((leaf,) if isinstance(leaf, str) else leaf)) for leaf in leaves]
    return keys


def joint_observation_size(algorithm: Any, group: str, scope: str) -> int:
    """Width of :class:`JointInput` over :func:`joint_observation_keys`."""
    if algorithm.state_spec is not None:
        return sum(algorithm.state_spec[key].shape.numel() for key in [state_key(algorithm)])
    return sum(
        algorithm.observation_spec[name][leaf].shape.numel()
        for name, _ in scope_groups(algorithm, group, scope)
        for leaf in algorithm.observation_spec[name].keys(True, True)
    )


class JointInput(nn.Module):
    """Flattens and concatenates entries behind the batch dimensions: ``[*B, n_agents, d]`` to ``[*B, D]``.

    Args:
        n_dims: number of trailing dimensions of each entry that are flattened.
    """

    def __init__(self, n_dims: list[int]) -> None:
        super().__init__()
        self.n_dims = n_dims

    def forward(self, *entries: Tensor) -> Tensor:
        """Concatenation ``[*B, D]``."""
        flat = [e.flatten(-n) for e, n in zip(entries, self.n_dims, strict=True)]
        return torch.cat([entry.float() for entry in flat], dim=-1)


class AgentInput(nn.Module):
    """Gives each agent the joint input, its own observation and a one-hot index.

    ``[*B, D]`` and ``[*B, n_agents, d_obs]`` become ``[*B, n_agents, D + d_obs + n_agents]``.

    Args:
        n_agents: agents in the group.
        own_observation: append the agent's own observation.
        agent_id: append the one-hot index.
    """

    identity: Tensor

    def __init__(self, n_agents: int, own_observation: bool, agent_id: bool) -> None:
        super().__init__()
        self.own_observation = own_observation
        self.agent_id = agent_id
        self.register_buffer("identity", torch.eye(n_agents), persistent=False)

    def forward(self, joint: Tensor, *own: Tensor) -> Tensor:
        """Per-agent input."""
        n_agents = self.identity.shape[0]
        batch = joint.shape[:-1]
        parts = [joint.unsqueeze(-2).expand(*batch, n_agents, joint.shape[-1])]
        if self.own_observation:
            parts += [entry.flatten(len(batch) + 1).float() for entry in own]
        if self.agent_id:
            parts.append(self.identity.expand(*batch, -1, -1))
        return torch.cat(parts, dim=-1)


class ExpandToAgents(nn.Module):
    """Copies a team value ``[*B, 1]`` to every agent, ``[*B, n_agents, 1]``."""

    def __init__(self, n_agents: int) -> None:
        super().__init__()
        self.n_agents = n_agents

    def forward(self, value: Tensor) -> Tensor:
        """Expanded value."""
        return value.unsqueeze(-2).expand(*value.shape[:-1], self.n_agents, value.shape[-1])


def joint_input(algorithm: Any, group: str, scope: str, out_key: str) -> TensorDictModule:
    """Module that writes the central input ``[*B, D]`` under the root key ``out_key``."""
    keys = joint_observation_keys(algorithm, group, scope)
    if algorithm.state_spec is not None:
        n_dims = [len(algorithm.state_spec[key].shape) for key in keys]
    else:
        n_dims = [
            len(algorithm.observation_spec[name][leaf].shape)
            for name, _ in scope_groups(algorithm, group, scope)
            for leaf in algorithm.observation_spec[name].keys(True, True)
        ]
    return TensorDictModule(JointInput(n_dims), in_keys=keys, out_keys=[out_key])


def critic_network(
    algorithm: Any, group: str, input_spec: Composite, out_key: str, **options: Any
) -> nn.Module:
    """A network of the experiment's critic model with one output per agent, or one for the team.

    The output is the root key ``out_key`` (``[*B, 1]``) if ``centralised and share_params``, else
    ``(group, out_key)`` (``[*B, n_agents, 1]``).
    """
    n_agents = algorithm.n_agents(group)
    if options["centralised"] and options["share_params"]:
        output_spec = Composite({out_key: Unbounded(shape=(1,))})
    else:
        leaf = Composite({out_key: Unbounded(shape=(n_agents, 1))}, shape=(n_agents,))
        output_spec = Composite({group: leaf})
    return algorithm.critic_model_config.get_model(
        input_spec=input_spec.to(algorithm.device),
        output_spec=output_spec,
        n_agents=n_agents,
        agent_group=group,
        device=algorithm.device,
        action_spec=algorithm.action_spec,
        **options,
    )


def state_value(
    algorithm: Any,
    group: str,
    *,
    scope: str = "group",
    share_params: bool = True,
    agent_specific: bool = False,
) -> TensorDictSequential:
    """Critic V that writes ``(group, "state_value")``, ``[*B, n_agents, 1]``.

    Args:
        algorithm: whose specs and critic model settings are used.
        group: the agent group.
        scope: what the critic sees: ``"agent"``, ``"group"`` or ``"environment"``.
        share_params: one network for all agents of the group, or one each.
        agent_specific: append own observation and index to the central input, so that a shared network
            can value agents differently (MAPPO's agent-specific global state).

    Raises:
        ValueError: if ``scope`` is unknown.
    """
    if scope not in SCOPES:
        raise ValueError(f"critic scope must be one of {', '.join(SCOPES)}; got '{scope}'.")
    n_agents = algorithm.n_agents(group)
    if scope == "agent":
        spec = Composite({group: algorithm.observation_spec[group].clone()})
        options = {"centralised": False, "input_has_agent_dim": True}
        net = critic_network(
            algorithm, group, spec, "state_value", share_params=share_params, **options
        )
        return TensorDictSequential(net)
    size = joint_observation_size(algorithm, group, scope)
    modules: list[nn.Module] = [joint_input(algorithm, group, scope, "critic_input")]
    if agent_specific:
        modules += _agent_specific_value(algorithm, group, size, share_params)
        return TensorDictSequential(*modules)
    spec = Composite({"critic_input": Unbounded(shape=(size,))})
    options = {"centralised": True, "input_has_agent_dim": False}
    modules.append(
        critic_network(algorithm, group, spec, "state_value", share_params=share_params, **options)
    )
    if share_params:
        expand = ExpandToAgents(n_agents)
        modules.append(TensorDictModule(expand, ["state_value"], [(group, "state_value")]))
    return TensorDictSequential(*modules)


def _agent_specific_value(
    algorithm: Any, group: str, size: int, share_params: bool
) -> list[nn.Module]:
    n_agents = algorithm.n_agents(group)
    leaves = list(algorithm.observation_spec[group].keys(True, True))
    width = sum(algorithm.observation_spec[group][leaf].shape.numel() for leaf in leaves)
    total = size + width // n_agents + n_agents
    own = [(group, *((leaf,) if isinstance(leaf, str) else leaf)) for leaf in leaves]
    features = TensorDictModule(
        AgentInput(n_agents, own_observation=True, agent_id=True),
        in_keys=["critic_input", *own],
        out_keys=[(group, "critic_input")],
    ).to(algorithm.device)
    leaf = Composite({"critic_input": Unbounded(shape=(n_agents, total))}, shape=(n_agents,))
    net = critic_network(
        algorithm,
        group,
        Composite({group: leaf}),
        "state_value",
        share_params=share_params,
        centralised=False,
        input_has_agent_dim=True,
    )
    return [features, net]
