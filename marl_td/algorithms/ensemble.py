"""A different algorithm for each group of agents: BenchMARL's ensemble, with what our algorithms need of it.

BenchMARL's own ensemble builds losses, target updaters and replay buffers itself, as TorchRL's losses want
them, and gives each algorithm networks of its own for the groups that it does not train. Here all that is
asked of the group's own algorithm, and a central critic over all groups sees the policies that are trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarl.algorithms.ensemble import EnsembleAlgorithm, EnsembleAlgorithmConfig
from tensordict import TensorDictBase
from torchrl.data import ReplayBuffer
from torchrl.envs import EnvBase

from marl_td.algorithms.base import MarlTdAlgorithm


class Ensemble(EnsembleAlgorithm):
    """Hands every question about a group to the group's own algorithm.

    Args:
        algorithms_map: the algorithm of each group.
        experiment: the BenchMARL experiment.
    """

    def __init__(self, algorithms_map: dict[str, Any], experiment: Any) -> None:
        super().__init__(algorithms_map, experiment=experiment)
        for algorithm in algorithms_map.values():
            algorithm._policies_for_loss = self._policies_for_loss
            algorithm._policies_for_collection = self._policies_for_collection
            if isinstance(algorithm, MarlTdAlgorithm):
                algorithm.trainers = algorithms_map
        # One dictionary of each kind for all: each group's policy must be made by its own.
        for group, algorithm in algorithms_map.items():
            algorithm.get_policy_for_loss(group)

    def get_loss_and_updater(self, group: str) -> tuple[Any, Any]:
        """The loss of ``group`` and what moves its target networks."""
        return self.algorithms_map[group].get_loss_and_updater(group)

    def get_replay_buffer(self, group: str, transforms: Any = None) -> ReplayBuffer:
        """The replay buffer of ``group``."""
        return self.algorithms_map[group].get_replay_buffer(group, transforms)

    def process_env_fun(self, env_fun: Callable[[], EnvBase]) -> Callable[[], EnvBase]:
        """Let every algorithm add the transforms that it needs."""
        for algorithm in self.algorithms_map.values():
            env_fun = algorithm.process_env_fun(env_fun)
        return env_fun

    def process_batch(self, group: str, batch: TensorDictBase) -> TensorDictBase:
        """The batch as the algorithm of ``group`` prepares it."""
        return self.algorithms_map[group].process_batch(group, batch)


@dataclass
class EnsembleConfig(EnsembleAlgorithmConfig):
    """The algorithm of each group, by the group's name: all on-policy, or all off-policy.

    Example:
        >>> from marl_td.algorithms.ippo import IppoConfig
        >>> from marl_td.algorithms.mappo import MappoConfig
        >>> config = EnsembleConfig({"adversary": MappoConfig(), "agent": IppoConfig()})
        >>> bool(config.on_policy())
        True
    """

    @staticmethod
    def associated_class() -> type[EnsembleAlgorithm]:
        """The algorithm's class."""
        return Ensemble


def algorithm_of(algorithm: Any, group: str) -> Any:
    """The algorithm that trains ``group``: the one given, or its member of that group."""
    if isinstance(algorithm, EnsembleAlgorithm):
        return algorithm.algorithms_map[group]
    return algorithm
