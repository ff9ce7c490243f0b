"""Builds what agents believe of each other's policies, from an algorithm's specs and model settings."""

from __future__ import annotations

from typing import Any

from tensordict import unravel_key
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.data import Composite, Unbounded

from marl_td import critics, policies
from marl_td.losses.group_actor import GroupActor
from marl_td.losses.inferred_policies import InferredPolicies
from marl_td.models.inputs import RepeatAgents


def inferred_policies(
    algorithm: Any, group: str, scope: str, actors: dict[str, GroupActor]
) -> list[InferredPolicies]:
    """What each agent of ``group`` believes of every agent in ``scope``, group by group.

    There is one network of the experiment's model per pair of agents, all pairs of two groups in one stack:
    parameters grow with the number of agents in the group times that in the scope.

    Args:
        algorithm: whose specs and model settings are used.
        group: the believers.
        scope: what their critics see: ``"group"`` or ``"environment"``.
        actors: actors of all groups in scope.
    """
    n_believers = algorithm.n_agents(group)
    return [
        InferredPolicies(_network(algorithm, name, n_believers), actors[name], n_believers)
        for name, _ in critics.scope_groups(algorithm, group, scope)
    ]


def _network(algorithm: Any, group: str, n_believers: int) -> TensorDictSequential:
    """Observations of ``group`` to ``"belief"``, ``[*B, n_believers * n_agents, d]``."""
    n_rows = n_believers * algorithm.n_agents(group)
    width = policies.action_width(algorithm, group) * (2 if algorithm.is_continuous(group) else 1)
    rows = f"{group}_believed"
    inputs, in_keys, n_dims = Composite(shape=(n_rows,)), [], []
    for leaf, spec in algorithm.observation_spec[group].items(True, True):
        inputs[leaf] = Unbounded((n_rows, *spec.shape[1:]))
        in_keys.append(leaf)
        n_dims.append(len(spec.shape))
    net = algorithm.model_config.get_model(
        input_spec=Composite({rows: inputs}).to(algorithm.device),
        output_spec=Composite(
            {rows: Composite(belief=Unbounded((n_rows, width)), shape=(n_rows,))}
        ),
        agent_group=rows,
        input_has_agent_dim=True,
        n_agents=n_rows,
        centralised=False,
        share_params=False,
        device=algorithm.device,
        action_spec=algorithm.action_spec,
    )
    repeat = TensorDictModule(
        RepeatAgents(n_believers, n_dims),
        [unravel_key((group, key)) for key in in_keys],
        [unravel_key((rows, key)) for key in in_keys],
    )
    output = TensorDictModule(nn.Identity(), [(rows, "belief")], ["belief"])
    return TensorDictSequential(repeat, net, output)
