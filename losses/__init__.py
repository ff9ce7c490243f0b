"""Loss modules for multi-agent reinforcement learning, and their mathematics as pure functions.

``marl_td.losses.functional`` needs torch alone; the loss modules here need tensordict and torchrl, and are
loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marl_td.losses.belief import BeliefPPOLoss
    from marl_td.losses.coma import ComaLoss
    from marl_td.losses.ddpg import MADDPGLoss
    from marl_td.losses.facmac import FACMACLoss, MixedCritic
    from marl_td.losses.group_actor import GroupActor
    from marl_td.losses.happo import HAPPOLoss
    from marl_td.losses.hasac import HASACLoss
    from marl_td.losses.hatrpo import HATRPOLoss
    from marl_td.losses.independent_q import IndependentQLoss
    from marl_td.losses.masac import MASACLoss
    from marl_td.losses.mat import MatLoss
    from marl_td.losses.matd3 import MATD3Loss
    from marl_td.losses.ppo import IPPOLoss, MAPPOLoss
    from marl_td.losses.pqn import PqnLoss
    from marl_td.losses.q_mixing import QMixingLoss
    from marl_td.losses.qtran import QtranLoss
    from marl_td.losses.roma import RomaLoss
    from marl_td.losses.soft_actor import SoftActor
    from marl_td.losses.targets import TargetUpdater, target_copy
    from marl_td.losses.temperature import Temperature
    from marl_td.losses.value_norm import PopArt, ValueNorm
    from marl_td.losses.weighted_q_mixing import WeightedQMixingLoss

_MODULES = {
    "BeliefPPOLoss": "belief",
    "ComaLoss": "coma",
    "FACMACLoss": "facmac",
    "GroupActor": "group_actor",
    "HAPPOLoss": "happo",
    "HASACLoss": "hasac",
    "HATRPOLoss": "hatrpo",
    "IPPOLoss": "ppo",
    "IndependentQLoss": "independent_q",
    "MADDPGLoss": "ddpg",
    "MAPPOLoss": "ppo",
    "MASACLoss": "masac",
    "MATD3Loss": "matd3",
    "MatLoss": "mat",
    "MixedCritic": "facmac",
    "PopArt": "value_norm",
    "PqnLoss": "pqn",
    "QMixingLoss": "q_mixing",
    "QtranLoss": "qtran",
    "RomaLoss": "roma",
    "SoftActor": "soft_actor",
    "TargetUpdater": "targets",
    "Temperature": "temperature",
    "ValueNorm": "value_norm",
    "WeightedQMixingLoss": "weighted_q_mixing",
    "target_copy": "targets",
}

__all__ = [
    "BeliefPPOLoss",
    "ComaLoss",
    "FACMACLoss",
    "GroupActor",
    "HAPPOLoss",
    "HASACLoss",
    "HATRPOLoss",
    "IPPOLoss",
    "IndependentQLoss",
    "MADDPGLoss",
    "MAPPOLoss",
    "MASACLoss",
    "MATD3Loss",
    "MatLoss",
    "MixedCritic",
    "PopArt",
    "PqnLoss",
    "QMixingLoss",
    "QtranLoss",
    "RomaLoss",
    "SoftActor",
    "TargetUpdater",
    "Temperature",
    "ValueNorm",
    "WeightedQMixingLoss",
    "target_copy",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
