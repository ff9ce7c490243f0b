"""PQN-VDN: Q-learning on the sum of the agents' values, from fresh data and without target network.

Gallici et al. 2024, "Simplifying Deep Temporal Difference Learning", https://arxiv.org/abs/2407.04811.
``docs/algorithms/pqn_vdn.md`` says what differs from the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from marl_td import policies, signals
from marl_td.algorithms.base import MarlTdAlgorithm, check_range
from marl_td.algorithms.q_mixing_family import GroupNetworks
from marl_td.algorithms.recurrent import Chunks, state_keys
from marl_td.algorithms.value_based import TeamValueConfig, ValueBased
from marl_td.losses.entries import next_key
from marl_td.losses.pqn import PqnLoss
from marl_td.models.mixers import SumMixer
from marl_td.models.normalised import normalised
from marl_td.models.team import Team, TeamNetworks


class PqnVdn(Chunks, ValueBased):
    """PQN-VDN on one group of agents; see :class:`PqnVdnConfig` for its settings.

    Networks without memory learn from single steps in any order, on targets that were made once for all
    steps collected; recurrent ones from sequences, on targets that are made anew for each minibatch.
    """

    config: Any
    model_config: Any

    def __init__(self, experiment: Any, config: PqnVdnConfig) -> None:
        super().__init__(experiment, config)
        self.has_rnn = self.model_config.is_rnn  # there is no critic
        if config.layer_norm:
            self.model_config = normalised(self.model_config)

    def _get_loss(self, group: str, policy_for_loss: Any, continuous: bool) -> tuple[PqnLoss, bool]:
        network = policy_for_loss.select_subsequence(out_keys=[(group, "action_value")])
        loss = self.config.build_loss(
            network,
            GroupNetworks(self, group),
            gamma=self.experiment_config.gamma,
            states=state_keys(network),
            **self.config.loss_options(),
        )
        loss.set_group(group)
        return loss, False

    def prepare_batch(self, group: str, batch: TensorDictBase) -> TensorDictBase:
        """Signals of the team, and targets for single steps; recurrent rows are cut into chunks."""
        signals.team_signals(batch, group, self.config.team_reward)
        loss, _ = self.get_loss_and_updater(group)
        if not self.has_rnn:
            loss.estimate(batch)
        after = [next_key(key) for key in state_keys(loss.network)]
        made = ("action_value", policies.DUELING, policies.CONTEXT)
        batch = batch.exclude(*[(group, name) for name in made], *after)
        return self.cut(batch)


@dataclass
class PqnVdnConfig(TeamValueConfig):
    """Hyperparameters of PQN-VDN."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = PqnVdn
    ON_POLICY: ClassVar[bool] = True
    CENTRAL_CRITIC: ClassVar[bool] = False

    lmbda: float = 0.65
    """Mixing of n-step returns, in [0, 1]: lambda. 0 is one-step."""
    layer_norm: bool = True
    """Normalise the hidden layers of the agents' network: what stands in for the target network."""
    chunk_length: int = 0
    """Length of training sequences of recurrent networks, in steps; 0 for whole collected rows."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_range("chunk_length", self.chunk_length, 0)

    def mixer(self, team: Team) -> SumMixer:
        """The sum."""
        return SumMixer(team.n_agents, local_key=team.key("chosen_action_value"))

    def build_loss(
        self, network: TensorDictModuleBase, networks: TeamNetworks, **options: Any
    ) -> PqnLoss:
        """The loss."""
        return PqnLoss(network, networks.central(self.mixer(networks.team)), **options)
