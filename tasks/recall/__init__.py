"""A game of memory: a cue is shown once, and after a while it must be named."""

from marl_td.tasks.recall.task import Recall, RecallParams, RecallState

__all__ = ["Recall", "RecallParams", "RecallState"]
