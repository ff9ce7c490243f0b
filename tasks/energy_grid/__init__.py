"""Generators follow the load of a grid; see :mod:`marl_td.tasks.energy_grid.task`."""

from marl_td.tasks.energy_grid.params import EnergyGridParams
from marl_td.tasks.energy_grid.task import EnergyGrid, GridState

__all__ = ["EnergyGrid", "EnergyGridParams", "GridState"]
