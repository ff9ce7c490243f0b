"""Stores set prices; see :mod:`marl_td.tasks.pricing.task`."""

from marl_td.tasks.pricing.params import PricingParams
from marl_td.tasks.pricing.task import Pricing, PricingState

__all__ = ["Pricing", "PricingParams", "PricingState"]
