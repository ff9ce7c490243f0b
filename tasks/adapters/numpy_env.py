"""A plain NumPy environment as a TorchRL environment, in one call.

The interface is the old one that most research code has::

    reset() -> obs [n_agents, d_obs]
    step(actions) -> obs [n_agents, d_obs], rewards [n_agents], dones [n_agents] or bool, info dict

``actions`` is ``[n_agents]`` of integers or ``[n_agents, d_action]`` of floats.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from marl_td.tasks.adapters.copies import AgentGroup, Array, Layout, Row, build_copies
from marl_td.tasks.adapters.python_env import PythonEnv
from marl_td.tasks.base import Box, Discrete, require

GROUP = "agents"
TRUNCATED_KEYS = ("TimeLimit.truncated", "truncated")


def from_numpy(
    env_or_factory: Any,
    *,
    n_actions: int | None = None,
    action_low: float | Sequence[float] | None = None,
    action_high: float | Sequence[float] | None = None,
    n_envs: int = 1,
    seed: int | None = 0,
    max_steps: int | None = None,
    mortal: bool = True,
    info_keys: Sequence[str] = (),
    device: torch.device | str = "cpu",
) -> PythonEnv:
    """A TorchRL environment over ``n_envs`` copies of a plain NumPy environment.

    All agents form the group ``"agents"``. The episode ends when all of them are done. The end is
    truncated if ``info["TimeLimit.truncated"]`` or ``info["truncated"]`` says so or ``max_steps`` is
    reached, terminated otherwise.

    Args:
        env_or_factory: an environment, or (needed for ``n_envs > 1``) a function that builds one.
        n_actions: number of actions of each agent, for discrete actions.
        action_low: lower bound of continuous actions, one number per element of an agent's action.
        action_high: upper bound of continuous actions, likewise.
        n_envs: number of copies, stepped one after the other in this process.
        seed: seed from which every copy gets its own, given to ``reset(seed=...)`` or ``seed(...)``,
            whichever the environment has. None, or an environment with neither, is left to itself.
        max_steps: time limit in steps; reaching it truncates.
        mortal: whether an agent may be done before the others; gives ``("agents", "mask")``, true =
            alive.
        info_keys: numbers in the info to give as ``("info", name)``.
        device: where the tensors go; the environments stay on the CPU.

    Raises:
        TypeError: if the object has no ``reset`` and ``step``.
        ValueError: if the action space is not given as one of the two kinds, an array has a wrong
            shape, or a number is not finite; each says which.
    """
    action = _action(n_actions, action_low, action_high)
    envs = build_copies(env_or_factory, n_envs, _is_numpy)
    copies = [NumpyCopy(env, action, mortal, tuple(info_keys)) for env in envs]
    return PythonEnv(copies, seed=seed, max_steps=max_steps, device=device)


def _is_numpy(env: Any) -> bool:
    return not inspect.isclass(env) and hasattr(env, "reset") and hasattr(env, "step")


def _action(
    n_actions: int | None,
    low: float | Sequence[float] | None,
    high: float | Sequence[float] | None,
) -> Box | Discrete:
    discrete, continuous = n_actions is not None, low is not None and high is not None
    require(
        discrete != continuous and (low is None) == (high is None),
        "give either n_actions (discrete actions) or both action_low and action_high (continuous "
        f"actions, one number per element); got n_actions={n_actions}, action_low={low}, "
        f"action_high={high}.",
    )
    if n_actions is not None:
        return Discrete(n_actions)
    bounds = (tuple(np.atleast_1d(np.asarray(end, dtype=float)).tolist()) for end in (low, high))
    return Box(*bounds)


class NumpyCopy:
    """One NumPy environment that writes into a row of the batch; see :func:`from_numpy`."""

    def __init__(
        self, env: Any, action: Box | Discrete, mortal: bool, info_keys: tuple[str, ...]
    ) -> None:
        self.env = env
        self.mortal = mortal
        self._seeds_in_reset = "seed" in inspect.signature(env.reset).parameters
        first = _numbers("what reset() returns", env.reset())
        require(
            first.ndim >= 2,
            f"reset() must return an array [n_agents, d_obs]; got shape {first.shape}.",
        )
        self.n_agents, shape = first.shape[0], first.shape[1:]
        group = AgentGroup(
            n_agents=self.n_agents,
            d_obs=int(np.prod(shape)),
            action=action,
            mortal=mortal,
            agents=tuple(f"{GROUP}_{i}" for i in range(self.n_agents)),
            shape=shape,
        )
        self.layout = Layout({GROUP: group}, None, info_keys)
        self._alive = np.ones(self.n_agents, dtype=np.bool_)

    def reset(self, seed: int | None, row: Row) -> None:
        """Start an episode."""
        if seed is not None and self._seeds_in_reset:
            observation = self.env.reset(seed=seed)
        else:
            if seed is not None and callable(getattr(self.env, "seed", None)):
                self.env.seed(seed)
            observation = self.env.reset()
        self._alive[:] = True
        self._write(row, observation, np.zeros(self.n_agents), {})

    def step(self, action: dict[str, Array], row: Row) -> tuple[bool, bool]:
        """Advance all agents; those that are done get an action too, as the interface has it."""
        actions = action[GROUP].copy()
        result = self.env.step(actions)
        require(
            isinstance(result, tuple) and len(result) == 4,
            "step(actions) must return (obs, rewards, dones, info); got "
            f"{len(result) if isinstance(result, tuple) else type(result).__name__} value(s).",
        )
        observation, rewards, dones, info = result
        require(isinstance(info, Mapping), f"info must be a dict; got {type(info).__name__}.")
        done = self._per_agent("dones", dones).astype(np.bool_)
        cut = any(bool(np.all(info.get(key, False))) for key in TRUNCATED_KEYS)
        over = bool((done | ~self._alive).all()) or cut
        reward = np.where(self._alive, self._per_agent("rewards", rewards), 0.0)
        if not cut:
            self._alive &= ~done
        row.terminated[GROUP][:, 0] = ~self._alive
        if not self.mortal and not over and not self._alive.all():
            raise ValueError(
                f"agents {np.flatnonzero(~self._alive).tolist()} were done before the others; pass "
                "mortal=True to get a mask of who is alive, so that losses can leave them out."
            )
        self._write(row, observation, reward, info)
        return over and not cut, over and cut

    def render(self) -> Array:
        """The environment's own picture."""
        return np.asarray(self.env.render())

    def snapshot(self) -> list[Any]:
        """Who is alive."""
        alive: list[Any] = self._alive.tolist()
        return alive

    def restore(self, state: list[Any]) -> None:
        """Go on from what :meth:`snapshot` gave."""
        self._alive[:] = state

    def close(self) -> None:
        """Close the environment, if it can be closed."""
        if hasattr(self.env, "close"):
            self.env.close()

    # ---------------------------------------------------------------- writing
    def _write(self, row: Row, observation: Any, reward: Array, info: Mapping[str, Any]) -> None:
        seen, spec = _numbers("the observation", observation), self.layout.groups[GROUP]
        expected = (self.n_agents, *spec.shape)
        require(
            seen.shape == expected,
            f"the observation must have shape {expected}; got {seen.shape}.",
        )
        row.observation[GROUP][:] = seen
        row.reward[GROUP][:, 0] = reward
        row.mask[GROUP][:] = self._alive
        for key in self.layout.info_keys:
            row.info[key][:] = float(info.get(key, 0.0))

    def _per_agent(self, what: str, values: Any) -> Array:
        array = _numbers(what, values)
        require(
            array.shape in ((), (self.n_agents,), (self.n_agents, 1)),
            f"{what} must be one value or one per agent, {self.n_agents}; got shape {array.shape}.",
        )
        return np.broadcast_to(array.reshape(-1), (self.n_agents,))


def _numbers(what: str, value: Any) -> Array:
    """``value`` as an array of floats, or a message that says what it is instead."""
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{what} must be an array of numbers; got {type(value).__name__} ({error})."
        ) from error
