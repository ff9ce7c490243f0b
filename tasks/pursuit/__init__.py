"""Predators hunt prey on a grid; see :mod:`marl_td.tasks.pursuit.task`."""

from marl_td.tasks.pursuit.params import PursuitParams
from marl_td.tasks.pursuit.task import Pursuit, PursuitState

__all__ = ["Pursuit", "PursuitParams", "PursuitState"]
