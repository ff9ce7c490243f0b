"""Payment routing to three queueing channels; see :mod:`marl_td.tasks.banking.task`."""

from marl_td.tasks.banking.params import BankingParams
from marl_td.tasks.banking.task import Banking

__all__ = ["Banking", "BankingParams"]
