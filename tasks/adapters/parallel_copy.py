"""One PettingZoo ``ParallelEnv`` as a row of a batch of Python environments."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from marl_td.tasks.adapters.copies import AgentGroup, Array, Layout, Row
from marl_td.tasks.adapters.grouping import Grouping, group_agents, require_same
from marl_td.tasks.adapters.parallel_rules import described, one_number, require_step
from marl_td.tasks.adapters.pictures import Pictures
from marl_td.tasks.adapters.spaces import absent, action_reader, observation_reader
from marl_td.tasks.base import require


class _Present(NamedTuple):
    """The agents of a step: who goes on, who is cut off in it, and who ends for good."""

    staying: set[str]
    cut: set[str]
    ended: set[str]


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
        flatten: bool,
        image_size: int | None,
    ) -> None:
        self.env = env
        self.mortal = mortal
        agents = _possible_agents(env)
        self._known = set(agents)
        seen = {agent: env.observation_space(agent) for agent in agents}
        acts = {agent: env.action_space(agent) for agent in agents}
        observation = {
            agent: observation_reader(space, agent, flatten=flatten, image_size=image_size)
            for agent, space in seen.items()
        }
        self._read = {agent: reader.read for agent, reader in observation.items()}
        self._masked = {agent for agent, reader in observation.items() if reader.masked}
        self._actions = {agent: action_reader(space, agent) for agent, space in acts.items()}
        group_map = group_agents(agents, groups, {a: (seen[a], acts[a]) for a in agents})
        _, infos = self._reset(None)
        found = {}
        for group, members in group_map.items():
            require_same("observation", group, members, [seen[a] for a in members])
            require_same("action", group, members, [acts[a] for a in members])
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
        self._state = None
        d_state = None
        if _has_state(env) if state is None else state:
            self._state = _state_reader(env, image_size)
            d_state = self._state().size
        self.layout = Layout(found, d_state, info_keys)
        self._seats = [
            (agent, group, seat)
            for group, names in group_map.items()
            for seat, agent in enumerate(names)
        ]

    # --------------------------------------------------------------- episodes
    def reset(self, seed: int | None, row: Row) -> None:
        """Start an episode."""
        observations, infos = self._reset(seed)
        alive = set(self.env.agents)
        self._require_observed(observations, alive)
        self._write(row, observations, infos, {}, _Present(alive, set(), set()))

    def step(self, action: dict[str, Array], row: Row) -> tuple[bool, bool]:
        """Advance the agents that are still in the game."""
        acting = set(self.env.agents)
        chosen = {
            agent: self._actions[agent].convert(action[group][seat])
            for agent, group, seat in self._seats
            if agent in acting
        }
        result = self.env.step(chosen)
        require_step(result, acting, self._known)
        observations, rewards, terminations, truncations, infos = result
        ended = {a for a in acting if terminations[a]}
        cut = {a for a in acting if truncations[a]} - ended
        left = set(self.env.agents) - ended - cut
        if not self.mortal and max(len(ended), len(cut), len(left)) < len(self._seats):
            raise ValueError(
                f"the agents did not end together (terminated {sorted(ended)}, truncated "
                f"{sorted(cut)}, still there {sorted(left)}); pass mortal=True to get a mask of who "
                "is alive, so that losses can leave the others out."
            )
        self._require_observed(observations, left)
        self._write(row, observations, infos, rewards, _Present(left, cut, ended))
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

    def snapshot(self) -> list[Any]:
        """Nothing: all is in the environment and in the batch's arrays."""
        return []

    def restore(self, state: list[Any]) -> None:
        """Nothing to do."""

    def _reset(self, seed: int | None) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        result = self.env.reset() if seed is None else self.env.reset(seed=seed)
        require(
            isinstance(result, tuple) and len(result) == 2,
            f"reset() must return (observations, infos), each a dictionary by agent; got "
            f"{described(result)}.",
        )
        return result

    def _require_observed(self, observations: Mapping[str, Any], present: set[str]) -> None:
        """Check that whoever is in the game is known and sees something."""
        strangers = sorted(present - self._known)
        require(
            not strangers,
            f"the agents {strangers} are in the game but not among possible_agents, which must name "
            "everybody who can appear.",
        )
        blind = sorted(present - observations.keys())
        require(not blind, f"the agents {blind} are in the game but got no observation.")

    # ---------------------------------------------------------------- writing
    def _write(
        self,
        row: Row,
        observations: Mapping[str, Any],
        infos: Mapping[str, Any],
        rewards: Mapping[str, Any],
        present: _Present,
    ) -> None:
        groups = self.layout.groups
        in_game = present.staying | present.cut
        for agent, group, seat in self._seats:
            seen = observations.get(agent)
            row.reward[group][seat] = one_number(agent, rewards[agent]) if agent in rewards else 0.0
            _write_ends(row, agent, group, seat, present)
            if seen is not None:
                row.observation[group][seat] = self._read[agent](seen)
            elif agent in present.cut:  # what it saw before is valued
                continue
            else:
                row.observation[group][seat] = 0
            if groups[group].masked:
                legal = self._legal(agent, seen, infos, agent in in_game)
                if agent in present.staying and not legal.any():
                    raise ValueError(
                        f"the action mask of agent '{agent}' allows no action, though it is in the game: at "
                        "least one must be available, such as one that does nothing."
                    )
                legal[0] |= not legal.any()
                row.action_mask[group][seat] = legal
        if self._state is not None:
            self._write_state(row, self._state)
        for key in self.layout.info_keys:
            told = [float(info[key]) for info in infos.values() if key in info]
            row.info[key][:] = sum(told) / len(told) if told else 0.0

    def _write_state(self, row: Row, read: Callable[[], Array]) -> None:
        """The global state; the one before stays where an environment has none after its end."""
        try:
            row.state[:] = read()
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            if self.env.agents:
                raise ValueError(
                    f"the environment's state() failed while agents were in the game ({told}); leave it "
                    "out with state=False."
                ) from error
            _warn_once(
                f"{self.env} has no global state after an episode's end ({told}); the one before the "
                "last step is used in its place."
            )

    def _legal(self, agent: str, seen: Any, infos: Mapping[str, Any], alive: bool) -> Array:
        """The agent's available actions: none if it is dead, all if it reports no mask."""
        reader = self._actions[agent]
        legal = np.zeros(getattr(reader.action, "n", 0), dtype=np.bool_)
        if alive:
            place = (
                seen if isinstance(seen, Mapping) and "action_mask" in seen else infos.get(agent)
            )
            told = (place or {}).get("action_mask")
            if told is None and agent in self._masked:
                raise ValueError(absent("action_mask", seen, agent))
            legal[:] = True if told is None else reader.read_mask(told)
        return legal


def _write_ends(row: Row, agent: str, group: str, seat: int, present: _Present) -> None:
    """Who goes on, and whose life ended how.

    Where an episode is cut off, the mask stays: there is no step any more in which nobody acts.
    """
    terminated, truncated = row.terminated[group], row.truncated[group]
    row.mask[group][seat] = agent in (present.staying or present.cut)
    here = agent in present.staying or agent in present.cut
    left = terminated[seat] | truncated[seat]
    terminated[seat] = not here and (agent in present.ended or left)
    truncated[seat] = agent in present.cut


@cache
def _warn_once(message: str) -> None:
    """Many copies have the same to say."""
    warnings.warn(message, stacklevel=3)


def _possible_agents(env: Any) -> list[str]:
    agents = list(getattr(env, "possible_agents", None) or [])
    require(
        bool(agents) and all(isinstance(agent, str) for agent in agents),
        "the environment must list the names of all agents that can appear in `possible_agents`, as "
        f"strings; got {agents}.",
    )
    return agents


def _state_reader(env: Any, image_size: int | None) -> Callable[[], Array]:
    """Gives the global state as a vector; one that is a picture in bytes is averaged down."""
    example = np.asarray(env.state())
    if image_size is None or example.dtype != np.uint8 or example.ndim not in (2, 3):
        return lambda: np.asarray(env.state()).reshape(-1)
    pictures = Pictures(example.shape, image_size)
    return lambda: pictures.read(env.state()).reshape(-1)


def _has_state(env: Any) -> bool:
    """Whether there is a global state; some environments keep something else under that name."""
    if not callable(getattr(env.unwrapped, "state", None)):
        return False
    try:
        env.state()
    except NotImplementedError:  # what PettingZoo's base class raises where there is none
        return False
    return True
