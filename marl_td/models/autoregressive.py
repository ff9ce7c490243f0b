"""Policies of a group whose agents act one after the other, each seeing what the earlier ones chose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import (
    ProbabilisticTensorDictSequential,
    TensorDictModuleBase,
    TensorDictSequential,
)
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.envs.utils import ExplorationType, exploration_type

from marl_td.losses.functional.action_values import one_hot_action
from marl_td.models.heads import is_bounded
from marl_td.models.transformer import Decoder, Past


class ActionRows(nn.Module):
    """Actions as rows of numbers: one-hot, or continuous with bounds moved to [-1, 1]; zeros for the dead.

    Args:
        n_actions: number of discrete actions; 0 for continuous ones.
        low: lower bounds ``[n_agents, d_action]`` of continuous actions.
        high: upper bounds, likewise; actions without finite bounds are left as they are.
    """

    middle: Tensor
    half_range: Tensor

    def __init__(
        self, n_actions: int, low: Tensor | None = None, high: Tensor | None = None
    ) -> None:
        super().__init__()
        self.n_actions = n_actions
        middle, half = torch.zeros(1, 1), torch.ones(1, 1)
        if low is not None and high is not None and is_bounded(low, high):
            middle, half = (high + low) / 2.0, (high - low) / 2.0
        self.register_buffer("middle", middle.clone(), persistent=False)
        self.register_buffer("half_range", half.clone(), persistent=False)

    def forward(
        self, action: Tensor, alive: Tensor | None = None, agent: int | None = None
    ) -> Tensor:
        """Rows ``[*B, n, d]`` of actions ``[*B, n]`` or ``[*B, n, d]``.

        ``alive`` is ``[*B, n]``; n is 1 where ``agent`` says whose actions are given.
        """
        if self.n_actions:
            rows = one_hot_action(action, self.n_actions)
        else:
            rows = (action - _of(self.middle, agent)) / _of(self.half_range, agent)
        return rows if alive is None else torch.where(alive.unsqueeze(-1), rows, 0.0)


class TeacherForcing(nn.Module):
    """All agents' distribution parameters in one pass, from known actions: how a policy is trained."""

    def __init__(self, decoder: Decoder, rows: ActionRows) -> None:
        super().__init__()
        self.decoder = decoder
        self.rows = rows

    def forward(self, encoding: Tensor, action: Tensor, alive: Tensor | None = None) -> Tensor:
        """Parameters ``[*B, n_agents, d_out]``."""
        return self.decoder(encoding, self.rows(action, alive))


class AutoregressivePolicy(TensorDictModuleBase):
    """How the same policy acts: agent by agent, each given the actions of those before it.

    The loop over the agents is the method; it is written out, so that it compiles. Actions are drawn unless
    the exploration type is deterministic.

    Args:
        trunk: writes representations ``(group, "encoding")`` ``[*B, n_agents, width]``.
        forcing: the decoder, and actions as rows.
        actor: layers and a head that make distributions of what the decoder gives, ``(group, "logits")``; the
            first layer is the decoder itself.
        n_agents: agents in the group.
        group: name of the group; what is read of it besides: ``action_mask`` and ``mask``, where they are.
        masked: whether some actions are not available at times.
        mortal: whether agents can die.
    """

    def __init__(
        self,
        trunk: TensorDictModuleBase,
        forcing: TeacherForcing,
        actor: ProbabilisticTensorDictSequential,
        *,
        n_agents: int,
        group: str,
        masked: bool,
        mortal: bool,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.forcing = forcing
        # Views: the actor owns its parts, and its first one is the decoder.
        *layers, head = actor
        self.__dict__["_layers"] = _without_decoder(layers)
        self.__dict__["_head"] = head
        self.n_agents = n_agents
        self.group = group
        self.mask_key: NestedKey | None = (group, "action_mask") if masked else None
        self.alive_key: NestedKey | None = (group, "mask") if mortal else None
        given = [key for key in (self.mask_key, self.alive_key) if key is not None]
        self.in_keys = list(dict.fromkeys([*trunk.in_keys, *given]))
        self.out_keys = [(group, "action"), (group, "log_prob")]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write actions and their log-probabilities into ``tensordict``."""
        seen = self.trunk(tensordict.copy())
        if seen.get("next", None) is not None:  # hidden states
            tensordict.set("next", seen.get("next"))
        encoding = seen.get((self.group, "encoding"))
        alive = None if self.alive_key is None else seen.get(self.alive_key)
        rows: Tensor | None = None
        past: list[Past | None] = [None] * len(self.forcing.decoder.blocks)
        actions, log_probs = [], []
        for agent in range(self.n_agents):
            one = slice(agent, agent + 1)
            logits, past = self.forcing.decoder.step(encoding[..., one, :], rows, past)
            distribution = self._distribution(seen, logits, agent)
            action = draw_action(distribution)
            actions.append(action)
            log_probs.append(distribution.log_prob(action))
            lives = None if alive is None else alive[..., one]
            rows = self.forcing.rows(action, lives, agent)
        dim = encoding.ndim - 2
        tensordict.set(self.out_keys[0], torch.cat(actions, dim))
        return tensordict.set(self.out_keys[1], torch.cat(log_probs, dim))

    def _distribution(self, seen: TensorDictBase, logits: Tensor, agent: int) -> Any:
        """The distribution ``[*B, 1]`` of one agent's actions."""
        data = TensorDict({}, batch_size=seen.batch_size, device=seen.device)
        data.set((self.group, "logits"), logits)
        if self.mask_key is not None:
            data.set(self.mask_key, seen.get(self.mask_key)[..., agent : agent + 1, :])
        for layer in self._layers:
            data = layer(data)
        head = self._head
        names = [name if isinstance(name, str) else name[-1] for name in head.dist_keys]
        parameters = {name: data.get(key) for name, key in zip(names, head.in_keys, strict=True)}
        options = {name: _of(value, agent) for name, value in head.distribution_kwargs.items()}
        make: Callable[..., Any] = head.distribution_class
        return make(**parameters, **options)


def draw_action(distribution: Any) -> Tensor:
    """A drawn action, or under a deterministic exploration type the distribution's own choice."""
    if exploration_type() in (ExplorationType.RANDOM, None):
        return distribution.sample()
    return distribution.deterministic_sample


def _of(value: Any, agent: int | None) -> Any:
    """What belongs to one agent of numbers ``[n_agents, d]`` that may be the same for all."""
    if agent is None or not isinstance(value, Tensor) or value.ndim < 2 or value.shape[-2] == 1:
        return value
    return value[..., agent : agent + 1, :]


def _without_decoder(layers: list[Any]) -> list[Any]:
    """What follows the decoder in a policy's layers."""
    first, *rest = layers
    inner = list(first) if isinstance(first, TensorDictSequential) else [first]
    return [*inner[1:], *rest]
