"""What every algorithm shares: the config is handed over whole, specs are checked, batches are clean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from benchmarl.algorithms.common import Algorithm, AlgorithmConfig
from tensordict import TensorDictBase
from torchrl.data import ReplayBuffer
from torchrl.envs import Transform, TransformedEnv
from torchrl.objectives import LossModule

from marl_td.algorithms import checks
from marl_td.algorithms.callbacks import DelayedSteps, JointKeys, add_callback
from marl_td.algorithms.naming import named, result_name
from marl_td.algorithms.recurrent import Memory
from marl_td.algorithms.replay import batch_buffer, batch_length, replay_buffer, row_length
from marl_td.field_types import check_fields
from marl_td.losses.common import MultiAgentLoss
from marl_td.losses.targets import TargetUpdater

Scope = Literal["group", "environment"]
AlgorithmT = TypeVar("AlgorithmT", bound="MarlTdAlgorithm")


class MarlTdAlgorithm(Algorithm):
    """Base of our algorithms inside an unchanged BenchMARL experiment.

    Args:
        experiment: the BenchMARL experiment.
        config: the algorithm's configuration, kept whole as ``self.config``.
    """

    config: Any

    def __init__(self, experiment: Any, config: MarlTdConfig) -> None:
        self.config = config
        self.trainers: Mapping[str, Any] = {}
        self.memories: dict[str, Memory] = {}
        super().__init__(experiment)
        checks.check_ensemble(experiment.algorithm_config)
        checks.check_models(experiment)
        checks.check_actions(self)
        checks.warn_of_unused(experiment)
        if self.needs_joint_keys:
            add_callback(experiment, JointKeys())

    def trained_by(self, group: str, kind: type[AlgorithmT]) -> AlgorithmT:
        """The algorithm that trains ``group``: this one, or another of an ensemble.

        Raises:
            ValueError: if it is not of ``kind``, so that its actors are of no use here.
        """
        trainer = self.trainers.get(group, self)
        if not isinstance(trainer, kind):
            raise ValueError(
                f"a critic of {type(self).__name__} sees group '{group}', whose actors "
                f"{type(trainer).__name__} trains: they are of another kind. Set critic_scope=group."
            )
        return trainer

    def acting_policy(self, group: str) -> Any:
        """The policy with which ``group`` acts; made once, by the algorithm that trains it."""
        made = self._policies_for_collection
        if group not in made:
            trainer = self.trainers.get(group, self)
            policy = trainer.get_policy_for_loss(group)
            made[group] = trainer._get_policy_for_collection(
                policy, group, self.is_continuous(group)
            )
        return made[group]

    # ------------------------------------------------------------------ specs
    @property
    def needs_joint_keys(self) -> bool:
        """Whether a central critic must see the data of other groups (``("joint", group, ...)``)."""
        scope = getattr(self.config, "critic_scope", "group")
        return scope == "environment" and len(self.group_map) > 1

    @property
    def share_policy_params(self) -> bool:
        """Whether the agents of a group have one policy network, or one each."""
        return bool(self.experiment_config.share_policy_params)

    @property
    def joint_entries(self) -> tuple[str, ...]:
        """What this algorithm reads of other groups beside observations, actions and their masks."""
        return ()

    def n_agents(self, group: str) -> int:
        """Number of agents in ``group``."""
        return len(self.group_map[group])

    def group_seed(self, group: str) -> int:
        """A seed that differs from group to group, and from that of every group of the next run."""
        groups = list(self.group_map)
        return int(self.experiment.seed) * len(groups) + groups.index(group)

    def is_continuous(self, group: str) -> bool:
        """Whether ``group`` has continuous actions."""
        return self.action_spec[group, "action"].dtype.is_floating_point

    def is_masked(self, group: str) -> bool:
        """Whether ``group`` has an action mask."""
        spec = self.action_mask_spec
        return spec is not None and group in spec.keys()

    def is_mortal(self, group: str) -> bool:
        """Whether the environment says who of ``group`` is alive: ``(group, "mask")`` ``[*B, n_agents]``."""
        return (group, "mask") in self.experiment.test_env.observation_keys

    def idle_settings(self) -> dict[str, str]:
        """Settings that change nothing in this experiment, and why; those that were given are warned of."""
        return checks.idle_settings(self)

    # ------------------------------------------------------------- BenchMARL
    def get_loss_and_updater(self, group: str) -> tuple[LossModule, TargetUpdater | None]:
        """The loss of ``group`` and what moves its target networks; built once."""
        if not self._losses_and_updaters:  # where something is trained, and once
            checks.warn_of_idle(self)
        if group not in self._losses_and_updaters:
            loss, _ = self._get_loss(
                group=group,
                policy_for_loss=self.get_policy_for_loss(group),
                continuous=self.is_continuous(group),
            )
            loss = loss.to(self.device)
            if loss.delays:
                add_callback(self.experiment, DelayedSteps())
            self.memories[group] = self.memory(loss)
            self._losses_and_updaters[group] = (loss, self._target_updater(loss))
        return self._losses_and_updaters[group]

    def memory(self, loss: Any) -> Memory:
        """What goes on from one collected batch to the next: states of critics that are run on batches."""
        return Memory([])

    def _get_policy_for_collection(self, policy_for_loss: Any, group: str, continuous: bool) -> Any:
        """The policy that is trained, where nothing explores beside it."""
        return policy_for_loss

    def _get_parameters(self, group: str, loss: Any) -> dict[str, Iterable[Any]]:
        """What each named loss moves: the parameters of its networks, if they have any."""
        found = {
            name: [parameter for network in networks for parameter in network.parameters()]
            for name, networks in loss.networks().items()
        }
        return {name: parameters for name, parameters in found.items() if parameters}

    def _target_updater(self, loss: MultiAgentLoss) -> TargetUpdater | None:
        pairs = loss.target_pairs()
        if not pairs:
            return None
        settings = self.experiment_config
        if settings.soft_target_update:
            return TargetUpdater(pairs, tau=settings.polyak_tau, interval=loss.target_period)
        return TargetUpdater(pairs, interval=settings.hard_target_update_frequency)

    def get_replay_buffer(self, group: str, transforms: Any = None) -> ReplayBuffer:
        """BenchMARL's buffer; off-policy one like it whose prioritised sampling works on this stack.

        On-policy it is ours where environments, which all make the same number of steps, make more of them
        than BenchMARL's would hold.
        """
        settings = self.experiment_config
        item = row_length(settings, self.on_policy) if self.has_rnn else 1
        if not self.on_policy:
            return replay_buffer(self, group, item_length=item, transforms=transforms)
        n_items = batch_length(settings, on_policy=True) // item
        if n_items == -(-settings.collected_frames_per_batch(True) // item):
            return super().get_replay_buffer(group, transforms)
        return batch_buffer(settings, group, n_items, self.device, transforms)

    def process_batch(self, group: str, batch: TensorDictBase) -> TensorDictBase:
        """Check the collected batch ``[n_envs, T]``, say where its episodes begin, and prepare it.

        Raises:
            ValueError: if an observation, state, reward or action is NaN or infinite.
        """
        checks.check_finite(batch)
        if self.has_rnn:  # perhaps the critics alone, and then nothing says where episodes begin
            self.memories[group].begin(batch)
        return self.prepare_batch(group, batch)

    def prepare_batch(self, group: str, batch: TensorDictBase) -> TensorDictBase:
        """Add what the loss needs (signals, returns, advantages) to the batch ``[n_envs, T]``."""
        raise NotImplementedError


@dataclass
class MarlTdConfig(AlgorithmConfig):
    """Base of our algorithm configurations: dataclass fields are the only place of a default."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]]
    ON_POLICY: ClassVar[bool]
    CONTINUOUS: ClassVar[bool] = True
    DISCRETE: ClassVar[bool] = True
    CENTRAL_CRITIC: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the types of the fields; configurations that extend it check their ranges."""
        check_fields(self)

    def get_algorithm(self, experiment: Any) -> MarlTdAlgorithm:
        """The algorithm of this configuration."""
        return self.ALGORITHM(experiment, self)

    @classmethod
    def get_from_yaml(cls, path: str | None = None) -> MarlTdConfig:
        """The defaults, or the settings in the YAML file at ``path``."""
        if path is None:
            return cls()
        from benchmarl.utils import _read_yaml_config

        return cls(**_read_yaml_config(path))

    @classmethod
    def associated_class(cls) -> type[MarlTdAlgorithm]:
        """The algorithm's class, by the name of which BenchMARL knows its results."""
        own: Any = cls.ALGORITHM
        found: type[MarlTdAlgorithm] = named(own, result_name(cls))
        return found

    @classmethod
    def on_policy(cls) -> bool:
        """Whether the algorithm learns from fresh data only."""
        return cls.ON_POLICY

    @classmethod
    def supports_continuous_actions(cls) -> bool:
        """Whether continuous actions can be learned."""
        return cls.CONTINUOUS

    @classmethod
    def supports_discrete_actions(cls) -> bool:
        """Whether discrete actions can be learned."""
        return cls.DISCRETE

    @classmethod
    def has_centralized_critic(cls) -> bool:
        """Whether the critic sees more than one agent's observation."""
        return cls.CENTRAL_CRITIC

    @classmethod
    def has_independent_critic(cls) -> bool:
        """Whether the critic sees one agent's observation only."""
        return not cls.CENTRAL_CRITIC


@dataclass
class OffPolicyConfig(MarlTdConfig):
    """What algorithms that replay old data share; the experiment's ``off_policy_*`` settings say the rest."""

    ON_POLICY: ClassVar[bool] = False

    priority_beta_end: float = 1.0
    """Prioritised replay: beta at the end of the run, in [0, 1]; it starts at off_policy_prb_beta."""
    priority_eta: float = 0.9
    """Prioritised sequences: priority = this * largest error + (1 - this) * mean error, in [0, 1]: eta."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_range("priority_beta_end", self.priority_beta_end, 0.0, 1.0)
        check_range("priority_eta", self.priority_eta, 0.0, 1.0)


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got '{value}'.")


def check_range(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raise ``ValueError`` unless ``low <= value <= high``."""
    if not low <= value <= high:
        limit = f"in [{low:g}, {high:g}]" if high != float("inf") else f"at least {low:g}"
        raise ValueError(f"{name} must be {limit}; got {value:g}.")


def with_transform(
    env_fun: Callable[[], TransformedEnv], make: Callable[[], Transform]
) -> Callable[[], TransformedEnv]:
    """What makes the environment, with a transform added unless there is one that writes the same.

    All algorithms of an ensemble come here with their groups: each must make the same of the settings of all.
    """

    def build() -> TransformedEnv:
        env, transform = env_fun(), make()
        same = [t for t in env.transform if type(t) is type(transform)]
        if any(t.out_keys == transform.out_keys for t in same):
            return env
        return env.append_transform(transform)

    return build
