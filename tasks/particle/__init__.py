"""Particle worlds: discs that are pushed about in the plane and repel one another."""

from marl_td.tasks.particle.simple_spread import SimpleSpread, SpreadParams, SpreadState

__all__ = ["SimpleSpread", "SpreadParams", "SpreadState"]
