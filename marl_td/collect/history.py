"""What each agent saw lately, of itself and of what the others did: a transform of the environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Bounded, TensorSpec, Unbounded, UnboundedDiscrete
from torchrl.envs import Transform

Path = tuple[str, ...]
JOINT = "joint_history"
"""What all agents did lately, ``[*B, H, n_all]`` or ``[*B, H, n_all, d_action]``, the latest last."""
SEEN = "past_seen"
"""Entry of a group: which of it each agent saw, bool ``[*B, n_agents, H, n_all]``."""
OBSERVATION = "past_observation"
"""Entry of a group: each agent's observations in these steps, ``[*B, n_agents, H, d_obs]``."""


@dataclass(frozen=True)
class Remembered:
    """What is remembered of one group.

    Args:
        n_agents: agents in the group.
        observations: the entries of the observation, and how many dimensions each agent's has.
        mortal: whether agents can die; what the dead do is not seen.
        visible: entry of the group that says who sees whom, bool ``[*B, n_agents, n_all]``; None for all see
            all.
    """

    n_agents: int
    observations: dict[Path, int]
    mortal: bool
    visible: str | None = None


class ActionHistory(Transform):
    """Keeps the last H steps of this episode: every agent's observations, and the actions it saw.

    ``n_all`` are the agents of all groups, in the groups' order. Nobody sees its own action here. Steps
    before the episode's start are zeros that nobody saw. Like the last action
    (:class:`marl_td.collect.last_action.LastAction`) it is the environment's: it holds what was really done.

    Args:
        groups: what is remembered of each group.
        length: H, >= 1.
    """

    def __init__(self, groups: dict[str, Remembered], length: int) -> None:
        super().__init__()
        self.groups = groups
        self.length = length
        self.n_all = sum(group.n_agents for group in groups.values())

    @property
    def keys(self) -> list[Path]:
        """Where it is kept."""
        return [(JOINT,), *[(name, entry) for name in self.groups for entry in (SEEN, OBSERVATION)]]

    # ------------------------------------------------------------------- pure
    def advance(self, read: Callable[[Path], Tensor]) -> dict[Path, Tensor]:
        """The history after a step, from the entries that it started from and its actions (``read``)."""
        actions, lives = [], []
        for name, group in self.groups.items():
            action = read((name, "action"))
            actions.append(action)
            n_dims = action.ndim - (2 if action.is_floating_point() else 1)
            alive = torch.ones(action.shape[: n_dims + 1], dtype=torch.bool, device=action.device)
            lives.append(read((name, "mask")) if group.mortal else alive)
        joint, alive = _joined(actions), torch.cat(lives, -1)
        past = read((JOINT,))
        time = alive.ndim - 1
        out: dict[Path, Tensor] = {(JOINT,): _pushed(past, joint, time)}
        first = 0
        for name, group in self.groups.items():
            everybody = torch.arange(self.n_all, device=alive.device)
            own = everybody[first : first + group.n_agents].unsqueeze(-1)
            seen = alive.unsqueeze(-2) & (everybody != own)
            if group.visible is not None:
                seen = seen & read((name, group.visible)).bool()
            first += group.n_agents
            observed = [
                read((name, *key)).flatten(time + 1).float()
                if n_dims
                else read((name, *key)).unsqueeze(-1)
                for key, n_dims in group.observations.items()
            ]
            last = torch.cat(observed, -1)
            out[name, SEEN] = _pushed(read((name, SEEN)), seen, time + 1)
            out[name, OBSERVATION] = _pushed(read((name, OBSERVATION)), last, time + 1)
        return out

    # -------------------------------------------------------------- transform
    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        for key, value in self.advance(tensordict.get).items():
            next_tensordict.set(key, value)
        return next_tensordict

    def _reset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        for key, spec in self._specs(self.parent).items():
            tensordict_reset.set(key, spec.zero())
        return tensordict_reset

    def transform_observation_spec(self, observation_spec: TensorSpec) -> TensorSpec:
        """The environment's specs with those of the history."""
        for key, spec in self._specs(self.parent).items():
            observation_spec[key if len(key) > 1 else key[0]] = spec
        return observation_spec

    def _specs(self, env: object) -> dict[Path, TensorSpec]:
        """Specs of what is kept, batch dimensions included."""
        actions = [env.full_action_spec[name, "action"] for name in self.groups]  # type: ignore[attr-defined]
        batch, device = env.batch_size, actions[0].device  # type: ignore[attr-defined]
        shape = (*batch, self.length, self.n_all)
        if actions[0].dtype.is_floating_point:
            width = max(spec.shape[-1] for spec in actions)
            joint: TensorSpec = Unbounded((*shape, width), device=device)
        else:
            joint = UnboundedDiscrete(shape, device=device)
        out: dict[Path, TensorSpec] = {(JOINT,): joint}
        for name, group in self.groups.items():
            paths = [(name, *key) for key in group.observations]
            specs = [env.observation_spec[path] for path in paths]  # type: ignore[attr-defined]
            width = sum(spec.shape[len(batch) + 1 :].numel() for spec in specs)
            rows = (*batch, group.n_agents, self.length)
            out[name, SEEN] = Bounded(0, 1, (*rows, self.n_all), dtype=torch.bool, device=device)
            out[name, OBSERVATION] = Unbounded((*rows, width), device=device)
        return out


def _pushed(past: Tensor, new: Tensor, dim: int) -> Tensor:
    """``past`` without its first entry along ``dim``, and ``new`` at its end."""
    kept = past.narrow(dim, 1, past.shape[dim] - 1)
    return torch.cat([kept, new.unsqueeze(dim).to(past.dtype)], dim)


def _joined(actions: list[Tensor]) -> Tensor:
    """The actions of all groups, continuous ones filled up with zeros to the same width."""
    if not actions[0].is_floating_point():
        return torch.cat(actions, -1)
    width = max(action.shape[-1] for action in actions)
    pad = torch.nn.functional.pad
    return torch.cat([pad(action, (0, width - action.shape[-1])) for action in actions], -2)
