"""MADDPG: deterministic actors, and one critic per agent over everybody's observations and actions.

Lowe et al. 2017, "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive Environments",
https://arxiv.org/abs/1706.02275. The page ``docs/algorithms/maddpg.md`` says what differs from the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from tensordict.nn import TensorDictSequential
from torchrl.envs import TransformedEnv

from marl_td import critics, policies
from marl_td.algorithms.base import MarlTdAlgorithm, check_range, with_transform
from marl_td.algorithms.ddpg_family import CentralCriticConfig, CentralCritics
from marl_td.algorithms.inferred_policies import inferred_policies
from marl_td.collect.sub_policy import DrawSubPolicy
from marl_td.losses.ddpg import MADDPGLoss
from marl_td.losses.maddpg_inference import InferringMADDPGLoss
from marl_td.models.sub_policies import FixedSubPolicy, SubPolicies


class Maddpg(CentralCritics):
    """MADDPG on every group of agents, competing ones included; see :class:`MaddpgConfig`."""

    def network(self, group: str, name: str, width: int) -> Any:
        """The agents' network, or an ensemble of them."""
        size = self.config.ensemble_size
        if size == 1:
            return super().network(group, name, width)
        members: list[Any] = [policies.network(self, group, name, width) for _ in range(size)]
        # What a network reads of its group beside observations is its own state.
        seen = critics.own_observation_keys(self, group)
        own = [key for key in members[0].in_keys if isinstance(key, tuple) and key not in seen]
        return SubPolicies(members, group, states=own)

    def loss(self, group: str, **options: Any) -> MADDPGLoss:
        """The loss of ``group``; with inferred policies if the agents do not know the others'."""
        if not self.config.infer_policies:
            return super().loss(group, **options)
        names = [name for name, _ in critics.scope_groups(self, group, self.scope)]
        actors = {name: self.group_actor(name) for name in names}
        return InferringMADDPGLoss(
            actors[group],
            self.action_value(group),
            inferred_policies(self, group, self.scope, actors),
            policies=actors,
            inference_entropy_coeff=self.config.inference_entropy_coef,
            **options,
        )

    def idle_settings(self) -> dict[str, str]:
        """Those of inferred policies and of sub-policies, where there are none."""
        idle = super().idle_settings()
        if self.config.ensemble_size == 1:
            idle["evaluation_sub_policy"] = "ensemble_size is 1"
        if not self.config.infer_policies:
            idle["inference_entropy_coef"] = "infer_policies is false"
        return idle

    @property
    def joint_entries(self) -> tuple[str, ...]:
        """Who of the other groups is alive, where their policies are inferred."""
        return ("mask",) if self.config.infer_policies else ()

    def process_env_fun(
        self, env_fun: Callable[[], TransformedEnv]
    ) -> Callable[[], TransformedEnv]:
        """Let the environment draw who plays which sub-policy, where there are several."""
        sizes = self._ensemble_sizes()
        return with_transform(env_fun, lambda: DrawSubPolicy(sizes)) if sizes else env_fun

    def _ensemble_sizes(self) -> dict[str, int]:
        """Sub-policies of each agent, of the groups whose algorithm has more than one."""
        trainers = {group: self.trainers.get(group, self) for group in self.group_map}
        sizes = {g: getattr(t.config, "ensemble_size", 1) for g, t in trainers.items()}
        return {group: size for group, size in sizes.items() if size > 1}

    def _get_policy_for_collection(self, policy_for_loss: Any, group: str, continuous: bool) -> Any:
        policy = super()._get_policy_for_collection(policy_for_loss, group, continuous)
        if self.config.ensemble_size == 1 or self.config.evaluation_sub_policy < 0:
            return policy
        fixed = FixedSubPolicy(group, self.config.evaluation_sub_policy)
        return TensorDictSequential(fixed, *policy)


@dataclass
class MaddpgConfig(CentralCriticConfig):
    """Hyperparameters of MADDPG."""

    ALGORITHM: ClassVar[type[MarlTdAlgorithm]] = Maddpg

    ensemble_size: int = 1
    """Policy ensembles: sub-policies of each agent, >= 1 (K); each episode is played with a random one."""
    evaluation_sub_policy: int = -1
    """Sub-policy that evaluation plays, in [-1, ensemble_size); -1 for a random one per episode."""
    infer_policies: bool = False
    """Targets of the critics use what each agent infers of the others' policies, instead of these."""
    inference_entropy_coef: float = 1e-3
    """Weight of the inferred policies' entropy, >= 0: lambda."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_range("ensemble_size", self.ensemble_size, 1)
        check_range("inference_entropy_coef", self.inference_entropy_coef, 0.0)
        if self.infer_policies and (self.critic_scope == "agent" or self.actor_gradient != "own"):
            raise ValueError(
                "infer_policies=true needs critics of more than one agent's action and the others' actions "
                f"from replay: critic_scope=group or environment (got {self.critic_scope}) and "
                f"actor_gradient=own (got {self.actor_gradient})."
            )
        check_range("evaluation_sub_policy", self.evaluation_sub_policy, -1, self.ensemble_size - 1)

    def loss_options(self) -> dict[str, Any]:
        """The fields that the loss takes, by its argument names."""
        return {**super().loss_options(), "ensemble_size": self.ensemble_size}
