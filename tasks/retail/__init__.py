"""Multi-warehouse inventory with lost sales and lateral transfers; see :mod:`marl_td.tasks.retail.task`."""

from marl_td.tasks.retail.params import RetailParams
from marl_td.tasks.retail.task import Retail

__all__ = ["Retail", "RetailParams"]
