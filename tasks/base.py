"""The contract of a batched task: a parameter dataclass and pure functions over tensors.

A task knows nothing of TorchRL: it maps a state, an action and *given* noise to the next state.
All randomness of a reset and of a step is drawn in one place (``draw_reset``, ``draw_step``), so
that the same noise gives the same episode alone or in a batch, on CPU or GPU, compiled or not.
:class:`marl_td.tasks.vector_env.VectorEnv` turns any task into a TorchRL environment.

Shapes: every tensor of a state, of the noise and of the info starts with ``[n_envs, ...]``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor
from typing_extensions import NamedTuple  # Python 3.10's own cannot be generic

from marl_td.field_types import check_fields, check_type, plain

Groups = dict[str, Tensor]
"""One tensor per agent group, ``{group: [n_envs, n_agents, ...]}``."""

Noise = dict[str, Tensor]
"""Named random draws of one reset or one step, each ``[n_envs, ...]``."""

Policy = Callable[[TensorDictBase], TensorDictBase]
"""Like a learned policy: reads observations (or the global ``"state"``), writes the actions."""

USUAL_STEPS = 4
"""Of the episodes of a task that can end early: most last longer."""


@dataclass(frozen=True)
class Box:
    """Continuous actions of one agent: a vector in ``[low, high]`` (element-wise).

    ``names`` says what each element is, its unit in brackets (``"acceleration [m/s2]"``), or is empty.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        fits = len(self.low) == len(self.high) >= 1
        ordered = all(low < high for low, high in zip(self.low, self.high, strict=False))
        require(
            fits and ordered,
            f"Box needs one low < high per element; got low {self.low}, high {self.high}.",
        )
        _check_names(self.names, len(self.low))


@dataclass(frozen=True)
class Discrete:
    """Discrete actions of one agent: an integer in ``0 .. n - 1``; ``names`` in this order, or empty."""

    n: int
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.n >= 1, f"Discrete needs at least 1 action; got {self.n}.")
        _check_names(self.names, self.n)


def _check_names(names: tuple[str, ...], n: int) -> None:
    require(len(names) in (0, n), f"{n} actions need {n} names, or none; got {', '.join(names)}.")


@dataclass(frozen=True)
class GroupSpec:
    """What the agents of one group see and do.

    ``masked`` says that :meth:`Task.action_mask` returns this group's available actions;
    ``mortal`` that :meth:`Task.alive` says which of its agents are alive; ``info`` names the raw
    quantities of single agents in :meth:`Task.agent_info`, with their widths.
    """

    n_agents: int
    d_obs: int
    action: Box | Discrete
    masked: bool = False
    mortal: bool = False
    info: dict[str, int] = field(default_factory=dict)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of one agent's observation."""
        return (self.d_obs,)


@dataclass(frozen=True)
class Optimum:
    """The best value known for a task, in the task's unit, and how it is known.

    ``kind`` is ``"exact"``, or ``"lower"`` / ``"upper"`` where it only bounds the score.
    """

    value: float
    kind: Literal["exact", "lower", "upper"]
    how: str


@dataclass
class TaskParams:
    """Parameters every task has. Tasks extend it; a default is written here and nowhere else."""

    max_steps: int = 100
    """Time limit in steps; reaching it truncates the episode, it never terminates it."""
    safety: Any = None
    """Constraints on actions that always hold (:class:`marl_td.tasks.shield.Shield`), or None."""

    def __post_init__(self) -> None:
        check_fields(self)
        require(self.max_steps >= 1, f"max_steps must be at least 1; got {self.max_steps}.")


P = TypeVar("P", bound=TaskParams)
S = TypeVar("S", bound=tuple[Tensor, ...])


class Step(NamedTuple, Generic[S]):
    """What :meth:`Task.step` returns.

    ``reward`` is ``{group: [n_envs, n_agents]}``; ``terminated`` ``[n_envs]`` bool marks real ends
    (never a time limit); ``info`` holds raw quantities ``{name: [n_envs]}`` that add up over an
    episode.
    """

    state: S
    reward: Groups
    terminated: Tensor
    info: dict[str, Tensor]


def require(condition: bool, message: str) -> None:
    """Raise ``ValueError(message)`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(message)


def checked_n_envs(n_envs: Any) -> int:
    """A number of environments as a Python number.

    Raises:
        ValueError: unless it is a whole one of at least 1.
    """
    number: int = plain(n_envs)
    check_type("n_envs", number, int)
    require(number >= 1, f"n_envs must be at least 1; got {number}.")
    return number


class Task(ABC, Generic[P, S]):
    """A batched task. Subclasses are pure: no method changes ``self`` after construction.

    Args:
        params: the task's parameter dataclass.
        continuous: continuous actions if true, discrete ones otherwise.
        device: where the task's constants live; states and noise must be there too.

    Raises:
        ValueError: if the task has no such action space.
    """

    name: ClassVar[str]
    """Registry name without the ``marl_td/`` prefix."""
    Params: ClassVar[type[TaskParams]]
    """The parameter dataclass."""
    has_continuous_actions: ClassVar[bool] = True
    has_discrete_actions: ClassVar[bool] = True
    terminates: ClassVar[bool] = True
    """Whether an episode can end before the time limit."""
    agents_return: ClassVar[bool] = False
    """Whether agents of mortal groups that are not there may come (back) within an episode."""
    unit: ClassVar[str] = "return"
    """Unit of :meth:`score`, such as ``"$ per period"``."""
    higher_is_better: ClassVar[bool] = True
    info_keys: ClassVar[tuple[str, ...]] = ()
    """Names of the raw quantities in :attr:`Step.info`."""
    levels: ClassVar[dict[str, dict[str, Any]]] = {}
    """Named difficulties, such as ``"easy"``, with the parameters each changes."""
    slow_baselines: ClassVar[dict[str, int]] = {}
    """Classical policies that plan agent by agent, with the most episodes a table plays with each."""

    draws_starts_slowly: ClassVar[bool] = False
    """Whether :meth:`draw_reset` takes as long as steps; what a batch has not used is kept for the next."""

    uncompilable: str | None = None
    """Why its steps cannot be part of a compiled graph, or None if they can."""

    def __init__(
        self, params: P, continuous: bool = True, device: torch.device | str = "cpu"
    ) -> None:
        offered = self.has_continuous_actions if continuous else self.has_discrete_actions
        kind = "continuous" if continuous else "discrete"
        require(
            offered,
            f"task '{self.name}' has no {kind} actions; choose an algorithm or setting "
            f"for {'discrete' if continuous else 'continuous'} actions.",
        )
        self.params = params
        self.continuous = continuous
        self.device = torch.device(device)

    # ------------------------------------------------------------------ shape
    @property
    @abstractmethod
    def groups(self) -> dict[str, GroupSpec]:
        """The agent groups, in a fixed order."""

    @property
    def d_state(self) -> int | None:
        """Width of the global state, or None if the task has none."""
        return None

    @property
    def usual_episode(self) -> int:
        """Episodes usually last at least so many steps; it says how many start states a batch holds ready."""
        limit = self.params.max_steps
        return min(USUAL_STEPS, limit) if self.terminates else limit

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        """All random numbers of one reset of ``n_envs`` environments."""
        return {}

    def draw_step(self, n_envs: int, generator: torch.Generator) -> Noise:
        """All random numbers of one step of ``n_envs`` environments."""
        return {}

    @abstractmethod
    def reset(self, n_envs: int, noise: Noise) -> S:
        """Start state: a NamedTuple of tensors ``[n_envs, ...]``."""

    @abstractmethod
    def step(self, state: S, action: Groups, noise: Noise) -> Step[S]:
        """One step.

        ``action[group]`` is ``[n_envs, n_agents, d_action]`` float or ``[n_envs, n_agents]`` long.
        """

    @abstractmethod
    def observe(self, state: S) -> Groups:
        """What each agent sees: ``{group: [n_envs, n_agents, d_obs]}`` float32."""

    def team_state(self, state: S) -> Tensor:
        """The global state ``[n_envs, d_state]``, for central critics and mixers."""
        raise NotImplementedError(f"task '{self.name}' has no global state")

    def action_mask(self, state: S) -> Groups:
        """Available actions ``{group: [n_envs, n_agents, n_actions]}`` bool of the masked groups.

        Every agent, dead ones included, has at least one available action.
        """
        return {}

    def alive(self, state: S) -> Groups:
        """Alive agents ``{group: [n_envs, n_agents]}`` bool of the mortal groups."""
        return {}

    def agent_info(self, state: S) -> dict[str, Groups]:
        """Raw quantities of single agents, ``{name: {group: [n_envs, n_agents, d]}}`` float32.

        They are for people to look at, and in the state: what a step alone knows must be kept there.
        """
        return {}

    # ---------------------------------------------------------------- judging
    def score(self, totals: dict[str, Tensor]) -> Tensor:
        """The task's figure of merit per episode, in :attr:`unit`.

        Args:
            totals: sums over the episode, each ``[*B]``: every name in ``info_keys``, plus
                ``"return"`` (reward averaged over all agents, summed over steps) and ``"steps"``.
        """
        return totals["return"]

    def baselines(self) -> dict[str, Policy]:
        """The domain's classical policies by name (the random policy needs no entry)."""
        return {}

    def optimum(self) -> Optimum | None:
        """The optimum or a bound of :meth:`score`'s expectation, or None where there is none."""
        return None

    def episode_series(self, state: S) -> dict[str, Tensor]:
        """Quantities worth drawing over an episode, ``{label with unit: [n_envs, n_lines]}``."""
        return {}

    def render(self, state: S, index: int = 0) -> np.ndarray[Any, Any]:
        """Picture of environment ``index`` as ``uint8 [height, width, 3]``."""
        raise NotImplementedError(f"task '{self.name}' has no renderer")
