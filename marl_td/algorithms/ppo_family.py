"""What MAPPO and its relatives share: stochastic actor, state-value critic, advantages, recurrent chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from tensordict import TensorDictBase

from marl_td import policies, signals
from marl_td.algorithms.base import MarlTdAlgorithm, MarlTdConfig, check_choice, check_range
from marl_td.algorithms.recurrent import Chunks, Memory, state_keys
from marl_td.losses.common import next_key
from marl_td.losses.ppo import MAPPOLoss
from marl_td.losses.value_norm import PopArt, ValueNorm

VALUE_NORMS = ("none", "running", "popart")
ADVANTAGE_NORMS = ("none", "team", "agent")


@dataclass
class PpoConfig(MarlTdConfig):
    """Hyperparameters of the PPO family."""

    ON_POLICY: ClassVar[bool] = True

    clip_epsilon: float = 0.2
    """Range of the probability ratio, in (0, 1): epsilon. The paper advises at most 0.2."""
    entropy_coef: float = 0.01
    """Weight of the entropy bonus, >= 0."""
    critic_coef: float = 1.0
    """Weight of the value loss, >= 0."""
    lmbda: float = 0.95
    """GAE's mixing of n-step returns, in [0, 1]: lambda."""
    clip_value: float = 0.2
    """Range of the value's change per update, in the critic's (normalised) units; 0 for no clipping."""
    huber_delta: float = 10.0
    """Where the value error becomes linear, in the critic's units; 0 for the squared error."""
    value_norm: str = "popart"
    """Normalisation of value targets: none, running (the reference's), or popart (output-preserving)."""
    value_norm_beta: float = 0.99999
    """Rate of the running statistics, in [0, 1)."""
    advantage_norm: str = "team"
    """Normalise advantages over the team's batch, per agent, or none; dead agents do not count."""
    mask_dead_values: bool = False
    """Leave dead agents out of the value loss too; by default the critic learns what death is worth."""
    share_param_critic: bool = True
    """One critic for all agents of a group, or one each, with value statistics of its own."""
    scale_mapping: str = "biased_softplus_1.0"
    """How the network's output becomes a standard deviation (continuous actions)."""
    use_tanh_normal: bool = True
    """Squash continuous actions into their bounds by tanh, or use a plain normal."""
    actor_gain: float = 0.01
    """Scale of the actor's last layer at the start, > 0; small: no action is preferred by chance; 1: off."""
    chunk_length: int = 0
    """Length of training sequences of recurrent networks, in steps; 0 for whole collected rows."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("clip_epsilon", self.clip_epsilon, 1e-6, 0.999)
        check_range("lmbda", self.lmbda, 0.0, 1.0)
        check_range("actor_gain", self.actor_gain, 1e-6)
        check_range("value_norm_beta", self.value_norm_beta, 0.0, 0.9999999)
        for name in ("entropy_coef", "critic_coef", "clip_value", "huber_delta", "chunk_length"):
            check_range(name, getattr(self, name), 0.0)
        check_choice("value_norm", self.value_norm, VALUE_NORMS)
        check_choice("advantage_norm", self.advantage_norm, ADVANTAGE_NORMS)


class PpoFamily(Chunks, MarlTdAlgorithm):
    """Base of the algorithms that train a stochastic actor with PPO's clipped objective."""

    config: Any

    def __init__(self, experiment: Any, config: MarlTdConfig) -> None:
        self.memories: dict[str, Memory] = {}
        self.estimators: dict[str, Callable[[TensorDictBase], TensorDictBase]] = {}
        super().__init__(experiment, config)

    def state_value(self, group: str) -> Any:
        """The critic of ``group``; what it sees is what tells the members of the family apart."""
        raise NotImplementedError

    def _get_policy_for_loss(self, group: str, model_config: Any, continuous: bool) -> Any:
        return policies.stochastic(
            self,
            group,
            scale_mapping=self.config.scale_mapping,
            squash=self.config.use_tanh_normal,
            output_gain=self.config.actor_gain,
        )

    def _get_policy_for_collection(self, policy_for_loss: Any, group: str, continuous: bool) -> Any:
        return policy_for_loss

    def _get_loss(
        self, group: str, policy_for_loss: Any, continuous: bool
    ) -> tuple[MAPPOLoss, bool]:
        config = self.config
        loss = self.build_loss(
            group,
            policy_for_loss,
            clip_epsilon=config.clip_epsilon,
            entropy_coeff=config.entropy_coef,
            critic_coeff=config.critic_coef,
            clip_value=config.clip_value or None,
            huber_delta=config.huber_delta or None,
            normalize_advantage=config.advantage_norm != "none",
            normalize_advantage_exclude_dims=(-1,) if config.advantage_norm == "agent" else (),
            mask_dead_values=config.mask_dead_values,
        )
        self.memories[group] = self.memory(loss)
        names = ("action", "value_target", "advantage", "reward", "done", "terminated", "mask")
        loss.set_keys(
            sample_log_prob=(group, "log_prob"),
            value=(group, "state_value"),
            old_value=(group, "old_value"),
            **{name: (group, name) for name in names},
        )
        return loss, False

    def build_loss(self, group: str, policy_for_loss: Any, **options: Any) -> MAPPOLoss:
        """The loss of ``group``; ``options`` are what the settings say."""
        critic = self.state_value(group)
        return MAPPOLoss(
            policy_for_loss,
            critic,
            value_norm=self._value_norm(group, critic),
            critic_states=state_keys(critic),
            **options,
        )

    def memory(self, loss: MAPPOLoss) -> Memory:
        """What goes on from one batch to the next."""
        return Memory(loss.critic_states)

    def _value_norm(self, group: str, critic: Any) -> ValueNorm | None:
        """Statistics of the team with one critic for all agents, of each agent with one critic each."""
        beta = self.config.value_norm_beta
        n_agents = None if self.config.share_param_critic else self.n_agents(group)
        if self.config.value_norm == "popart":
            return PopArt(critic, n_agents, beta=beta)
        return ValueNorm(n_agents, beta=beta) if self.config.value_norm == "running" else None

    def _get_parameters(self, group: str, loss: MAPPOLoss) -> dict[str, Iterable[Any]]:
        return {
            "loss_objective": list(loss.actor.parameters()),
            "loss_critic": list(loss.critic.parameters()),
        }

    def prepare_batch(self, group: str, batch: TensorDictBase) -> TensorDictBase:
        """Signals per agent, advantages and value targets; recurrent rows are cut into chunks."""
        signals.agent_signals(batch, group)
        loss, _ = self.get_loss_and_updater(group)
        memory = self.memories[group]
        if self.has_rnn:
            memory.begin(batch)
        estimate = self.estimators.get(group, partial(loss.estimate, **self.discounts))
        estimate(batch)
        memory.end(batch)
        # Only the states before a step are read again.
        keys = [*state_keys(loss.actor), *loss.critic_states]
        batch = batch.exclude(*(next_key(key) for key in keys))
        return self.cut(batch)

    @property
    def discounts(self) -> dict[str, float]:
        """How advantages discount: ``gamma`` and ``lmbda``."""
        return {"gamma": self.experiment_config.gamma, "lmbda": self.config.lmbda}
