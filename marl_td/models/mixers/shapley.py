"""SHAQ's mixer: agents' values with shares from orders of joining."""

from __future__ import annotations

import math

import torch
from tensordict.utils import NestedKey
from torch import Tensor

from marl_td.losses.functional.mixing import mix_sum, monotonic_rows
from marl_td.losses.functional.shapley import all_orders, predecessor_mean, scaled_values
from marl_td.models.mixers.base import Mixer, check_sizes
from marl_td.models.mixers.monotonic import QMixer


class ShapleyMixer(Mixer):
    """Sums the agents' values, those of actions that are not greedy scaled by weights alpha >= 1.

        Q_tot   = sum_i delta_i Q_i,   delta_i = 1 if u_i is agent i's best action, else alpha_i
        alpha_i = 1 + mean over orders of joining of |F_s(mean value of those before i, Q_i)|

    Wang et al. 2022, https://arxiv.org/abs/2105.15013. F_s is QMIX's monotone network of two inputs. Orders
    are drawn at random for every entry of the batch; where there are no more than ``n_orders`` of them, all
    are taken. Cost grows linearly with the agents.

    It is meant for learning: targets and acting use the plain sum, which it equals where all act greedily.

    Args:
        n_agents: agents in the team, at least 1.
        d_state: width of the global state, at least 1 (2 with ``state_norm="layer"``).
        n_orders: orders of joining, at least 1: M.
        d_embed: units of F_s, at least 1.
        d_hypernet: width of the hidden layers of its hypernetworks, at least 1.
        alpha: a number instead of the network's alpha, at least 1; 1 makes it VDN. None for the network.
        state_norm: ``"none"`` or ``"layer"``, see :class:`marl_td.models.mixers.StateInput`.
        local_key: value of each agent's action, ``[*B, n_agents, 1]``.
        best_key: largest value of each agent's available actions, ``[*B, n_agents, 1]``.
        state_key: the global state, ``[*B, d_state]``.
        alive_key: who is alive, ``[*B, n_agents]`` bool; None where nobody dies.
        out_key: where the team's value goes, ``[*B, 1]``.

    Raises:
        ValueError: if a size or ``alpha`` is below its minimum or ``state_norm`` is unknown.
    """

    orders: Tensor | None

    def __init__(
        self,
        n_agents: int,
        d_state: int,
        *,
        n_orders: int = 10,
        d_embed: int = 32,
        d_hypernet: int = 64,
        alpha: float | None = None,
        state_norm: str = "none",
        local_key: NestedKey = ("agents", "chosen_action_value"),
        best_key: NestedKey = ("agents", "greedy_action_value"),
        state_key: NestedKey = "state",
        alive_key: NestedKey | None = None,
        out_key: NestedKey = "global_value",
    ) -> None:
        keys = {"value_keys": [local_key, best_key], "input_keys": [state_key]}
        super().__init__(n_agents, alive_key=alive_key, out_key=out_key, **keys)
        check_sizes(n_orders=n_orders)
        if alpha is not None and alpha < 1.0:
            raise ValueError(f"alpha must be at least 1; got {alpha}.")
        self.n_orders = n_orders
        self.alpha = alpha
        sizes = {"d_embed": d_embed, "d_hypernet": d_hypernet}
        self.contribution = QMixer(2, d_state, state_norm=state_norm, **sizes)
        few = n_agents < 13 and math.factorial(n_agents) <= n_orders
        self.register_buffer("orders", all_orders(n_agents) if few else None, persistent=False)

    def mix(self, local_value: Tensor, *inputs: Tensor) -> Tensor:
        """Team value ``[*B]`` from the values of the actions and the best ones, the state and the living."""
        best_value, state, *alive = inputs
        if self.alpha is None:
            weight = self.coalition_weight(local_value, state, *alive)
        else:
            weight = torch.full_like(local_value, self.alpha)
        return mix_sum(scaled_values(local_value, best_value, weight))

    def coalition_weight(
        self, local_value: Tensor, state: Tensor, alive: Tensor | None = None
    ) -> Tensor:
        """Weights alpha ``[*B, n_agents]``."""
        order = self._orders(local_value)
        before = predecessor_mean(local_value, order, alive)
        own = local_value.unsqueeze(-2).expand(before.shape)
        rows = torch.stack([before, own], dim=-1).flatten(-3, -2)  # [*B, n_orders * n_agents, 2]
        network = self.contribution
        gain = monotonic_rows(rows, *network.weights(network.scaled(state)))
        return 1.0 + gain.unflatten(-1, before.shape[-2:]).abs().mean(-2)

    def _orders(self, local_value: Tensor) -> Tensor:
        """Orders of joining ``[*B, n_orders, n_agents]``."""
        if self.orders is not None:
            return self.orders.expand(*local_value.shape[:-1], *self.orders.shape)
        *batch, n_agents = local_value.shape
        score = torch.rand((*batch, self.n_orders, n_agents), device=local_value.device)
        return score.argsort(-1)
