"""Cars that share junctions and see little; see :mod:`marl_td.tasks.traffic_junction.task`."""

from marl_td.tasks.traffic_junction.params import TrafficJunctionParams
from marl_td.tasks.traffic_junction.task import TrafficJunction, TrafficState

__all__ = ["TrafficJunction", "TrafficJunctionParams", "TrafficState"]
