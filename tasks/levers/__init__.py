"""Every agent must pull another lever; see :mod:`marl_td.tasks.levers.task`."""

from marl_td.tasks.levers.task import Levers, LeversParams, LeversState

__all__ = ["Levers", "LeversParams", "LeversState"]
