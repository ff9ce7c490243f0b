"""What a copy of a Python environment reports, and where it writes it.

The arrays of a batch hold one row per copy; :mod:`marl_td.tasks.adapters.python_env` turns them into
tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from marl_td.tasks.base import GroupSpec, checked_n_envs, require

Array = NDArray[Any]


@dataclass(frozen=True)
class AgentGroup(GroupSpec):
    """A group whose agents have names, and whose observations need not be vectors."""

    agents: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of one agent's observation."""
        return self.shape


class Layout(NamedTuple):
    """What a copy reports: its groups, the width of its state, and the names in its info."""

    groups: dict[str, AgentGroup]
    d_state: int | None
    info_keys: tuple[str, ...]


class Row(NamedTuple):
    """Where one copy writes what it reports; the arrays are its row of the batch's.

    An agent is ``truncated`` in the step that cuts it off, and ``terminated`` from the step in which it ends
    for good. After it has left, for whatever reason, nothing follows, and it is terminated.
    """

    observation: dict[str, Array]
    reward: dict[str, Array]
    action_mask: dict[str, Array]
    mask: dict[str, Array]
    state: Array
    info: dict[str, Array]
    terminated: dict[str, Array]
    truncated: dict[str, Array]


class Copy(Protocol):
    """A Python environment that writes into a :class:`Row` and tells how its episode ended."""

    layout: Layout

    def reset(self, seed: int | None, row: Row) -> None:
        """Start an episode, from ``seed`` or going on with the own random stream."""

    def step(self, action: dict[str, Array], row: Row) -> tuple[bool, bool]:
        """Advance by ``{group: [n_agents(, d_action)]}``; returns ``(terminated, truncated)``."""

    def render(self) -> Array:
        """Picture ``[height, width, 3]``."""

    def close(self) -> None:
        """Free what the environment holds."""

    def snapshot(self) -> list[Any]:
        """What the copy itself remembers beside the environment, as plain values."""

    def restore(self, state: list[Any]) -> None:
        """Go on from what :meth:`snapshot` gave."""


def build_copies(env_or_factory: Any, n_envs: int, is_env: Callable[[Any], bool]) -> list[Any]:
    """``n_envs`` independent environments from an object or a function that makes one.

    Raises:
        ValueError: if an object is to be several copies, or the factory gives the same one twice.
        TypeError: if it is neither an environment nor a function that returns one.
    """
    n_envs = checked_n_envs(n_envs)
    if is_env(env_or_factory):
        require(
            n_envs == 1,
            f"n_envs={n_envs} copies need a function that builds the environment, not one "
            "environment; pass e.g. `lambda: MyEnv()`.",
        )
        return [env_or_factory]
    envs = [env_or_factory() if callable(env_or_factory) else None for _ in range(n_envs)]
    for env in envs:
        if not is_env(env):
            wrong = env if callable(env_or_factory) else env_or_factory
            raise TypeError(
                "expected an environment of this kind or a function that returns one; got "
                f"{type(wrong).__module__}.{type(wrong).__qualname__}."
            )
    require(
        len({id(env) for env in envs}) == n_envs,
        "the function must build a new environment at each call; it returned the same one twice.",
    )
    return envs


def make_arrays(layout: Layout, n_envs: int) -> Row:
    """Arrays for the whole batch."""

    def make(tail: Callable[[AgentGroup], tuple[int, ...]], dtype: Any) -> dict[str, Array]:
        return {
            group: np.zeros((n_envs, spec.n_agents, *tail(spec)), dtype=dtype)
            for group, spec in layout.groups.items()
        }

    return Row(
        observation=make(lambda spec: spec.shape, np.float32),
        reward=make(lambda spec: (1,), np.float32),
        action_mask=make(lambda spec: (getattr(spec.action, "n", 0),), np.bool_),
        mask=make(lambda spec: (), np.bool_),
        state=np.zeros((n_envs, layout.d_state or 0), dtype=np.float32),
        info={key: np.zeros((n_envs, 1), dtype=np.float32) for key in layout.info_keys},
        terminated=make(lambda spec: (1,), np.bool_),
        truncated=make(lambda spec: (1,), np.bool_),
    )


def arrays_of(batch: Row) -> list[Array]:
    """The batch's arrays, in a fixed order, but for the agents' own ends."""
    groups = (batch.observation, batch.reward, batch.action_mask, batch.mask, batch.info)
    return [*(array for arrays in groups for array in arrays.values()), batch.state]


def ends_of(batch: Row) -> list[Array]:
    """The arrays of the agents' own ends, in a fixed order."""
    return [*batch.terminated.values(), *batch.truncated.values()]


def row_of(batch: Row, i: int) -> Row:
    """Row ``i`` of the batch's arrays (views)."""

    def pick(arrays: dict[str, Array]) -> dict[str, Array]:
        return {key: values[i] for key, values in arrays.items()}

    return Row(
        observation=pick(batch.observation),
        reward=pick(batch.reward),
        action_mask=pick(batch.action_mask),
        mask=pick(batch.mask),
        state=batch.state[i],
        info=pick(batch.info),
        terminated=pick(batch.terminated),
        truncated=pick(batch.truncated),
    )
