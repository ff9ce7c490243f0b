"""What the algorithms share whose agents may read their last actions."""

from __future__ import annotations

from collections.abc import Callable

from torchrl.envs import TransformedEnv

from marl_td.algorithms.base import MarlTdAlgorithm, with_transform
from marl_td.collect.last_action import LastAction


class LastActionAlgorithm(MarlTdAlgorithm):
    """Tells the agents of every group their last actions, where ``last_action`` asks for it."""

    def process_env_fun(
        self, env_fun: Callable[[], TransformedEnv]
    ) -> Callable[[], TransformedEnv]:
        """The environment, then with one more entry per group: ``(group, "last_action")``, one-hot."""
        if not self.config.last_action:
            return env_fun
        mortal = {group: self.is_mortal(group) for group in self.group_map}
        return with_transform(env_fun, lambda: LastAction(mortal))
