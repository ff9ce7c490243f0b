"""Reward, done and terminated in agent or team shape, whatever shape the environment gives.

Environments give them per group (``("next", group, "reward")``, ``[*B, n_agents, 1]``) or once for the team
(``("next", "reward")``, ``[*B, 1]``). A loss wants one of the two forms:

* :func:`agent_signals` writes ``("next", group, reward | done | terminated)``, ``[*B, n_agents, 1]``;
* :func:`team_signals` writes ``("next", reward | done | terminated)``, ``[*B, 1]``.

A critic over several groups reads what :func:`join_groups` writes.

All of them let agents that were only cut off (``("next", group, "truncated")``) live in what the step
reaches. Their values are bootstrapped from there. Environments clear their masks, and networks and losses
that read who lives would take them for dead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import torch
from tensordict import TensorDict, TensorDictBase, is_tensor_collection
from tensordict.utils import NestedKey
from torch import Tensor

TeamReward = Literal["mean", "sum"]
TEAM_REWARDS: tuple[str, ...] = get_args(TeamReward)
SIGNALS = ("reward", "done", "terminated")


def agent_signals(batch: TensorDictBase, group: str) -> TensorDictBase:
    """Give every agent of ``group`` its reward, done and terminated, expanding team signals.

    Where both forms are there, an agent is also done (terminated) when the environment is: a reset ends
    every agent's trajectory, whatever the agent's own entry says.

    Raises:
        KeyError: if the batch holds a signal in neither form.
    """
    _revive(batch, group)
    shape = batch.get(group).batch_size
    for name in SIGNALS:
        own = batch.get(("next", group, name), None)
        if own is None:
            team = _required(batch, name, group)
            batch.set(("next", group, name), team.unsqueeze(-2).expand(*shape, 1).clone())
        elif name != "reward" and batch.get(("next", name), None) is not None:
            team = batch.get(("next", name)).unsqueeze(-2)
            batch.set(("next", group, name), own | team)
    return batch


def team_signals(
    batch: TensorDictBase, group: str, team_reward: TeamReward = "mean"
) -> TensorDictBase:
    """Reduce the signals of ``group`` to the team.

    The reward is the mean (or sum) over the agents. The team is done or terminated when the environment
    says so at the root, else when *all* its agents are: one agent's death does not end the team's episode.

    Raises:
        KeyError: if the batch holds a signal in neither form.
        ValueError: if the batch has the reward of a team already, and those of several groups.
    """
    _revive(batch, group)
    for name in SIGNALS:
        per_agent = batch.get(("next", group, name), None)
        if name == "reward" and per_agent is not None:
            _check_one_team(batch, group)
            total = per_agent.sum(-2)
            n_agents = per_agent.shape[-2]
            batch.set(("next", name), total if team_reward == "sum" else total / n_agents)
        elif batch.get(("next", name), None) is None:
            if per_agent is None:
                _required(batch, name, group)
            batch.set(("next", name), per_agent.all(-2))
    return batch


def shared_signals(
    batch: TensorDictBase, group: str, team_reward: TeamReward = "mean"
) -> TensorDictBase:
    """Give every agent of ``group`` the team's signals (:func:`team_signals`), ``[*B, n_agents, 1]``.

    Raises:
        KeyError: if the batch holds a signal in neither form.
    """
    team_signals(batch, group, team_reward)
    shape = batch.get(group).batch_size
    for name in SIGNALS:
        team = batch.get(("next", name)).unsqueeze(-2)
        batch.set(("next", group, name), team.expand(*shape, 1).clone())
    return batch


def _revive(batch: TensorDictBase, group: str) -> None:
    """Let those of ``group`` live after a step who did before it and were only cut off in it."""
    following = ("next", group)
    before, after = batch.get((group, "mask"), None), batch.get((*following, "mask"), None)
    cut = batch.get((*following, "truncated"), None)
    if before is None or after is None or cut is None:
        return
    if after.dtype != torch.bool or cut.shape != (*after.shape, 1):
        return  # for the loss to refuse
    terminated = batch.get((*following, "terminated"), None)
    cut = cut if terminated is None else cut & ~terminated
    batch.set((*following, "mask"), after | (before & cut.squeeze(-1)))


def _check_one_team(batch: TensorDictBase, group: str) -> None:
    """Raise if the reward of ``group`` would replace another team's, which a loss would learn as its own."""
    following = batch.get("next")
    others = [
        str(name)
        for name, entry in following.items()
        if is_tensor_collection(entry) and name != group and "reward" in entry.keys()
    ]
    if others and "reward" in following.keys():
        excluded = ", ".join(f"'{name}', ('next', '{name}')" for name in others)
        raise ValueError(
            f"the batch has the reward of a team at ('next', 'reward'), and rewards of "
            f"{sorted([*others, group])}: that of '{group}' would replace it. Give each team a copy without "
            f"the others, batch.exclude({excluded}, ('next', 'reward'))."
        )


def _required(batch: TensorDictBase, name: str, group: str) -> Tensor:
    team = batch.get(("next", name), None)
    if team is None:
        raise KeyError(
            f"the batch has neither ('next', '{group}', '{name}') nor ('next', '{name}'); "
            "the environment must provide one of them."
        )
    return team


def join_groups(
    batch: TensorDictBase, entries: Mapping[str, Iterable[NestedKey]]
) -> TensorDictBase:
    """Keep entries of every group below ``("joint", group)``, now and under ``"next"``.

    Critics over several groups find them there in a batch that goes without the other groups. Action masks
    are always kept: without them a critic's target would take actions that were not available.

    Args:
        batch: of all groups; it is changed, the entries are shared.
        entries: per group what policies and critics read of it; what the batch does not have is left out.

    Raises:
        KeyError: if the batch has no such group; it is then unchanged.
    """
    for group in entries:
        if batch.get(group, None) is None or batch.get(("next", group), None) is None:
            raise KeyError(f"the batch has no group '{group}'.")
    for group in entries:
        _revive(batch, group)
    for source in (batch, batch["next"]):
        joint = TensorDict({}, batch_size=source.batch_size, device=source.device)
        for group, kept in entries.items():
            joint.set(group, source.get(group).select(*kept, "action_mask", strict=False))
        source.set("joint", joint)
    return batch
