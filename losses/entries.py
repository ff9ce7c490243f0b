"""Entries of a batch as losses read them: present, of the right type, without trailing ones, masked."""

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor

from marl_td.losses.functional.checks import check_bool

SIGNALS_HINT = "`marl_td.signals.team_signals` writes the team's, `agent_signals` each agent's. "
"""What to do about a reward or an end that is not where a loss looks."""


class MissingEntry(KeyError):
    """A key that is not there. Of a plain ``KeyError`` the message is shown with its quotes escaped."""

    def __str__(self) -> str:
        return str(self.args[0])


def require(tensordict: TensorDictBase, key: NestedKey) -> Tensor:
    """The entry at ``key``, as it is.

    Raises:
        KeyError: naming the missing key and how to point the loss elsewhere.
    """
    value = tensordict.get(key, None)
    if value is None:
        name = key if isinstance(key, str) else key[-1]
        signal = "" if name not in ("reward", "done", "terminated") else SIGNALS_HINT
        raise MissingEntry(
            f"the batch has no entry {key!r}; it holds {sorted(map(str, tensordict.keys(True, True)))}. "
            f"{signal}Point the loss at the right entry with `set_keys`."
        )
    return value


def read(tensordict: TensorDictBase, key: NestedKey) -> Tensor:
    """The entry at ``key`` without its trailing 1: ``[*B, n_agents, 1]`` becomes ``[*B, n_agents]``.

    Raises:
        KeyError: as :func:`require`.
    """
    return require(tensordict, key).squeeze(-1)


def flag(tensordict: TensorDictBase, key: NestedKey) -> Tensor | None:
    """The mask at ``key``, as it is; None if there is none.

    Raises:
        TypeError: if it is not bool.
    """
    value = tensordict.get(key, None)
    if value is not None and value.dtype != torch.bool:
        # The entry may be that of a batch's "next", of which this knows nothing.
        inside = not isinstance(key, str) and key[0] != "next"
        also = "` and the one under `next" if inside else ""
        check_bool(f"{key}{also}", value)
    return value


def living(tensordict: TensorDictBase, key: NestedKey) -> Tensor | None:
    """Who lives, bool ``[*B, n_agents]``, at ``key`` of a batch ``[*B]``; None if nobody dies.

    Raises:
        TypeError: if it is not bool.
        ValueError: if it has a trailing 1.
    """
    alive = flag(tensordict, key)
    if alive is not None and alive.ndim == tensordict.ndim + 2 and alive.shape[-1] == 1:
        raise ValueError(
            f"`{key}` must be [*B, n_agents]; got {tuple(alive.shape)}. Squeeze its trailing 1."
        )
    return alive


def read_flag(tensordict: TensorDictBase, key: NestedKey) -> Tensor:
    """An end at ``key`` without its trailing 1, bool.

    Raises:
        KeyError: as :func:`require`.
        TypeError: if it is not bool.
    """
    value = read(tensordict, key)
    check_bool(key, value)
    return value


def masked_mean(value: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of ``value`` ``[*B]`` over the entries where ``mask`` ``[*B]`` is true (all if None).

    An all-false mask gives 0, with zero gradient.
    """
    if mask is None:
        return value.mean()
    weight = mask.to(value.dtype)
    total = torch.where(mask, value, torch.zeros_like(value)).sum()
    return total / weight.sum().clamp(min=1.0)


def next_key(key: NestedKey) -> NestedKey:
    """``key`` under ``"next"``."""
    return ("next", key) if isinstance(key, str) else ("next", *key)


def run(module: TensorDictModuleBase, tensordict: TensorDictBase, key: NestedKey) -> Tensor:
    """Output ``key`` of ``module`` on ``tensordict``, which is left unchanged.

    Raises:
        KeyError: if the module does not write it.
    """
    check_written(module, key)
    return module(tensordict.copy()).get(key)


def check_written(module: TensorDictModuleBase, *keys: NestedKey) -> None:
    """Raise unless ``module`` writes ``keys``: else what the batch has there would be taken for its output.

    Raises:
        KeyError: naming what it writes.
    """
    for key in keys:
        if key not in module.out_keys:
            raise MissingEntry(
                f"a network must write {key!r}; {type(module).__name__} writes {list(module.out_keys)}. "
                "Name it so in the network's `out_keys`, or tell the loss with `set_keys`."
            )


def next_of(tensordict: TensorDictBase) -> TensorDictBase:
    """What the steps of a batch reached.

    Raises:
        KeyError: if the batch does not say.
    """
    following = tensordict.get("next", None)
    if following is None:
        raise MissingEntry(
            "the batch has no entry 'next' with what each step reached, as TorchRL's collectors write it; it "
            f"holds {sorted(map(str, tensordict.keys()))}."
        )
    return following
