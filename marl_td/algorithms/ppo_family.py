"""What MAPPO and its relatives share: stochastic actor, critics V, advantages, recurrent chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from tensordict import TensorDictBase

from marl_td import critics, policies, signals
from marl_td.algorithms.base import MarlTdAlgorithm, MarlTdConfig, check_choice, check_range
from marl_td.algorithms.recurrent import Chunks, Memory, state_keys
from marl_td.algorithms.value_norms import value_norm
from marl_td.losses.advantage import AdvantageLoss
from marl_td.losses.entries import next_key
from marl_td.losses.ppo import MAPPOLoss

VALUE_NORMS = ("none", "running", "popart")
ADVANTAGE_NORMS = ("none", "team", "agent")


@dataclass
class AdvantageConfig(MarlTdConfig):
    """Hyperparameters of the algorithms with a stochastic actor and a critic V."""

    ON_POLICY: ClassVar[bool] = True

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
    """Let an agent's death end its return; by default the critic learns what death is worth."""
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
        super().__post_init__()
        check_range("lmbda", self.lmbda, 0.0, 1.0)
        check_range("actor_gain", self.actor_gain, 1e-6)
        check_range("value_norm_beta", self.value_norm_beta, 0.0, 0.9999999)
        for name in ("critic_coef", "clip_value", "huber_delta", "chunk_length"):
            check_range(name, getattr(self, name), 0.0)
        check_choice("value_norm", self.value_norm, VALUE_NORMS)
        check_choice("advantage_norm", self.advantage_norm, ADVANTAGE_NORMS)

    def loss_options(self) -> dict[str, Any]:
        """What the loss is told of these, beside what every member of the family tells it."""
        return {}


@dataclass
class PpoConfig(AdvantageConfig):
    """Hyperparameters of PPO's clipped objective."""

    clip_epsilon: float = 0.2
    """Range of the probability ratio, in (0, 1): epsilon. The paper advises at most 0.2."""
    entropy_coef: float = 0.01
    """Weight of the entropy bonus, >= 0."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_range("clip_epsilon", self.clip_epsilon, 1e-6, 0.999)
        check_range("entropy_coef", self.entropy_coef, 0.0)

    def loss_options(self) -> dict[str, Any]:
        """The clipped objective's."""
        return {"clip_epsilon": self.clip_epsilon, "entropy_coeff": self.entropy_coef}


@dataclass
class CentralValueConfig(AdvantageConfig):
    """Settings of a central critic."""

    critic_scope: str = "environment"
    """What the critic sees: the global state or all groups (environment), its group, or its own agent."""
    agent_specific_state: bool = False
    """Append own observation and index to the critic's input (the paper's agent-specific state)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_choice("critic_scope", self.critic_scope, critics.SCOPES)
        if self.critic_scope == "agent" and self.agent_specific_state:
            raise ValueError(
                "agent_specific_state appends the agent's own observation to a central critic's input; "
                "with critic_scope=agent there is nothing else. Leave one of them out."
            )


class PpoFamily(Chunks, MarlTdAlgorithm):
    """Base of the algorithms that train a stochastic actor on advantages from a critic V."""

    config: Any
    LOSS: ClassVar[type[AdvantageLoss]] = MAPPOLoss

    def __init__(self, experiment: Any, config: MarlTdConfig) -> None:
        self.estimators: dict[str, Callable[[TensorDictBase], TensorDictBase]] = {}
        super().__init__(experiment, config)

    def state_value(self, group: str) -> Any:
        """Central critic over the group, or over all groups of the environment."""
        return critics.state_value(
            self,
            group,
            scope=self.config.critic_scope,
            share_params=self.config.share_param_critic,
            agent_specific=self.config.agent_specific_state,
        )

    def loss_options(self, group: str) -> dict[str, Any]:
        """Options of :attr:`LOSS` beside those that the whole family has."""
        options: dict[str, Any] = self.config.loss_options()
        return options

    def _get_policy_for_loss(self, group: str, model_config: Any, continuous: bool) -> Any:
        return policies.stochastic(
            self,
            group,
            scale_mapping=self.config.scale_mapping,
            squash=self.config.use_tanh_normal,
            output_gain=self.config.actor_gain,
        )

    def _get_loss(
        self, group: str, policy_for_loss: Any, continuous: bool
    ) -> tuple[AdvantageLoss, bool]:
        config = self.config
        loss = self.build_loss(
            group,
            policy_for_loss,
            critic_coeff=config.critic_coef,
            clip_value=config.clip_value or None,
            huber_delta=config.huber_delta or None,
            normalize_advantage=config.advantage_norm != "none",
            normalize_advantage_exclude_dims=(-1,) if config.advantage_norm == "agent" else (),
            mask_dead_values=config.mask_dead_values,
            **self.loss_options(group),
        )
        loss.set_group(group)
        return loss, False

    def build_loss(self, group: str, policy_for_loss: Any, **options: Any) -> AdvantageLoss:
        """The loss of ``group``; ``options`` are what the settings say."""
        critic = self.state_value(group)
        return self.LOSS(
            policy_for_loss,
            critic,
            value_norm=value_norm(self, group, critic),
            critic_states=state_keys(critic),
            **options,
        )

    def memory(self, loss: AdvantageLoss) -> Memory:
        """The critic's hidden states."""
        return Memory(loss.critic_states)

    def _get_parameters(self, group: str, loss: Any) -> dict[str, Iterable[Any]]:
        return {
            "loss_objective": list(loss.actor.parameters()),
            "loss_critic": list(loss.critic.parameters()),
        }

    def prepare_batch(self, group: str, batch: TensorDictBase) -> TensorDictBase:
        """Signals per agent, advantages and value targets; recurrent rows are cut into chunks."""
        signals.agent_signals(batch, group)
        loss, _ = self.get_loss_and_updater(group)
        estimate = self.estimators.get(group, partial(loss.estimate, **self.discounts))
        estimate(batch)
        self.memories[group].end(batch)
        # Only the states before a step are read again.
        keys = [*state_keys(loss.actor), *loss.critic_states]
        batch = batch.exclude(*(next_key(key) for key in keys))
        return self.cut(batch)

    @property
    def discounts(self) -> dict[str, float]:
        """How advantages discount: ``gamma`` and ``lmbda``."""
        return {"gamma": self.experiment_config.gamma, "lmbda": self.config.lmbda}
