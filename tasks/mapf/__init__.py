"""Multi-agent path finding; see :mod:`marl_td.tasks.mapf.task`."""

from marl_td.tasks.mapf.params import MapfParams
from marl_td.tasks.mapf.task import Mapf
from marl_td.tasks.mapf.views import MapfState

__all__ = ["Mapf", "MapfParams", "MapfState"]
