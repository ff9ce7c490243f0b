"""What value-based algorithms share: greedy policies on own values, exploration, replay, episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torchrl.data import ReplayBuffer
from torchrl.envs import InitTracker, Transform, TransformedEnv

from marl_td import policies
from marl_td.algorithms.base import MarlTdAlgorithm, OffPolicyConfig, check_choice, check_range
from marl_td.algorithms.recurrent import state_keys
from marl_td.algorithms.replay import replay_buffer
from marl_td.collect.episode_replay import EpisodeReplayBuffer
from marl_td.collect.last_action import LastAction
from marl_td.collect.window_replay import WindowReplayBuffer
from marl_td.losses.common import next_key
from marl_td.losses.q_learning import LOSS_FUNCTIONS, QLearningLoss

EXPLORATIONS = ("epsilon_greedy", "boltzmann")
SEQUENCES = ("episode", "window")


@dataclass
class QConfig(OffPolicyConfig):
    """Hyperparameters of every value-based algorithm."""

    CONTINUOUS: ClassVar[bool] = False

    double_q: bool = True
    """The live network chooses the next action, the target network values it (double Q-learning)."""
    dueling: bool = False
    """Each agent's network ends in a state value and advantages that are centred on it (dueling head)."""
    loss_function: str = "l2"
    """Error of the value: l2 (squared), l1, smooth_l1 or huber."""
    huber_delta: float = 1.0
    """Error at which huber becomes linear, in units of the return, > 0."""
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
        check_range("n_steps", self.n_steps, 1)
        check_choice("sequence", self.sequence, SEQUENCES)
        check_range("window_length", self.window_length, 1)
        check_range("window_overlap", self.window_overlap, 0.0, 0.999)
        check_range("burn_in", self.burn_in, 0)
        check_range("temperature_end", self.temperature_end, 1e-6)
        check_range("temperature_init", self.temperature_init, self.temperature_end)
        if self.lmbda > 0.0 and self.n_steps > 1:
            raise ValueError(
                f"lmbda={self.lmbda:g} and n_steps={self.n_steps} are two ways of using several "
                "rewards; leave one of them at its default."
            )

    def loss_options(self) -> dict[str, Any]:
        """The fields that :class:`QLearningLoss` takes, by its argument names."""
        names = ("double_q", "loss_function", "huber_delta", "lmbda", "n_steps", "priority_eta")
        return {name: getattr(self, name) for name in names}


class QFamily(MarlTdAlgorithm):
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

    def network(self, group: str, name: str, width: int) -> TensorDictModuleBase:
        """What gives the agents' values: observations to ``(group, name)`` ``[*B, n_agents, width]``."""
        return policies.network(self, group, name, width)

    def add_signals(self, group: str, batch: TensorDictBase) -> None:
        """Reward, done and terminated in the form that the loss reads."""
        raise NotImplementedError

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
    def _get_policy_for_loss(self, group: str, model_config: Any, continuous: bool) -> Any:
        make_network = partial(self.network, group)
        return policies.greedy_q(self, group, make_network, dueling=self.config.dueling)

    def _get_policy_for_collection(self, policy_for_loss: Any, group: str, continuous: bool) -> Any:
        if self.config.exploration == "boltzmann":
            temperature = (self.config.temperature_init, self.config.temperature_end)
            return policies.boltzmann(self, group, policy_for_loss, *temperature)
        return policies.epsilon_greedy(self, group, policy_for_loss)

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
        entries = {field.name: field.default for field in fields(loss._AcceptedKeys)}
        own = {name: (group, key[1]) for name, key in entries.items() if isinstance(key, tuple)}
        loss.set_keys(**own)
        return loss.to(self.device), True

    def _get_parameters(self, group: str, loss: QLearningLoss) -> dict[str, Iterable[Any]]:
        return {
            name: [parameter for network in networks for parameter in network.parameters()]
            for name, networks in loss.networks().items()
        }

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
        """Mark episodes' first steps, where the model's own transforms do not; tell the last action."""
        if self.keeps_sequences and not self.model_config.is_rnn:
            env_fun = _with_transform(env_fun, lambda: InitTracker(init_key="is_init"))
        if self.config.last_action:
            mortal = {group: self.is_mortal(group) for group in self.group_map}
            env_fun = _with_transform(env_fun, lambda: LastAction(mortal))
        return env_fun

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


def _with_transform(
    env_fun: Callable[[], TransformedEnv], make: Callable[[], Transform]
) -> Callable[[], TransformedEnv]:
    """What makes the environment, with a transform of its own behind the others."""
    return lambda: env_fun().append_transform(make())
