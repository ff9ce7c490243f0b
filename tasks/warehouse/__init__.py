"""Robots that fetch and deliver; see :mod:`marl_td.tasks.warehouse.task`."""

from marl_td.tasks.warehouse.floor import WarehouseState
from marl_td.tasks.warehouse.params import WarehouseParams
from marl_td.tasks.warehouse.task import Warehouse

__all__ = ["Warehouse", "WarehouseParams", "WarehouseState"]
