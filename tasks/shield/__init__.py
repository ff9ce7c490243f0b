"""A safety shield: what agents want to do is corrected before it happens, counted, and shown.

The shield is part of the environment: a policy's own action is what is learned from (so that every
algorithm stays correct), the corrected one is what is done. Linear constraints on the own or the joint
action are kept by Euclidean projection, forbidden discrete actions are masked and, where a policy reads
no mask, replaced; functions of the user's can do either. Provably safe learning of this kind is reviewed in
Krasowski et al. 2023, https://openreview.net/forum?id=mcN0ezbnzO.

>>> from marl_td.tasks import make_env
>>> budget = {"scope": "joint", "weights": {"agents": [1.0, 0.0]}, "limit": 2.0}
>>> env = make_env("retail", n_envs=2, safety={"linear": [budget]})
>>> batch = env.rollout(3)
>>> batch["next", "info", "shield_changed"].shape
torch.Size([2, 3, 1])
"""

from marl_td.tasks.shield.corrector import CHANGED, SIZE, Corrector
from marl_td.tasks.shield.settings import Linear, Shield
from marl_td.tasks.shield.task import ShieldedTask, shielded
from marl_td.tasks.shield.transform import ShieldTransform, shielded_env

__all__ = [
    "CHANGED",
    "SIZE",
    "Corrector",
    "Linear",
    "Shield",
    "ShieldTransform",
    "ShieldedTask",
    "shielded",
    "shielded_env",
]
