"""Makers quote prices and carry the stock; see :mod:`marl_td.tasks.market_making.task`."""

from marl_td.tasks.market_making.params import MarketMakingParams
from marl_td.tasks.market_making.task import MarketMaking, MarketState

__all__ = ["MarketMaking", "MarketMakingParams", "MarketState"]
