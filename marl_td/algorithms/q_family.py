"""What value-based algorithms with a replay share: single steps or whole episodes, target networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torchrl.data import ReplayBuffer
from torchrl.envs import InitTracker, TransformedEnv

from marl_td.algorithms.base import OffPolicyConfig, check_choice, check_range, with_transform
from marl_td.algorithms.recurrent import state_keys
from marl_td.algorithms.replay import replay_buffer
from marl_td.algorithms.value_based import ValueBased, ValueBasedConfig
from marl_td.collect.episode_replay import EpisodeReplayBuffer
from marl_td.collect.window_replay import WindowReplayBuffer
from marl_td.losses.entries import next_key
from marl_td.losses.multi_step import Q_LAMBDAS
from marl_td.losses.q_learning import QLearningLoss

SEQUENCES = ("episode", "window")


@dataclass
class QConfig(ValueBasedConfig, OffPolicyConfig):
    """Hyperparameters of the value-based algorithms with a replay."""

    lmbda: float = 0.0
    """Mixing of n-step returns, in [0, 1]: lambda. 0 is one-step; above 0 sequences are replayed."""
    n_steps: int = 1
    """Rewards in an n-step return, >= 1: n. Above 1 (with lmbda 0) sequences are replayed."""
    sequence: str = "episode"
    """What multi-step returns and recurrent networks replay: whole episodes (episode) or parts (window)."""
    window_length: int = 20
    """Steps of a window that are learnt from, >= 1; shortened to the task's time limit."""
    window_overlap: float = 0.5
    """Share of a window that the next window of the episode begins with, in [0, 1)."""
    burn_in: int = 10
    """Steps before a window that only warm up the hidden state of a recurrent network, >= 0."""
    q_lambda: str = "peng"
    """What lmbda does about replayed actions that are not greedy: peng (nothing), watkins (it stops there)
    or corrected (by their values)."""
    double_q: bool = True
    """The live network chooses the next action, the target network values it (double Q-learning)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_range("n_steps", self.n_steps, 1)
        check_choice("sequence", self.sequence, SEQUENCES)
        check_range("window_length", self.window_length, 1)
        check_range("window_overlap", self.window_overlap, 0.0, 0.999)
        check_range("burn_in", self.burn_in, 0)
        check_choice("q_lambda", self.q_lambda, Q_LAMBDAS)
        if self.lmbda > 0.0 and self.n_steps > 1:
            raise ValueError(
                f"lmbda={self.lmbda:g} and n_steps={self.n_steps} are two ways of using several "
                "rewards; leave one of them at its default."
            )
        if self.q_lambda != "peng" and self.lmbda == 0.0:
            raise ValueError(
                f"q_lambda={self.q_lambda} changes what lmbda does, and lmbda is 0; set lmbda above 0."
            )

    def loss_options(self) -> dict[str, Any]:
        """The fields that :class:`QLearningLoss` takes, by its argument names."""
        own = {
            name: getattr(self, name)
            for name in ("n_steps", "q_lambda", "double_q", "priority_eta")
        }
        return {**super().loss_options(), **own}


class QFamily(ValueBased):
    """Base of the algorithms that act greedily on the agents' values, and learn from replayed steps.

    A member says which loss trains its networks and what it adds to a batch.
    """

    config: Any

    def __init__(self, experiment: Any, config: QConfig) -> None:
        super().__init__(experiment, config)
        # BenchMARL flattens batches to single steps unless `has_rnn`, for which it also asks the
        # critic's model; there is no critic here, and lambda-returns need the steps in order.
        self.has_rnn = self.keeps_sequences

    def loss(self, group: str, network: TensorDictModuleBase, **options: Any) -> QLearningLoss:
        """The loss of ``group``, whose agents' values are ``network``'s."""
        raise NotImplementedError

    def add_signals(self, group: str, batch: TensorDictBase) -> None:
        """Reward, done and terminated in the form that the loss reads."""
        raise NotImplementedError

    def idle_settings(self) -> dict[str, str]:
        """Those of sequences, where single steps or whole episodes are replayed."""
        idle, window = super().idle_settings(), ("window_length", "window_overlap", "burn_in")
        if not self.keeps_sequences:
            why = "single steps are replayed (no recurrent network, lmbda=0, n_steps=1)"
            idle.update(dict.fromkeys(("sequence", "priority_eta", *window), why))
        elif not self.keeps_windows:
            idle.update(dict.fromkeys(window, "sequence is episode"))
        elif not self.model_config.is_rnn:
            idle["burn_in"] = "the network is not recurrent"
        return idle

    @property
    def keeps_sequences(self) -> bool:
        """Whether sequences are replayed: for recurrent networks and multi-step returns."""
        several = self.config.lmbda > 0.0 or self.config.n_steps > 1
        return self.model_config.is_rnn or several

    @property
    def keeps_windows(self) -> bool:
        """Whether these are windows, and not whole episodes."""
        return self.keeps_sequences and self.config.sequence == "window"

    @property
    def window(self) -> tuple[int, int]:
        """Steps of the burn-in and of the window; together at most the time limit."""
        limit = int(self.experiment.max_steps)
        length = min(self.config.window_length, limit)
        return min(self.config.burn_in, limit - length) if self.model_config.is_rnn else 0, length

    def _stored_states(self, group: str, policy: Any) -> list[NestedKey]:
        """Keys of the hidden states with which windows begin."""
        states = state_keys(policy)
        kept = self.model_config._get_model_state_spec_inner(group=group)
        if len(states) < len(list(kept.keys(True, True))):
            raise ValueError(
                "algorithm.sequence=window begins in the middle of an episode, with the hidden state that "
                f"the network had there; {type(self.model_config).__name__} does not give it to the data. "
                "Take model=layers/marl_td/gru, or algorithm.sequence=episode."
            )
        return states

    # ------------------------------------------------------------- BenchMARL
    def _get_loss(
        self, group: str, policy_for_loss: Any, continuous: bool
    ) -> tuple[QLearningLoss, bool]:
        sequences: dict[str, Any] = {"sequences": self.keeps_sequences}
        if self.keeps_windows:
            sequences["burn_in"] = self.window[0]
            sequences["states"] = self._stored_states(group, policy_for_loss)
        loss = self.loss(
            group,
            policy_for_loss.select_subsequence(out_keys=[(group, "action_value")]),
            gamma=self.experiment_config.gamma,
            **sequences,
            **self.config.loss_options(),
        )
        loss.set_group(group)
        return loss.to(self.device), True

    def prepare_batch(self, group: str, batch: TensorDictBase) -> TensorDictBase:
        """Signals, without what the loss does not read (it would only fill the replay)."""
        self.add_signals(group, batch)
        policy = self.get_policy_for_loss(group)
        unread: list[NestedKey] = [key for key in policy.out_keys if key != (group, "action")]
        loss, _ = self.get_loss_and_updater(group)
        for state in state_keys(policy):  # an episode starts from zero
            unread += [next_key(state)] if state in loss.states else [state, next_key(state)]
        read = {
            key
            for networks in loss.networks().values()
            for network in networks
            for key in network.in_keys
        }
        for key in batch.keys(include_nested=True, leaves_only=True):
            plain = key[1:] if key[0] == "next" else key
            if plain[0] == "joint" and plain not in read:
                unread.append(key)
        return batch.exclude(*unread)

    def process_env_fun(
        self, env_fun: Callable[[], TransformedEnv]
    ) -> Callable[[], TransformedEnv]:
        """Mark episodes' first steps, where the model's own transforms do not."""
        if self.keeps_sequences and not self.model_config.is_rnn:
            env_fun = with_transform(env_fun, lambda: InitTracker(init_key="is_init"))
        return super().process_env_fun(env_fun)

    def get_replay_buffer(self, group: str, transforms: Any = None) -> ReplayBuffer:
        """A buffer of single steps, or one of whole episodes or windows.

        The experiment's sizes count steps: episodes are counted as if each took the time limit, windows
        with their burn-in.
        """
        if not self.keeps_sequences:
            return super().get_replay_buffer(group, transforms)
        burn_in, window = self.window
        if not self.keeps_windows:
            length = int(self.experiment.max_steps)
            kind: dict[str, Any] = {"buffer_class": EpisodeReplayBuffer, "max_length": length}
        else:
            length = burn_in + window
            stride = max(1, round(window * (1.0 - self.config.window_overlap)))
            kind = {"buffer_class": WindowReplayBuffer, "length": window}
            kind.update(burn_in=burn_in, stride=stride)
        return replay_buffer(self, group, item_length=length, transforms=transforms, **kind)
