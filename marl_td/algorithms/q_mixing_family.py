"""What QMIX and its relatives share: greedy policies on own values, a mixer, replay, episodes.

A member of the family says which mixer it uses; what the mixer conditions on is the global state of
the environment, or the joint observation where there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torchrl.data import LazyMemmapStorage, LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers import PrioritizedSampler, RandomSampler
from torchrl.envs import Compose, InitTracker, TransformedEnv

from marl_td import policies, signals
from marl_td.algorithms.base import MarlTdAlgorithm, MarlTdConfig, check_choice, check_range
from marl_td.algorithms.recurrent import state_keys
from marl_td.collect.episode_replay import EpisodeReplayBuffer
from marl_td.losses.common import next_key
from marl_td.losses.qmix import LOSS_FUNCTIONS, QMixingLoss

TEAM_REWARDS = ("mean", "sum")


@dataclass
class QMixingConfig(MarlTdConfig):
    """Hyperparameters of the Q-mixing family."""

    ON_POLICY: ClassVar[bool] = False
    CONTINUOUS: ClassVar[bool] = False

    double_q: bool = True
    """The live network chooses the next action, the target network values it (double Q-learning)."""
    loss_function: str = "l2"
    """Error of the team value: l2 (squared), l1, smooth_l1 or huber."""
    huber_delta: float = 1.0
    """Error at which huber becomes linear, in units of the return, > 0."""
    lmbda: float = 0.0
    """Mixing of n-step returns, in [0, 1]: lambda. 0 is one-step; above 0 whole episodes are replayed."""
    team_reward: str = "mean"
    """The team's reward: mean or sum of the agents' rewards, where agents have their own."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_choice("loss_function", self.loss_function, LOSS_FUNCTIONS)
        check_choice("team_reward", self.team_reward, TEAM_REWARDS)
        check_range("huber_delta", self.huber_delta, 1e-6)
        check_range("lmbda", self.lmbda, 0.0, 1.0)

    def loss_options(self) -> dict[str, Any]:
        """The fields that :class:`QMixingLoss` takes, by its argument names."""
        names = ("double_q", "loss_function", "huber_delta", "lmbda")
        return {name: getattr(self, name) for name in names}


class QMixingFamily(MarlTdAlgorithm):
    """Base of the algorithms that learn a team value mixed from the agents' values."""

    config: Any

    def __init__(self, experiment: Any, config: QMixingConfig) -> None:
        super().__init__(experiment, config)
        # BenchMARL flattens batches to single steps unless `has_rnn`, for which it also asks the
        # critic's model; there is no critic here, and lambda-returns need the steps in order.
        self.has_rnn = self.keeps_episodes

    def mixer(self, group: str) -> TensorDictModuleBase:
        """The mixer of ``group``: ``(group, "chosen_action_value")`` to ``"global_value"``."""
        raise NotImplementedError

    @property
    def keeps_episodes(self) -> bool:
        """Whether whole episodes are replayed: for recurrent networks and lambda-returns."""
        return self.model_config.is_rnn or self.config.lmbda > 0.0

    # ------------------------------------------------------------- BenchMARL
    def _get_policy_for_loss(self, group: str, model_config: Any, continuous: bool) -> Any:
        return policies.greedy_q(self, group)

    def _get_policy_for_collection(self, policy_for_loss: Any, group: str, continuous: bool) -> Any:
        return policies.epsilon_greedy(self, group, policy_for_loss)

    def _get_loss(
        self, group: str, policy_for_loss: Any, continuous: bool
    ) -> tuple[QMixingLoss, bool]:
        loss = QMixingLoss(
            policy_for_loss.select_subsequence(out_keys=[(group, "action_value")]),
            self.mixer(group).to(self.device),
            gamma=self.experiment_config.gamma,
            sequences=self.keeps_episodes,
            **self.config.loss_options(),
        )
        names = ("action", "action_value", "action_mask", "chosen_action_value", "mask")
        loss.set_keys(priority=(group, "td_error"), **{name: (group, name) for name in names})
        return loss, True

    def _get_parameters(self, group: str, loss: QMixingLoss) -> dict[str, Iterable[Any]]:
        return {"loss_value": [*loss.network.parameters(), *loss.mixer.parameters()]}

    def prepare_batch(self, group: str, batch: TensorDictBase) -> TensorDictBase:
        """Signals of the team, without what the loss does not read (it would only fill the replay)."""
        signals.team_signals(batch, group, self.config.team_reward)
        unread: list[NestedKey] = [(group, "action_value")]
        for state in state_keys(self.get_policy_for_loss(group)):  # an episode starts from zero
            unread += [state, next_key(state)]
        loss, _ = self.get_loss_and_updater(group)
        for key in batch.keys(include_nested=True, leaves_only=True):
            plain = key[1:] if key[0] == "next" else key
            if plain[0] == "joint" and plain not in loss.mixer.in_keys:
                unread.append(key)
        return batch.exclude(*unread)

    def process_env_fun(
        self, env_fun: Callable[[], TransformedEnv]
    ) -> Callable[[], TransformedEnv]:
        """Mark the first step of every episode, where the model's own transforms do not."""
        if not self.keeps_episodes or self.model_config.is_rnn:
            return env_fun
        return lambda: env_fun().append_transform(InitTracker(init_key="is_init"))

    def get_replay_buffer(self, group: str, transforms: Any = None) -> TensorDictReplayBuffer:
        """BenchMARL's buffer of single steps, or one of whole episodes.

        The experiment's sizes count steps: episodes are counted as if each took the time limit.
        """
        if not self.keeps_episodes:
            return super().get_replay_buffer(group, transforms)
        settings = self.experiment_config
        length = int(self.experiment.max_steps)
        n_stored = -(-settings.replay_buffer_memory_size(self.on_policy) // length)
        n_sampled = -(-settings.train_minibatch_size(self.on_policy) // length)
        sampler: Any = RandomSampler()
        if settings.off_policy_use_prioritized_replay_buffer:
            sampler = PrioritizedSampler(
                n_stored, settings.off_policy_prb_alpha, settings.off_policy_prb_beta
            )
        return EpisodeReplayBuffer(
            max_length=length,
            storage=self._storage(group, n_stored),
            sampler=sampler,
            batch_size=n_sampled,
            priority_key=(group, "td_error"),
            transform=None if transforms is None else Compose(*transforms),
        )

    def _storage(self, group: str, n_stored: int) -> LazyTensorStorage:
        if self.buffer_device != "disk":
            return LazyTensorStorage(n_stored, device=self.buffer_device)
        folder = self.experiment.folder_name / f"buffer_{group}"
        return LazyMemmapStorage(n_stored, device=self.device, scratch_dir=folder)
