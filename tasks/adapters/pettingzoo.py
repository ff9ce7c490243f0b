"""Any PettingZoo ``ParallelEnv`` as a TorchRL environment, in one call.

What TorchRL 0.11's own ``PettingZooWrapper`` does otherwise, and why this is not built on it: it is a
single environment and seeds all workers alike; a truncation clears its alive mask, so a masked loss
cannot bootstrap there; an agent that left the game is reported as terminated *and* truncated, and one
death ends the episode of all unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pettingzoo.utils.env import AECEnv, ParallelEnv

from marl_td.tasks.adapters.copies import AgentGroup, Array, Layout, Row, build_copies
from marl_td.tasks.adapters.grouping import Grouping, group_agents, require_same
from marl_td.tasks.adapters.python_env import PythonEnv
from marl_td.tasks.adapters.spaces import action_reader, observation_reader
from marl_td.tasks.base import Discrete


def from_pettingzoo(
    env_or_factory: Any,
    *,
    groups: Grouping = None,
    n_envs: int = 1,
    seed: int | None = 0,
    max_steps: int | None = None,
    mortal: bool = True,
    state: bool | None = None,
    info_keys: Sequence[str] = (),
    device: torch.device | str = "cpu",
) -> PythonEnv:
    """A TorchRL environment over ``n_envs`` copies of a PettingZoo ``ParallelEnv``.

    Observations that are not a Box are flattened; discrete actions are integers (``Categorical``,
    never one-hot). An action mask is found in a Dict observation or in the info, as PettingZoo
    allows both. The episode ends when no agent is left: it is truncated if the last ones were cut
    off by a time limit, terminated otherwise.

    Args:
        env_or_factory: an environment, or (needed for ``n_envs > 1``) a function that builds one.
        groups: None groups agents by name prefix (``"adversary_0"`` into ``"adversary"``), ``"all"``
            makes one group ``"agents"``, ``"each"`` a group per agent; or ``{group: [agents]}``.
        n_envs: number of copies, stepped one after the other in this process.
        seed: seed from which every copy gets its own; None leaves each to seed itself.
        max_steps: time limit in steps beside the environment's own; reaching it truncates.
        mortal: whether an agent may end before the others; gives ``(group, "mask")``, true = alive.
            A truncated agent is alive: its value is bootstrapped.
        state: whether to give the global ``"state"`` (flattened); None gives it where there is one.
        info_keys: numbers in the agents' infos to give as ``("info", name)``, averaged over the
            agents that report them.
        device: where the tensors go; the environments stay on the CPU.

    Raises:
        TypeError: if this is no ``ParallelEnv``.
        ValueError: if agents of a group differ in their spaces, a space is not supported, a reported
            array does not fit its space, or a number is not finite; each names agent and remedy.
    """
    envs = build_copies(env_or_factory, n_envs, _is_parallel)
    options: dict[str, Any] = {"groups": groups, "mortal": mortal, "state": state}
    copies = [ParallelCopy(env, info_keys=tuple(info_keys), **options) for env in envs]
    return PythonEnv(copies, seed=seed, max_steps=max_steps, device=device)


def _is_parallel(env: Any) -> bool:
    if isinstance(env, AECEnv):
        raise TypeError(
            "this is a turn-based AECEnv; make it parallel first with "
            "pettingzoo.utils.aec_to_parallel(env), or build it with `parallel_env` where its "
            "module has one."
        )
    return isinstance(env, ParallelEnv)


class ParallelCopy:
    """One ``ParallelEnv`` that writes into a row of the batch; see :func:`from_pettingzoo`."""

    def __init__(
        self,
        env: Any,
        *,
        groups: Grouping,
        mortal: bool,
        state: bool | None,
        info_keys: tuple[str, ...],
    ) -> None:
        self.env = env
        self.mortal = mortal
        agents = list(env.possible_agents)
        observation = {a: observation_reader(env.observation_space(a), a) for a in agents}
        self._read = {agent: reader.read for agent, reader in observation.items()}
        self._actions = {a: action_reader(env.action_space(a), a) for a in agents}
        group_map = group_agents(agents, groups)
        _, infos = env.reset()
        found = {}
        for group, members in group_map.items():
            require_same("observation", group, members, [env.observation_space(a) for a in members])
            require_same("action", group, members, [env.action_space(a) for a in members])
            first = observation[members[0]]
            masked = first.masked or any("action_mask" in infos.get(a, {}) for a in members)
            found[group] = AgentGroup(
                n_agents=len(members),
                d_obs=int(np.prod(first.shape)),
                action=self._actions[members[0]].action,
                masked=masked,
                mortal=mortal,
                agents=tuple(members),
                shape=first.shape,
            )
        self._has_state = _has_state(env) if state is None else state
        d_state = int(np.asarray(env.state()).size) if self._has_state else None
        self.layout = Layout(found, d_state, info_keys)
        self._seats = [
            (agent, group, seat)
            for group, names in group_map.items()
            for seat, agent in enumerate(names)
        ]

    # --------------------------------------------------------------- episodes
    def reset(self, seed: int | None, row: Row) -> None:
        """Start an episode."""
        observations, infos = self.env.reset(seed=seed)
        self._write(row, observations, infos, {}, set(self.env.agents))

    def step(self, action: dict[str, Array], row: Row) -> tuple[bool, bool]:
        """Advance the agents that are still in the game."""
        acting = set(self.env.agents)
        chosen = {
            agent: self._actions[agent].convert(action[group][seat])
            for agent, group, seat in self._seats
            if agent in acting
        }
        observations, rewards, terminations, truncations, infos = self.env.step(chosen)
        ended = {a for a in acting if terminations.get(a, False)}
        cut = {a for a in acting if truncations.get(a, False)} - ended
        left = set(self.env.agents) - ended - cut
        if not self.mortal and max(len(ended), len(cut), len(left)) < len(self._seats):
            raise ValueError(
                f"the agents did not end together (terminated {sorted(ended)}, truncated "
                f"{sorted(cut)}, still there {sorted(left)}); pass mortal=True to get a mask of who "
                "is alive, so that losses can leave the others out."
            )
        self._write(row, observations, infos, rewards, left | cut)
        over = not left
        return over and not cut, over and bool(cut)

    def render(self) -> Array:
        """The environment's own picture."""
        picture = self.env.render()
        if picture is None:
            raise ValueError("build the environment with render_mode='rgb_array' to render it.")
        return np.asarray(picture)

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    # ---------------------------------------------------------------- writing
    def _write(
        self,
        row: Row,
        observations: Mapping[str, Any],
        infos: Mapping[str, Any],
        rewards: Mapping[str, Any],
        alive: set[str],
    ) -> None:
        groups = self.layout.groups
        for agent, group, seat in self._seats:
            seen = observations.get(agent)
            if seen is None:
                row.observation[group][seat] = 0
            else:
                row.observation[group][seat] = self._checked(agent, seen, groups[group].shape)
            row.reward[group][seat] = rewards.get(agent, 0.0)
            row.mask[group][seat] = agent in alive
            if groups[group].masked:
                row.action_mask[group][seat] = self._legal(agent, seen, infos, agent in alive)
        if self._has_state:
            row.state[:] = np.asarray(self.env.state()).reshape(-1)
        for key in self.layout.info_keys:
            told = [float(info[key]) for info in infos.values() if key in info]
            row.info[key][:] = sum(told) / len(told) if told else 0.0

    def _checked(self, agent: str, seen: Any, shape: tuple[int, ...]) -> Array:
        value = self._read[agent](seen)
        if value.shape != shape:
            raise ValueError(
                f"observation of agent '{agent}' has shape {value.shape}, but its space says {shape}."
            )
        return value

    def _legal(self, agent: str, seen: Any, infos: Mapping[str, Any], alive: bool) -> Array:
        """The agent's available actions; the first one if it is dead or reports none."""
        action = self._actions[agent].action
        n_actions = action.n if isinstance(action, Discrete) else 0
        legal = np.zeros(n_actions, dtype=np.bool_)
        if alive:
            place = (
                seen if isinstance(seen, Mapping) and "action_mask" in seen else infos.get(agent)
            )
            told = (place or {}).get("action_mask")
            if told is not None and np.shape(told) != legal.shape:
                raise ValueError(
                    f"action mask of agent '{agent}' has shape {np.shape(told)}; it has {n_actions} "
                    "actions."
                )
            legal[:] = True if told is None else told
        legal[0] |= not legal.any()
        return legal


def _has_state(env: Any) -> bool:
    """Whether there is a global state; some environments keep something else under that name."""
    if not callable(getattr(env.unwrapped, "state", None)):
        return False
    try:
        env.state()
    except NotImplementedError:  # what PettingZoo's base class raises where there is none
        return False
    return True
