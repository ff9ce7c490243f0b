"""Drones that watch an area; see :mod:`marl_td.tasks.drones.task`."""

from marl_td.tasks.drones.params import DronesParams
from marl_td.tasks.drones.task import Drones, DronesState

__all__ = ["Drones", "DronesParams", "DronesState"]
