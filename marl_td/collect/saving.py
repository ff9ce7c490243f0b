"""Where collection is: environments and collectors as tensors and plain values, and back.

Our batched tasks and VMAS say where they are to the last bit. An environment that cannot starts fresh
episodes when a run goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDictBase
from torchrl.envs import EnvBase, TransformedEnv
from torchrl.envs.libs.vmas import VmasWrapper

from marl_td.collect.collector import CompiledCollector
from marl_td.collect.nested import entries_of, from_snapshot, snapshot_of
from marl_td.collect.rng import isolated_rng
from marl_td.tasks.adapters.vmas_state import vmas_restore, vmas_snapshot

CHECKED_STEPS = 12
"""Steps before and after a trial restore."""


# ------------------------------------------------------------------------------------------ environments
def env_snapshot(env: EnvBase) -> dict[str, Any] | None:
    """Where the environment under all transforms is; None if it cannot say."""
    base = _base(env)
    if hasattr(type(base), "snapshot"):
        state: dict[str, Any] | None = base.snapshot()
        return state
    return vmas_snapshot(base._env) if isinstance(base, VmasWrapper) else None


def env_restore(env: EnvBase, state: dict[str, Any]) -> None:
    """Let the environment go on from what :func:`env_snapshot` gave."""
    base = _base(env)
    if hasattr(type(base), "restore"):
        base.restore(state)
    else:
        vmas_restore(base._env, state)


def restart_reason(
    make_env: Callable[[], EnvBase], env: EnvBase, save: Callable[[Any], Any] = lambda state: None
) -> str | None:
    """Why an environment starts fresh episodes when a run goes on; None if it goes on exactly.

    Two more are built. One makes some random steps; the other takes over its state; both must then go on
    alike. All random streams are put back.

    Args:
        make_env: builds environments like ``env``.
        env: the environment; left as it is.
        save: raises ``TypeError`` for what a checkpoint cannot hold.
    """
    try:
        state = env_snapshot(env)
        if state is None:
            return f"{_name(env)} offers no way to save its state"
        save(state)
        with isolated_rng(), contextlib.ExitStack() as opened:
            envs = [make_env(), make_env()]
            for each in envs:
                opened.callback(each.close)
            return _compare(*envs)
    except TypeError as error:
        return f"of {_name(env)}, {error}"
    except Exception as error:  # a trial must not end a run
        return f"{_name(env)} could not be tried ({type(error).__name__}: {error})"


def _compare(first: EnvBase, second: EnvBase) -> str | None:
    now = first.reset()
    for _ in range(CHECKED_STEPS):
        now = _advance(first, now)[1]
    state = env_snapshot(first)
    second.reset()
    try:
        env_restore(second, state or {})
    except Exception as error:
        return f"the state of {_name(first)} cannot be restored ({error})"
    rows = []
    for env in (first, second):
        with isolated_rng(seed=0):
            rows.append(_steps(env, now.clone()))
    for one, other in zip(*rows, strict=True):
        if not _equal(one, other):
            return f"{_name(first)} does not go on alike after its state is restored"
    return None


def _steps(env: EnvBase, now: TensorDictBase) -> list[TensorDictBase]:
    rows = []
    for _ in range(CHECKED_STEPS):
        row, now = _advance(env, now)
        rows.append(row.clone())
    return rows


def _advance(env: EnvBase, now: TensorDictBase) -> tuple[TensorDictBase, TensorDictBase]:
    row, following = env.step_and_maybe_reset(env.rand_action(now))
    return row, following


def _equal(one: TensorDictBase, other: TensorDictBase) -> bool:
    ours, theirs = entries_of(one), entries_of(other)
    return ours.keys() == theirs.keys() and all(
        torch.equal(value.nan_to_num(), theirs[key].nan_to_num()) for key, value in ours.items()
    )


def _base(env: EnvBase) -> Any:
    while isinstance(env, TransformedEnv):
        env = env.base_env
    return env


def _name(env: EnvBase) -> str:
    base = _base(env)
    inner = getattr(getattr(base, "copies", [None])[0], "env", None)
    return f"the environment {type(base if inner is None else inner).__name__}"


# -------------------------------------------------------------------------------------------- collectors
def collector_snapshot(collector: Any) -> dict[str, Any]:
    """Counters, and where the collector is in its episodes."""
    if isinstance(collector, CompiledCollector):
        return {"kind": "compiled", **collector.snapshot()}
    return {
        "kind": "stepwise",
        "frames": collector._frames,
        "iter": collector._iter,
        "next_trajectory": int(collector._traj_pool._traj_id),
        "carrier": snapshot_of(collector._carrier),
        "env": env_snapshot(collector.env),
    }


def collector_restore(collector: Any, state: dict[str, Any], restart_seed: int | None) -> None:
    """Go on from what :func:`collector_snapshot` gave.

    Args:
        collector: built alike.
        state: what was saved.
        restart_seed: None goes on in the same episodes; a seed starts fresh ones from it, with all counters
            as saved.
    """
    compiled = isinstance(collector, CompiledCollector)
    if restart_seed is not None:
        collector._frames, collector._iter = state["frames"], state["iter"]
        if compiled:
            collector.set_seed(restart_seed)
            return
        collector._traj_pool._traj_id.fill_(state.get("next_trajectory", 0))
        collector.env.set_seed(restart_seed)
        collector._make_shuttle()
    elif compiled:
        collector.restore(state)
    else:
        collector._frames, collector._iter = state["frames"], state["iter"]
        collector._traj_pool._traj_id.fill_(state["next_trajectory"])
        env_restore(collector.env, state["env"])
        carrier = from_snapshot(state["carrier"], collector._carrier.device)
        collector._carrier = carrier


def kind_of(collector: Any) -> str:
    """``"compiled"`` or ``"stepwise"``: one cannot go on in the other's episodes."""
    return "compiled" if isinstance(collector, CompiledCollector) else "stepwise"
