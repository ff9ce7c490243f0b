"""What all value-based algorithms share: greedy policies on own values, exploration, one team's reward."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from tensordict.nn import TensorDictModuleBase

from marl_td import policies, signals
from marl_td.algorithms.base import (
    MarlTdConfig,
    check_choice,
    check_range,
)
from marl_td.algorithms.last_actions import LastActionAlgorithm
from marl_td.losses.q_mixing import MixedQLoss
from marl_td.losses.regression import LOSS_FUNCTIONS
from marl_td.models.mixers import Mixer
from marl_td.models.team import Team, TeamNetworks

EXPLORATIONS = ("epsilon_greedy", "boltzmann")


@dataclass
class ValueBasedConfig(MarlTdConfig):
    """Hyperparameters of every value-based algorithm."""

    CONTINUOUS: ClassVar[bool] = False

    dueling: bool = False
    """Each agent's network ends in a state value and advantages that are centred on it (dueling head)."""
    loss_function: str = "l2"
    """Error of the value: l2 (squared), l1, smooth_l1 or huber."""
    huber_delta: float = 1.0
    """Error at which huber becomes linear, in units of the return, > 0."""
    lmbda: float = 0.0
    """Mixing of n-step returns, in [0, 1]: lambda. 0 is one-step."""
    last_action: bool = False
    """Each agent's network also reads the action that the agent took last (one-hot)."""
    agent_id: bool = False
    """Each agent's network also reads the agent's index in its group (one-hot)."""
    exploration: str = "epsilon_greedy"
    """Random actions: epsilon_greedy, or boltzmann (drawn from the softmax of values / temperature)."""
    temperature_init: float = 1.0
    """Boltzmann's temperature at the start, in units of the return, > 0: tau."""
    temperature_end: float = 0.05
    """The temperature after experiment.exploration_anneal_frames, > 0; it falls by a constant factor."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_choice("loss_function", self.loss_function, LOSS_FUNCTIONS)
        check_choice("exploration", self.exploration, EXPLORATIONS)
        check_range("huber_delta", self.huber_delta, 1e-6)
        check_range("lmbda", self.lmbda, 0.0, 1.0)
        check_range("temperature_end", self.temperature_end, 1e-6)
        check_range("temperature_init", self.temperature_init, self.temperature_end)

    def loss_options(self) -> dict[str, Any]:
        """The fields that the loss takes, by its argument names."""
        names = ("loss_function", "huber_delta", "lmbda")
        return {name: getattr(self, name) for name in names}


@dataclass
class TeamValueConfig(ValueBasedConfig):
    """Hyperparameters of those that learn one value of the team, mixed from the agents' values."""

    team_reward: str = "mean"
    """The team's reward: mean or sum of the agents' rewards, where agents have their own."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_choice("team_reward", self.team_reward, signals.TEAM_REWARDS)

    def mixer(self, team: Team) -> Mixer:
        """The mixer of a team."""
        raise NotImplementedError

    def value_network(self, networks: TeamNetworks, name: str, width: int) -> TensorDictModuleBase:
        """What gives the agents' values: observations to ``(group, name)`` ``[*B, n_agents, width]``."""
        return networks.agents(name, width)

    def build_loss(
        self, network: TensorDictModuleBase, networks: TeamNetworks, **options: Any
    ) -> MixedQLoss:
        """The loss: from the agents' values ``network`` and what makes other networks of the team."""
        raise NotImplementedError


class ValueBased(LastActionAlgorithm):
    """Base of the algorithms that act greedily on the agents' values."""

    config: Any

    def network(self, group: str, name: str, width: int) -> TensorDictModuleBase:
        """What gives the agents' values: observations to ``(group, name)`` ``[*B, n_agents, width]``."""
        return policies.network(self, group, name, width)

    def idle_settings(self) -> dict[str, str]:
        """Those of other ways to explore, and of another error."""
        idle = super().idle_settings()
        if self.config.exploration != "boltzmann":
            names = ("temperature_init", "temperature_end")
            idle.update(dict.fromkeys(names, f"exploration is {self.config.exploration}"))
        if self.config.loss_function != "huber":
            idle["huber_delta"] = f"loss_function is {self.config.loss_function}"
        return idle

    # ------------------------------------------------------------- BenchMARL
    def _get_policy_for_loss(self, group: str, model_config: Any, continuous: bool) -> Any:
        make_network = partial(self.network, group)
        return policies.greedy_q(self, group, make_network, dueling=self.config.dueling)

    def _get_policy_for_collection(self, policy_for_loss: Any, group: str, continuous: bool) -> Any:
        if self.config.exploration == "boltzmann":
            temperature = (self.config.temperature_init, self.config.temperature_end)
            return policies.boltzmann(self, group, policy_for_loss, *temperature)
        return policies.epsilon_greedy(self, group, policy_for_loss)
