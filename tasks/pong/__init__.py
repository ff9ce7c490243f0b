"""Pong of two sides; see :mod:`marl_td.tasks.pong.task`."""

from marl_td.tasks.pong.params import PongParams
from marl_td.tasks.pong.task import Pong, PongState

__all__ = ["Pong", "PongParams", "PongState"]
