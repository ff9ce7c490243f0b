"""What an agent's actor reads and writes: the types behind ``signature.json``. Numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from marl_td.deploy.format import BundleError

Array = np.ndarray[Any, Any]
DTYPES = ("float32", "float64", "int64", "int32", "uint8", "bool")
DISCRETE, CONTINUOUS = "discrete", "continuous"
DETERMINISTIC, SAMPLED = "deterministic", "sampled"
CATEGORICAL, TANH_NORMAL, NORMAL = "categorical", "tanh_normal", "normal"
MAX_INIT = 1e9
MAX_SIZE = 2**24
"""Most numbers in one entry of one agent."""


@dataclass(frozen=True)
class Entry:
    """One named array of one agent, without the batch.

    Args:
        name: of the actor's input or output.
        dtype: numpy's name.
        shape: without the batch.
        low: lower bounds of that shape, or one number; ``-inf`` where there is none, None for no bounds.
        high: upper bounds, likewise.
        components: what each number is, ``{"name": ..., "unit": ...}``, where the task says it.
        init: for a state: its value before the first step.
        next: for a state: the output that is its value after the step.
        note: what else a user must know.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    low: Array | None = None
    high: Array | None = None
    components: tuple[dict[str, str], ...] = ()
    init: float = 0.0
    next: str = ""
    note: str = ""

    @property
    def initial(self) -> Array:
        """The value before the first step, without a batch."""
        return np.full(self.shape, self.init, self.dtype)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        out: dict[str, Any] = {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}
        out["low"], out["high"] = _plain(self.low), _plain(self.high)
        out["components"] = [dict(component) for component in self.components]
        if self.next:
            out |= {"init": self.init, "next": self.next}
        return out | ({"note": self.note} if self.note else {})

    @staticmethod
    def from_dict(data: Any) -> Entry:
        """An entry from its JSON form.

        Raises:
            BundleError: naming what is wrong.
        """
        if not isinstance(data, dict):
            raise BundleError(f"an entry of the signature must be an object; got {data!r}.")
        name, dtype, shape = (data.get(key) for key in ("name", "dtype", "shape"))
        if not isinstance(name, str) or not name:
            raise BundleError(f"an entry of the signature needs a name; got {name!r}.")
        if dtype not in DTYPES:
            raise BundleError(f"'{name}' has the type {dtype!r}; known are {', '.join(DTYPES)}.")
        sizes = _sizes(name, shape)
        init = data.get("init", 0.0)
        plain = isinstance(init, int | float) and not isinstance(init, bool)
        if not plain or not abs(init) <= MAX_INIT:
            raise BundleError(
                f"'{name}' must start from a number up to {MAX_INIT:g}; got {init!r}."
            )
        components = data.get("components", [])
        return Entry(
            name,
            dtype,
            sizes,
            _bounds(name, data.get("low"), sizes, -np.inf),
            _bounds(name, data.get("high"), sizes, np.inf),
            tuple(component for component in components if isinstance(component, dict)),
            init,
            str(data.get("next", "")),
            str(data.get("note", "")),
        )


@dataclass(frozen=True)
class AgentSignature:
    """Everything about one agent's actor.

    Args:
        group: the group of agents that it is trained in.
        index: its place in the group.
        actor: name of the files of its actor; agents with the same network share them.
        observation: what it sees.
        mask: which actions are available, or None.
        state: what it is given again in the next step; empty for a policy without memory.
        action: what it does.
        kind: ``"discrete"`` or ``"continuous"``.
        n_actions: number of discrete actions, 0 for continuous ones.
        mode: ``"deterministic"``, or ``"sampled"``: an action is drawn from the distribution.
        distribution: ``"categorical"``, ``"tanh_normal"``, ``"normal"`` or empty (there is none).
        normalisation: what is done to observations inside of the actor.
        communication: what must be brought from other agents before a step; empty for nothing.
        outputs: what the actor writes, the action first.
    """

    group: str
    index: int
    actor: str
    observation: tuple[Entry, ...]
    mask: Entry | None
    state: tuple[Entry, ...]
    action: Entry
    kind: str
    n_actions: int
    mode: str
    distribution: str
    normalisation: str
    communication: str
    outputs: tuple[str, ...]

    @property
    def inputs(self) -> tuple[Entry, ...]:
        """Every input of the actor, in its order."""
        return (*self.observation, *([] if self.mask is None else [self.mask]), *self.state)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "group": self.group,
            "index": self.index,
            "actor": self.actor,
            "observation": [entry.as_dict() for entry in self.observation],
            "mask": None if self.mask is None else self.mask.as_dict(),
            "state": [entry.as_dict() for entry in self.state],
            "action": {**self.action.as_dict(), "kind": self.kind, "n": self.n_actions},
            "mode": self.mode,
            "distribution": self.distribution,
            "normalisation": self.normalisation,
            "communication": self.communication,
            "outputs": list(self.outputs),
        }

    @staticmethod
    def from_dict(name: str, data: Any) -> AgentSignature:
        """The signature of the agent ``name`` from its JSON form.

        Raises:
            BundleError: naming the agent and what is wrong.
        """
        try:
            return _agent(data)
        except BundleError as error:
            raise BundleError(f"the signature of agent '{name}': {error}") from error
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise BundleError(
                f"the signature of agent '{name}' lacks an entry or has one of another form: {error!r}."
            ) from error


def _agent(data: Mapping[str, Any]) -> AgentSignature:
    action, n = data["action"], data["action"]["n"]
    kind, mode, distribution = action["kind"], data["mode"], data["distribution"]
    if kind not in (DISCRETE, CONTINUOUS) or type(n) is not int or (kind == DISCRETE) != (n > 0):
        raise BundleError(f"the action must be discrete with n > 0, or continuous; got {action!r}.")
    if mode not in (DETERMINISTIC, SAMPLED):
        raise BundleError(f"the mode must be deterministic or sampled; got {mode!r}.")
    if distribution not in (CATEGORICAL, TANH_NORMAL, NORMAL, "") or (mode == SAMPLED) > bool(
        distribution
    ):
        raise BundleError(f"mode '{mode}' does not go with the distribution {distribution!r}.")
    mask, outputs = data["mask"], tuple(str(name) for name in data["outputs"])
    out = AgentSignature(
        str(data["group"]),
        int(data["index"]),
        str(data["actor"]),
        tuple(Entry.from_dict(entry) for entry in data["observation"]),
        None if mask is None else Entry.from_dict(mask),
        tuple(Entry.from_dict(entry) for entry in data["state"]),
        Entry.from_dict(action),
        kind,
        n,
        mode,
        distribution,
        str(data["normalisation"]),
        str(data["communication"]),
        outputs,
    )
    _check_distribution(out)
    needed = {"action", *_distribution_outputs(out), *(entry.next for entry in out.state)}
    if not needed <= set(outputs):
        raise BundleError(f"the actor must write {sorted(needed)}; it writes {list(outputs)}.")
    return out


def _check_distribution(agent: AgentSignature) -> None:
    """Raise :class:`BundleError` unless actions of this kind can be drawn from the distribution."""
    if agent.distribution and (agent.distribution == CATEGORICAL) != (agent.kind == DISCRETE):
        raise BundleError(f"{agent.kind} actions are not drawn from '{agent.distribution}'.")
    bounds = (agent.action.low, agent.action.high)
    if agent.distribution == TANH_NORMAL and not all(
        bound is not None and np.isfinite(bound).all() for bound in bounds
    ):
        raise BundleError("actions that are squashed into their bounds need finite bounds.")


def _distribution_outputs(agent: AgentSignature) -> tuple[str, ...]:
    """What an action is drawn from."""
    if agent.mode != SAMPLED:
        return ()
    return ("scores",) if agent.distribution == CATEGORICAL else ("loc", "scale")


def _sizes(name: str, shape: Any) -> tuple[int, ...]:
    fits = isinstance(shape, list) and all(type(n) is int and 1 <= n <= MAX_SIZE for n in shape)
    if not fits or math.prod(shape) > MAX_SIZE:
        raise BundleError(f"'{name}' has the shape {shape!r}; sizes must be at least 1.")
    return tuple(shape)


def _bounds(name: str, value: Any, shape: tuple[int, ...], missing: float) -> Array | None:
    """Bounds as an array: of one number, or of nested lists in which null stands for none."""
    if value is None:
        return None
    try:
        found = np.array(value, dtype=np.float64)  # null becomes NaN
        out = np.broadcast_to(np.where(np.isnan(found), missing, found), shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise BundleError(f"the bounds of '{name}' do not fit its shape {list(shape)}.") from error
    return np.asarray(out)


def _plain(bounds: Array | None) -> Any:
    """Bounds as JSON can hold them: one number if all are the same, null for infinity."""
    if bounds is None or not np.isfinite(bounds).any():
        return None
    if bounds.size and np.isfinite(bounds).all() and (bounds == bounds.flat[0]).all():
        return float(bounds.flat[0])
    return _nulls(np.asarray(bounds, dtype=np.float64).tolist())


def _nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_nulls(item) for item in value]
    return value if np.isfinite(value) else None
