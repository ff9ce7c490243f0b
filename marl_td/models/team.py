"""What mixers and central networks are built from: the sizes of a group, and where its entries lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tensordict.nn import TensorDictModuleBase


@dataclass(frozen=True)
class Team:
    """One group of agents as central networks see it.

    Args:
        n_agents: agents in the group.
        n_actions: actions of each agent.
        d_state: width of the global state, or of what stands for it.
        d_agent: width of what is seen of each agent (its observation).
        group: name of the group.
        state_key: where the global state is, ``[*B, d_state]``.
        mortal: whether the data says who is alive, ``(group, "mask")`` ``[*B, n_agents]``.
        shared: whether the agents' networks share their parameters.
    """

    n_agents: int
    n_actions: int
    d_state: int
    d_agent: int
    group: str = "agents"
    state_key: str = "state"
    mortal: bool = False
    shared: bool = True

    def key(self, name: str) -> tuple[str, str]:
        """The group's entry ``name``."""
        return (self.group, name)

    @property
    def alive_key(self) -> tuple[str, str] | None:
        """Who is alive, or None where nobody dies."""
        return self.key("mask") if self.mortal else None


class TeamNetworks(Protocol):
    """Makes the networks of a group, from an experiment's model settings or from tables."""

    team: Team

    def agents(self, name: str, width: int) -> TensorDictModuleBase:
        """A network of the agents: what each sees to ``(group, name)`` ``[*B, n_agents, width]``."""

    def central(self, module: TensorDictModuleBase) -> TensorDictModuleBase:
        """``module`` behind what writes its inputs: the team's state, and ``(group, "agent_input")``.

        A module that reads only what is seen of each agent stays one that each agent can run by itself.
        """
