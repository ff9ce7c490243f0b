"""The one place that builds central inputs and critics, from an algorithm's specs and model settings.

What a critic may see is a *scope*: ``"agent"`` (own observation), ``"group"`` (all agents of the group) or
``"environment"`` (all agents of all groups: competing teams included). Where the environment has a global
state it stands for the joint observation. Inputs of other groups are read under ``("joint", group, ...)``,
which :class:`marl_td.algorithms.callbacks.JointKeys` keeps in every group's data.
"""

from __future__ import annotations

from typing import Any

from tensordict import unravel_key
from tensordict.nn import TensorDictModule, TensorDictSequential
from tensordict.utils import NestedKey
from torch import nn
from torchrl.data import Composite, Unbounded

from marl_td import policies
from marl_td.models.inputs import AgentInput, ExpandToAgents, FirstRow, JointInput

SCOPES = ("agent", "group", "environment")
TEAM_SCOPES = ("environment", "group")
"""Those of more than one agent."""


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


def joint_observation_keys(
    algorithm: Any, group: str, scope: str, *, with_observations: bool = False
) -> list[NestedKey]:
    """Keys that together make the central input: the global state, or all observations in scope.

    With ``with_observations`` the observations follow the state.
    """
    return list(_joint_entries(algorithm, group, scope, with_observations))


def joint_observation_size(
    algorithm: Any, group: str, scope: str, *, with_observations: bool = False
) -> int:
    """Width of :class:`JointInput` over :func:`joint_observation_keys`."""
    entries = _joint_entries(algorithm, group, scope, with_observations)
    return sum(spec.shape.numel() for spec in entries.values())


def _joint_entries(
    algorithm: Any, group: str, scope: str, with_observations: bool
) -> dict[NestedKey, Any]:
    """Key of each entry of the central input, and its spec."""
    entries: dict[NestedKey, Any] = {}
    state = state_key(algorithm)
    if state is not None:
        entries[state] = algorithm.state_spec[state]
        if not with_observations:
            return entries
    for name, prefix in scope_groups(algorithm, group, scope):
        for leaf, spec in algorithm.observation_spec[name].items(True, True):
            entries[unravel_key((*prefix, leaf))] = spec
    return entries


def joint_input(
    algorithm: Any, group: str, scope: str, out_key: str, *, with_observations: bool = False
) -> TensorDictModule:
    """Module that writes the central input ``[*B, D]`` under the root key ``out_key``."""
    entries = _joint_entries(algorithm, group, scope, with_observations)
    n_dims = [len(spec.shape) for spec in entries.values()]
    return TensorDictModule(JointInput(n_dims), in_keys=list(entries), out_keys=[out_key])


def own_observation_keys(algorithm: Any, group: str) -> list[NestedKey]:
    """Keys of the entries of the agents' own observations."""
    leaves = algorithm.observation_spec[group].keys(True, True)
    return [unravel_key((group, leaf)) for leaf in leaves]


def own_observation_size(algorithm: Any, group: str) -> int:
    """Width of one agent's observation, all its entries flattened."""
    leaves = algorithm.observation_spec[group].values(True, True)
    return sum(spec.shape[1:].numel() for spec in leaves)


def own_input(algorithm: Any, group: str, out_key: NestedKey) -> TensorDictModule:
    """Module that writes each agent's flattened observation ``[*B, n_agents, d]`` under ``out_key``."""
    leaves = algorithm.observation_spec[group].values(True, True)
    n_dims = [len(spec.shape) - 1 for spec in leaves]
    keys = own_observation_keys(algorithm, group)
    return TensorDictModule(JointInput(n_dims), in_keys=keys, out_keys=[out_key])


def critic_network(
    algorithm: Any,
    group: str,
    input_spec: Composite,
    out_key: str,
    *,
    d_out: int = 1,
    **options: Any,
) -> nn.Module:
    """A network of the experiment's critic model with ``d_out`` outputs per agent, or for the team.

    The output is the root key ``out_key`` (``[*B, d_out]``) if ``centralised and share_params``, else
    ``(group, out_key)`` (``[*B, n_agents, d_out]``).
    """
    n_agents = algorithm.n_agents(group)
    if options["centralised"] and options["share_params"]:
        output_spec = Composite({out_key: Unbounded(shape=(d_out,))})
    else:
        leaf = Composite({out_key: Unbounded(shape=(n_agents, d_out))}, shape=(n_agents,))
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
            can value agents differently (MAPPO's agent-specific global state); of a dead agent's input only
            the index is left.

    Raises:
        ValueError: if ``scope`` is unknown.
    """
    if scope not in SCOPES:
        raise ValueError(f"critic scope must be one of {', '.join(SCOPES)}; got '{scope}'.")
    if scope == "agent":
        spec = Composite({group: algorithm.observation_spec[group].clone()})
        options = {"centralised": False, "input_has_agent_dim": True, "share_params": share_params}
        return TensorDictSequential(
            critic_network(algorithm, group, spec, "state_value", **options)
        )
    size = joint_observation_size(algorithm, group, scope)
    modules: list[nn.Module] = [joint_input(algorithm, group, scope, "critic_input")]
    if agent_specific or not share_params:
        modules += _value_per_agent(algorithm, group, size, share_params, agent_specific)
        return TensorDictSequential(*modules)
    spec = Composite({"critic_input": Unbounded(shape=(size,))})
    options = {"centralised": True, "input_has_agent_dim": False, "share_params": True}
    modules.append(critic_network(algorithm, group, spec, "state_value", **options))
    expand = ExpandToAgents(algorithm.n_agents(group))
    modules.append(TensorDictModule(expand, ["state_value"], [(group, "state_value")]))
    return TensorDictSequential(*modules)


def _value_per_agent(
    algorithm: Any, group: str, size: int, share_params: bool, agent_specific: bool
) -> list[nn.Module]:
    """One row of input per agent, and the network (or one per agent, as one stack) over the rows."""
    n_agents = algorithm.n_agents(group)
    in_keys: list[NestedKey] = ["critic_input"]
    mortal = agent_specific and algorithm.is_mortal(group)
    if agent_specific:
        in_keys += own_observation_keys(algorithm, group)
        size += own_observation_size(algorithm, group) + n_agents
    if mortal:
        in_keys.append((group, "mask"))
    rows = AgentInput(n_agents, agent_specific, agent_specific, mortal).to(algorithm.device)
    leaf = Composite({"critic_input": Unbounded(shape=(n_agents, size))}, shape=(n_agents,))
    options = {"centralised": False, "input_has_agent_dim": True, "share_params": share_params}
    return [
        TensorDictModule(rows, in_keys=in_keys, out_keys=[(group, "critic_input")]),
        critic_network(algorithm, group, Composite({group: leaf}), "state_value", **options),
    ]


def action_value(
    algorithm: Any,
    group: str,
    *,
    scope: str = "environment",
    share_params: bool = False,
    with_observations: bool = False,
    reads_actions: bool = True,
    n_values: int | None = None,
) -> TensorDictSequential:
    """Critic Q that reads the joint action, and writes ``(group, "chosen_action_value")``.

    Each agent's critic takes its own row of ``(group, "joint_action")`` ``[*B, n_agents, D]``: the actions of
    all agents in scope, group by group in the order of the group map (``scope="agent"``: its own action).
    Output ``[*B, n_agents, 1]``; with ``n_values`` ``(group, "action_value")``, ``[*B, n_agents, n_values]``.

    Args:
        algorithm: whose specs and critic model settings are used.
        group: the agent group.
        scope: what the critic sees: ``"agent"``, ``"group"`` or ``"environment"``.
        share_params: one network that is told the agent's index, or one network each.
        with_observations: append the observations to the global state, where there is one.
        reads_actions: if false, no actions are read.
        n_values: a value for each of so many actions of the agent's own.

    Raises:
        ValueError: if ``scope`` is unknown.
    """
    if scope not in SCOPES:
        raise ValueError(f"critic scope must be one of {', '.join(SCOPES)}; got '{scope}'.")
    n_agents = algorithm.n_agents(group)
    options: dict[str, Any] = {
        "centralised": False,
        "input_has_agent_dim": True,
        "share_params": share_params,
        "out_key": "chosen_action_value" if n_values is None else "action_value",
        "d_out": n_values or 1,
    }
    if scope == "agent":
        spec = algorithm.observation_spec[group].clone()
        if reads_actions:
            action = Unbounded((n_agents, policies.action_width(algorithm, group)))
            spec.update(Composite(joint_action=action, shape=(n_agents,)))
        return TensorDictSequential(
            critic_network(algorithm, group, Composite({group: spec}), **options)
        )
    size = joint_observation_size(algorithm, group, scope, with_observations=with_observations)
    size += joint_action_size(algorithm, group, scope) if reads_actions else 0
    size += n_agents if share_params else 0
    rows = AgentInput(n_agents, own_observation=reads_actions, agent_id=share_params)
    in_keys: list[NestedKey] = ["critic_input"]
    in_keys += [(group, "joint_action")] if reads_actions else []
    spec = Composite(critic_input=Unbounded((n_agents, size)), shape=(n_agents,))
    return TensorDictSequential(
        joint_input(algorithm, group, scope, "critic_input", with_observations=with_observations),
        TensorDictModule(rows.to(algorithm.device), in_keys, [(group, "critic_input")]),
        critic_network(algorithm, group, Composite({group: spec}), **options),
    )


def joint_action_size(algorithm: Any, group: str, scope: str) -> int:
    """Width of the joint action of all agents in scope."""
    names = [name for name, _ in scope_groups(algorithm, group, scope)]
    return sum(algorithm.n_agents(name) * policies.action_width(algorithm, name) for name in names)


def check_team_value(team_value: bool, actor_gradient: str, scope: str) -> None:
    """Raise ``ValueError`` if one value cannot teach all agents of a group with these settings."""
    if team_value and (actor_gradient != "all" or scope == "agent"):
        raise ValueError(
            "team_value needs actor_gradient=all and critic_scope=environment or group: one value for "
            f"all agents teaches all of them; got {actor_gradient} and {scope}."
        )


def team_action_value(
    algorithm: Any, group: str, *, scope: str = "environment", with_observations: bool = False
) -> TensorDictSequential:
    """One value of the joint action for the whole group, ``(group, "chosen_action_value")``.

    It reads the first row of ``(group, "joint_action")``; every agent gets the same, ``[*B, n_agents, 1]``.
    """
    size = joint_observation_size(algorithm, group, scope, with_observations=with_observations)
    size += joint_action_size(algorithm, group, scope)
    spec = Composite(critic_input=Unbounded((size,)))
    options = {"centralised": True, "input_has_agent_dim": False, "share_params": True}
    out_keys: tuple[str, NestedKey] = ("team_action_value", (group, "chosen_action_value"))
    return TensorDictSequential(
        joint_input(algorithm, group, scope, "critic_input", with_observations=with_observations),
        TensorDictModule(FirstRow(), ["critic_input", (group, "joint_action")], ["critic_input"]),
        critic_network(algorithm, group, spec, out_keys[0], **options),
        TensorDictModule(ExpandToAgents(algorithm.n_agents(group)), [out_keys[0]], [out_keys[1]]),
    )
