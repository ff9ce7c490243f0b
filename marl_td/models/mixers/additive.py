"""The sum of the agents' values."""

from __future__ import annotations

from tensordict.utils import NestedKey
from torch import Tensor

from marl_td.losses.functional.mixing import mix_sum
from marl_td.models.mixers.base import Mixer


class SumMixer(Mixer):
    """VDN's sum of the agents' values (Sunehag et al. 2017, https://arxiv.org/abs/1706.05296).

    Args:
        n_agents: agents in the team, at least 1.
        local_key: value of each agent's action, ``[*B, n_agents, 1]``.
        out_key: where the team's value goes, ``[*B, 1]``.

    Raises:
        ValueError: if ``n_agents`` is below 1.
    """

    def __init__(
        self,
        n_agents: int,
        *,
        local_key: NestedKey = ("agents", "chosen_action_value"),
        out_key: NestedKey = "global_value",
    ) -> None:
        super().__init__(n_agents, value_keys=[local_key], input_keys=[], out_key=out_key)

    def mix(self, local_value: Tensor, *inputs: Tensor) -> Tensor:
        """Sum over the agents, ``[*B]``."""
        return mix_sum(local_value)
