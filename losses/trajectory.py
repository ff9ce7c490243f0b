"""Values of consecutive steps and of the states they reach, for networks with and without memory."""

from collections.abc import Sequence
from typing import cast

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor

from marl_td.losses.entries import check_written, flag, living, next_key, next_of, require, run


def trajectory_values(
    critic: TensorDictModuleBase,
    batch: TensorDictBase,
    *,
    value: NestedKey,
    done: NestedKey,
    states: Sequence[NestedKey] = (),
) -> tuple[Tensor, Tensor]:
    """Values of the steps ``[n_envs, T]`` of a batch, and of the states they reach (before any reset).

    Three kinds of critic are told apart:

    * without memory: the reached observations are valued as they are;
    * with a hidden state of known keys (``states``): they are valued by one step of the critic from the
      state it had after ``o_t``, which is exact. The states before each step are put into the batch, those
      after it under ``"next"``; of a state already there the first entry of a row is where the row starts.
    * with a memory it does not hand on (it reads ``"is_init"``, as BenchMARL's recurrent models): inside a
      trajectory the next step's value is taken; where it is cut the reached observations are valued as a
      sequence of their own, which is approximate.

    Args:
        critic: writes the ``value`` key.
        batch: consecutive steps ``[T]`` or ``[n_envs, T]``, with the reached observations under ``"next"``.
        value: key of the critic's output, ``[*B, ..., 1]``.
        done: key under ``"next"`` of the ends of trajectories, shaped like the value or its first dimensions.
        states: keys of the critic's hidden state, which it reads before a step and writes under ``"next"``.

    Returns:
        ``(value, next_value)``, each shaped as the critic's output; the second carries no gradient.

    Raises:
        KeyError: naming an entry that is missing.
    """
    check_written(critic, value)
    out = critic(batch.copy())
    raw = require(out, value)
    with torch.no_grad():
        return raw, _reached_values(critic, batch, out, value=value, done=done, states=states)


def _reached_values(
    critic: TensorDictModuleBase,
    batch: TensorDictBase,
    out: TensorDictBase,
    *,
    value: NestedKey,
    done: NestedKey,
    states: Sequence[NestedKey],
) -> Tensor:
    """Values of the states that the steps of ``batch`` reach; ``out`` is what the critic made of it."""
    raw = out.get(value)
    following = next_of(batch).copy()
    if states:
        for state in states:
            _hand_on(batch, following, state, require(out, next_key(state)).detach())
        following.set("is_init", raw.new_zeros((*batch.shape, 1), dtype=torch.bool))
        # As many rows of one step each as there are steps.
        return run(critic, following.reshape(-1), value).reshape(raw.shape)
    if "is_init" not in critic.in_keys:
        return run(critic, following, value)
    following.set("is_init", require(batch, "is_init"))
    reached = run(critic, following, value)
    time = batch.batch_dims - 1
    last = raw.shape[time] - 1
    shifted = torch.cat([raw.narrow(time, 1, last), reached.narrow(time, last, 1)], dim=time)
    ends = require(batch, next_key(done))
    return torch.where(ends.reshape(*ends.shape, *[1] * (raw.ndim - ends.ndim)), reached, shifted)


def _hand_on(
    batch: TensorDictBase, following: TensorDictBase, state: NestedKey, after: Tensor
) -> None:
    """Put the state before each step into the batch, and the one after it into what follows."""
    time = batch.batch_dims - 1
    start = batch.get(state, torch.zeros_like(after)).narrow(time, 0, 1)
    earlier = after.narrow(time, 0, after.shape[time] - 1)
    batch.set(state, torch.cat([start, earlier], dim=time))
    batch.set(next_key(state), after)
    following.set(state, after)


def window_entries(
    module: TensorDictModuleBase,
    window: TensorDictBase,
    keys: Sequence[NestedKey],
    *,
    burn_in: int = 0,
    states: Sequence[NestedKey] = (),
    stored: bool = True,
    is_init: NestedKey = "is_init",
) -> TensorDictBase:
    """Outputs of a module at the steps of a window of an episode, and at the observation it ends with.

    Within one episode the observation reached by step t is the one that step t + 1 starts from: the module
    runs once over T + 1 observations. A hidden state starts from the one in the data, and then runs over the
    ``burn_in`` steps, from which no gradient comes (Kapturowski et al. 2019,
    https://openreview.net/forum?id=r1lyTjAqYX). What follows an episode's end changes no output before it.

    Args:
        module: writes ``keys``.
        window: ``[*B, burn_in + T]``, with the reached observations under ``"next"``.
        keys: of the outputs.
        burn_in: steps before the window that only warm up the hidden states.
        states: keys of the module's hidden states, which it reads before a step and writes under ``"next"``.
        stored: whether the states in ``window`` are this module's; else it starts from zero.
        is_init: key of the flag that clears the hidden states before a step; of the observations behind the
            first one it is not read.

    Returns:
        the outputs, a TensorDict ``[*B, T + 1]``.

    Raises:
        KeyError: if a hidden state is missing.
        ValueError: if there is no step after ``burn_in``, or the batch has one dimension only.
    """
    _check_rows(window)
    if window.shape[-1] <= burn_in:
        raise ValueError(
            f"sequences of {window.shape[-1]} steps leave none to learn from after `burn_in` = "
            f"{burn_in}; give batches [*B, burn_in + T]."
        )
    own = [key for key in module.in_keys if key not in (is_init, *states)]
    steps = window[..., burn_in:]
    inputs = steps.select(*own, strict=False)[..., :1]
    following = next_of(steps).select(*own, strict=False)
    first = steps.get(is_init, None)
    if first is not None:
        inputs.set(is_init, first.narrow(window.ndim - 1, 0, 1))
        following.set(is_init, torch.zeros_like(first))
    inputs = cast(TensorDictBase, torch.cat([inputs, following], dim=window.ndim - 1))
    for state, value in _states_before(module, window, burn_in, states, stored).items():
        sizes = (*inputs.shape, *value.shape[window.ndim :])
        inputs.set(state, value.expand(sizes))
    return module(inputs).select(*keys)


@torch.no_grad()
def _states_before(
    module: TensorDictModuleBase,
    window: TensorDictBase,
    burn_in: int,
    states: Sequence[NestedKey],
    stored: bool,
) -> dict[NestedKey, Tensor]:
    """The hidden states before the first step after burn-in, ``[*B, 1, ...]``; nothing for zero."""
    time = window.ndim - 1
    if not states or not (stored or burn_in):
        return {}
    if burn_in == 0:
        return {key: require(window, key).narrow(time, 0, 1) for key in states}
    earlier = window[..., :burn_in]
    for key in states if stored else ():
        require(earlier, key)
    names = [key for key in module.in_keys if stored or key not in states]
    after = module(earlier.select(*names, strict=False))
    return {key: after.get(next_key(key)).narrow(time, burn_in - 1, 1) for key in states}


def real_steps(step_mask: Tensor, like: Tensor) -> Tensor:
    """A padding mask ``[*B, 1]`` in the shape of ``like``, ``[*B]`` or ``[*B, n_agents]``.

    Raises:
        ValueError: if it has other sizes.
    """
    steps = step_mask.squeeze(-1)
    if steps.shape != like.shape[: steps.ndim]:
        raise ValueError(
            f"`step_mask` must be [*B, 1], one for all agents; got {tuple(step_mask.shape)} beside "
            f"{tuple(like.shape)}."
        )
    return steps.reshape(*steps.shape, *[1] * (like.ndim - steps.ndim)).expand_as(like)


def counted(alive: Tensor | None, step_mask: Tensor | None, like: Tensor) -> Tensor | None:
    """Entries, shaped ``like``, that are real steps of living agents; None if all are.

    Args:
        alive: bool like ``like``; None if nobody dies.
        step_mask: bool ``[*B, 1]``; None if there is no padding.
        like: ``[*B]`` or ``[*B, n_agents]``.
    """
    if step_mask is None:
        return alive
    steps = real_steps(step_mask, like)
    return steps if alive is None else alive & steps


def end_of_life(batch: TensorDictBase, mask: NestedKey, truncated: NestedKey) -> Tensor | None:
    """True where an agent died in the step or before, ``[*B, n_agents]``; None for data without a mask.

    Who was only cut off has not died: its return goes on, with the value of what it reached. Some
    environments (TorchRL's of PettingZoo) clear its mask as that of the dead.

    Args:
        batch: with who lives before each step, and under ``"next"`` after it.
        mask: key of who lives.
        truncated: key under ``"next"`` of which agents were cut off, ``[*B, n_agents, 1]``; where there is
            none, all whose mask is cleared have died.

    Raises:
        KeyError: if only who lives before each step is known.
    """
    if living(batch, mask) is None:
        return None
    require(batch, next_key(mask))
    died = ~cast(Tensor, living(batch, next_key(mask)))
    cut = flag(batch, next_key(truncated))
    return died if cut is None else died & ~cut.squeeze(-1)


def cut_off(batch: TensorDictBase, mask: NestedKey, truncated: NestedKey) -> Tensor | None:
    """True where an agent that lived was cut off in the step, ``[*B, n_agents]``; None where no data says so.

    What follows in the data is not its return, even if other agents go on.

    Args:
        batch: with who lives before each step.
        mask: key of who lives.
        truncated: key under ``"next"`` of which agents were cut off, ``[*B, n_agents, 1]``.
    """
    alive, cut = living(batch, mask), flag(batch, next_key(truncated))
    return None if alive is None or cut is None else alive & cut.squeeze(-1)


def before_padding(step_mask: Tensor | None, like: Tensor, time_dim: int) -> Tensor:
    """True on the last real step before padding, shaped ``like``; nowhere without a ``step_mask``."""
    if step_mask is None:
        return torch.zeros_like(like, dtype=torch.bool)
    steps = real_steps(step_mask, like)
    n_later = steps.shape[time_dim] - 1
    later, last = steps.narrow(time_dim, 1, n_later), steps.narrow(time_dim, n_later, 1)
    return steps & ~torch.cat([later, last], dim=time_dim)


def _check_rows(batch: TensorDictBase) -> None:
    """Raise for ``[n]``: flattened rows look like one long one."""
    if batch.ndim == 1:
        raise ValueError(
            f"sequences must be batches [*B, T], a row for each; got {list(batch.shape)}. Do not "
            "flatten them; one row is `batch.unsqueeze(0)`."
        )


def row_of_next_steps(batch: TensorDictBase) -> TensorDictBase:
    """The reached entries of sequences ``[*B, T]`` behind the first step's own, ``[*B, T + 1]``.

    A recurrent network must have seen o_0 before o_1. The row is ``[o_0, o_0', o_1', ..]`` with the
    hidden state reset wherever an episode began inside it; such an episode misses its own first step.

    Raises:
        ValueError: if the batch has one dimension only.
    """
    _check_rows(batch)
    time_dim = batch.batch_dims - 1
    following = next_of(batch)
    shared = set(batch.keys(True, True)) & set(following.keys(True, True))
    first = batch.narrow(time_dim, 0, 1).select(*shared)
    out: TensorDictBase = TensorDict.cat([first, following.select(*shared)], dim=time_dim)
    is_init = batch.get("is_init", None)
    if is_init is not None:
        n_steps = is_init.shape[time_dim]
        head = is_init.narrow(time_dim, 0, 1)
        tail = is_init.narrow(time_dim, 1, n_steps - 1)
        out.set("is_init", torch.cat([head, torch.zeros_like(head), tail], dim=time_dim))
    return out
