"""What every mixer is: a module from the agents' values to the value of the team."""

from __future__ import annotations

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from marl_td.losses.functional.checks import check_shape

STATE_NORMS = ("none", "layer")


class Mixer(TensorDictModuleBase):
    """Base of the mixers: what they read and write. A subclass implements :meth:`mix`.

    Args:
        n_agents: agents in the team, at least 1.
        value_keys: values of the agents, ``[*B, n_agents, 1]`` each; the first is that of their actions.
        input_keys: what else :meth:`mix` takes, in order.
        alive_key: who is alive, which :meth:`mix` takes last; None for mixers that do not ask. Data where
            nobody dies may lack it.
        out_key: where the team's value goes, ``[*B, 1]``.

    Raises:
        ValueError: if ``n_agents`` is below 1.
    """

    def __init__(
        self,
        n_agents: int,
        *,
        value_keys: list[NestedKey],
        input_keys: list[NestedKey],
        alive_key: NestedKey | None = None,
        out_key: NestedKey = "global_value",
    ) -> None:
        super().__init__()
        if n_agents < 1:
            raise ValueError(f"a mixer needs at least 1 agent; got n_agents={n_agents}.")
        self.n_agents = n_agents
        self.n_values = len(value_keys)
        self.n_required = len(value_keys) + len(input_keys)
        optional = [] if alive_key is None else [alive_key]
        keys = (*value_keys, *input_keys, *optional, out_key)
        *self.in_keys, written = [tuple(key) if isinstance(key, list) else key for key in keys]
        self.out_keys = [written]

    def mix(self, local_value: Tensor, *inputs: Tensor) -> Tensor:
        """Team value ``[*B]`` from ``[*B, n_agents]`` and what else the mixer reads."""
        raise NotImplementedError

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the team's value into ``tensordict``."""
        entries = [tensordict.get(key, None) for key in self.in_keys]
        for key, entry in zip(self.in_keys[: self.n_required], entries, strict=False):
            if entry is None:
                raise KeyError(f"{type(self).__name__} reads {key!r}, which the data lacks.")
        values, inputs = entries[: self.n_values], entries[self.n_values :]
        for value in values:
            check_shape("local_value", value, (self.n_agents, 1), "[*B, n_agents, 1]")
        team = self.mix(*[value.squeeze(-1) for value in values], *inputs)
        return tensordict.set(self.out_keys[0], team.unsqueeze(-1))


class StateInput(nn.Module):
    """Checks the width of the global state and standardises it, if asked to.

    Hypernetworks multiply the state: a raw state in the thousands makes weights and values in the
    thousands. Scale the state in the environment, or set ``norm="layer"``, which standardises each
    state over its entries (and so loses their common offset and scale).

    Args:
        d_state: width of the state, at least 1 (2 with ``norm="layer"``).
        norm: ``"none"`` or ``"layer"``.

    Raises:
        ValueError: if ``d_state`` is too small or ``norm`` is unknown; on a call, if the state does not
            end in ``d_state``.
    """

    def __init__(self, d_state: int, norm: str = "none") -> None:
        super().__init__()
        check_sizes(d_state=d_state)
        if norm not in STATE_NORMS:
            known = ", ".join(STATE_NORMS)
            raise ValueError(f"state_norm must be one of {known}; got '{norm}'.")
        if norm == "layer" and d_state < 2:
            raise ValueError(
                "state_norm='layer' turns a state of width 1 into 0; use state_norm='none' and scale "
                "the state in the environment."
            )
        self.d_state = d_state
        self.normalise: nn.Module = nn.Identity()
        if norm == "layer":
            self.normalise = nn.LayerNorm(d_state, elementwise_affine=False)

    def forward(self, state: Tensor) -> Tensor:
        """The state as the networks take it, ``[*B, d_state]``."""
        check_shape("state", state, (self.d_state,), "[*B, d_state]")
        return self.normalise(state)


def two_layers(d_in: int, d_hidden: int | None, d_out: int) -> nn.Module:
    """A linear layer, or two with a ReLU between."""
    if d_hidden is None:
        return nn.Linear(d_in, d_out)
    return nn.Sequential(nn.Linear(d_in, d_hidden), nn.ReLU(), nn.Linear(d_hidden, d_out))


def check_sizes(**sizes: int) -> None:
    """Raise ``ValueError`` naming a size that is below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1; got {size}.")
