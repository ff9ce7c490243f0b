"""What constructors of losses ask of the modules and options that they are given."""

from typing import Any

from tensordict.nn import TensorDictModuleBase
from torch import nn

from marl_td.losses.functional.checks import check_not_negative
from marl_td.losses.value_norm import ValueNorm


def check_modules(**modules: Any) -> None:
    """Raise unless every named argument is a module that reads and writes entries of a TensorDict.

    Raises:
        TypeError: naming the first that is not.
    """
    for name, module in modules.items():
        if not isinstance(uncompiled(module), TensorDictModuleBase):
            raise TypeError(
                f"`{name}` must be a TensorDictModule; got {kind_of(module)}. Wrap a network as "
                "TensorDictModule(network, in_keys=[...], out_keys=[...])."
            )


def uncompiled(module: Any) -> Any:
    """What ``torch.compile`` wrapped; else the argument itself."""
    return getattr(module, "_orig_mod", module)


def check_target(name: str, live: nn.Module, target: nn.Module | None) -> None:
    """Raise if ``target`` shares parameters with ``live``: it would follow it at once, in silence.

    Raises:
        ValueError: naming the argument.
    """
    shared = set() if target is None else set(live.parameters()) & set(target.parameters())
    if shared:
        raise ValueError(
            f"`{name}` must be target networks, copies; got the live network. Take `target_copy(network)`."
        )


def check_critics(critics: Any) -> None:
    """Raise unless ``critics`` are some modules that :func:`check_modules` takes.

    Raises:
        TypeError: if they are something else, or a single one.
        ValueError: if there is none.
    """
    if not isinstance(critics, (list, tuple, nn.ModuleList)):
        raise TypeError(f"`critics` must be a list of critics; got {kind_of(critics)}.")
    if not len(critics):
        raise ValueError("`critics` must hold at least one critic.")
    check_modules(**{f"critics[{index}]": critic for index, critic in enumerate(critics)})


def checked_value_norm(value_norm: Any) -> ValueNorm | None:
    """A normaliser of values, or None.

    Raises:
        TypeError: for anything else, such as the name that a setting of an algorithm has.
    """
    if value_norm is not None and not isinstance(value_norm, ValueNorm):
        raise TypeError(
            f"`value_norm` must be a ValueNorm, PopArt(critic) or None; got {value_norm!r}."
        )
    return value_norm


def none_if_off(name: str, value: float | None) -> float | None:
    """A limit that 0 and None both turn off, as None where it is off.

    Settings of algorithms say 0 (a command line has no None), functions None.

    Raises:
        TypeError: if it is no number.
        ValueError: if it is negative or not finite.
    """
    if value is None:
        return None
    check_not_negative(**{name: value})
    return value or None


def checked_keys(name: str, keys: Any) -> list[Any]:
    """A sequence of keys as a list.

    Raises:
        TypeError: for a single name, whose letters would be taken for keys.
    """
    if isinstance(keys, str):
        raise TypeError(f"`{name}` must be a sequence of keys; got {keys!r}. Write [{keys!r}].")
    return list(keys)


def kind_of(value: Any) -> str:
    """The class of an argument, for a message; of a class that was not instantiated its name."""
    return value.__name__ + " (a class)" if isinstance(value, type) else type(value).__name__
