"""Predators surround one prey on a grid; see :mod:`marl_td.tasks.predator_prey.task`."""

from marl_td.tasks.predator_prey.params import PredatorPreyParams
from marl_td.tasks.predator_prey.task import PredatorPrey, PredatorPreyState

__all__ = ["PredatorPrey", "PredatorPreyParams", "PredatorPreyState"]
