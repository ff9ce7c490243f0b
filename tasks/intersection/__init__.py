"""Vehicles cross a junction without signals; see :mod:`marl_td.tasks.intersection.task`."""

from marl_td.tasks.intersection.dynamics import IntersectionState
from marl_td.tasks.intersection.params import IntersectionParams
from marl_td.tasks.intersection.task import Intersection

__all__ = ["Intersection", "IntersectionParams", "IntersectionState"]
