"""Mixers: from the agents' values to the value of the team.

Each works alone. With a TensorDict it reads the value of every agent's action ``[*B, n_agents, 1]``
(and what else it needs, such as the global state ``[*B, d_state]``) and writes the team's ``[*B, 1]``;
with plain tensors ``mixer.mix(local_value [*B, n_agents], *inputs)`` returns ``[*B]``.
"""

from marl_td.models.mixers.additive import SumMixer
from marl_td.models.mixers.attention import QattenMixer
from marl_td.models.mixers.base import STATE_NORMS, Mixer, StateInput
from marl_td.models.mixers.central import CentralMixer
from marl_td.models.mixers.duplex import QplexMixer
from marl_td.models.mixers.monotonic import QMixer
from marl_td.models.mixers.shapley import ShapleyMixer

__all__ = [
    "STATE_NORMS",
    "CentralMixer",
    "Mixer",
    "QMixer",
    "QattenMixer",
    "QplexMixer",
    "ShapleyMixer",
    "StateInput",
    "SumMixer",
]
