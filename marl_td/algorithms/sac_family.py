"""What ISAC, MASAC and HASAC share: stochastic actors, several soft critics, temperatures, n-step replay.

Names of settings are those of BenchMARL's ``masac`` where it has them. Losses are per group, critics may see
all groups: the live actors of all groups stand in one dictionary of the algorithm; a group's loss asks the
others for their next actions and moves only its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictSequential

from marl_td import critics, policies, signals
from marl_td.algorithms.base import MarlTdAlgorithm, OffPolicyConfig, check_choice, check_range
from marl_td.losses.functional.transitions import n_step_transitions
from marl_td.losses.masac import MASACLoss
from marl_td.losses.regression import LOSS_FUNCTIONS
from marl_td.losses.soft_actor import SoftActor
from marl_td.losses.temperature import Temperature
from marl_td.losses.trajectory import cut_off, end_of_life
from marl_td.losses.value_norm import ValueNorm
from marl_td.models.heads import is_bounded

VALUE_NORMS = ("none", "running")


@dataclass
class SacConfig(OffPolicyConfig):
    """Hyperparameters of the soft actor-critic family."""

    num_qvalue_nets: int = 2
    """Critics, of which the smallest value counts, >= 1."""
    loss_function: str = "l2"
    """Error of the critics: l2 (squared), l1, smooth_l1 or huber."""
    huber_delta: float = 10.0
    """Error at which huber becomes linear, in the critics' units, > 0."""
    alpha_init: float = 1.0
    """Temperature at the start, in units of reward per nat, > 0: alpha."""
    min_alpha: float | None = None
    """Smallest temperature; null for no limit."""
    max_alpha: float | None = None
    """Largest temperature; null for no limit."""
    fixed_alpha: bool = False
    """Keep the temperature where it starts, instead of learning it from the target entropy."""
    share_alpha: bool = True
    """One temperature for all agents of a group, or one each."""
    target_entropy: float | None = None
    """Entropy of one agent's policy that the temperature aims at, nats; null for what the next two say."""
    target_entropy_scale: float = 1.0
    """Continuous: the target is minus this times the action's width (actions counted in [-1, 1])."""
    discrete_target_entropy_weight: float = 0.2
    """Discrete: the target is this times log(number of actions), in [0, 1]."""
    n_steps: int = 1
    """Rewards in a target before it bootstraps, >= 1; fewer at the end of a collected batch: n."""
    value_norm: str = "none"
    """Targets of the critics: none (as they are), or running (normalised by running statistics)."""
    scale_mapping: str = "biased_softplus_1.0"
    """How a network's output becomes a standard deviation (TorchRL's names)."""
    use_tanh_normal: bool = True
    """Squash continuous actions into their bounds by tanh; a plain normal otherwise."""
    action_scale: float = 1.0
    """Critics take continuous actions scaled from their bounds to [-this, this], > 0."""
    mask_dead_values: bool = False
    """Let an agent's death end its return; by default the critics learn what death is worth."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_range("num_qvalue_nets", self.num_qvalue_nets, 1)
        check_choice("loss_function", self.loss_function, LOSS_FUNCTIONS)
        check_range("huber_delta", self.huber_delta, 1e-6)
        check_range("alpha_init", self.alpha_init, 1e-9)
        check_range("target_entropy_scale", self.target_entropy_scale, 0.0)
        check_range("discrete_target_entropy_weight", self.discrete_target_entropy_weight, 0.0, 1.0)
        check_range("n_steps", self.n_steps, 1)
        check_choice("value_norm", self.value_norm, VALUE_NORMS)
        check_range("action_scale", self.action_scale, 1e-3)
        low, high = self.min_alpha, self.max_alpha
        check_range("min_alpha", low or 0.0, 0.0, self.alpha_init)
        check_range("max_alpha", math.inf if high is None else high, self.alpha_init)


class SacFamily(MarlTdAlgorithm):
    """Base of the algorithms that follow soft critics."""

    config: Any

    def __init__(self, experiment: Any, config: SacConfig) -> None:
        self._actors: dict[str, SoftActor] = {}
        super().__init__(experiment, config)

    @property
    def scope(self) -> str:
        """What critics see: ``"agent"``, ``"group"`` or ``"environment"``."""
        raise NotImplementedError

    def action_value(self, group: str) -> Any:
        """One critic of ``group``; what it sees is what tells the members of the family apart."""
        raise NotImplementedError

    def reads_actions(self, group: str) -> bool:
        """Whether the critics of ``group`` read others' actions (their own, if continuous)."""
        return self.scope != "agent"

    def idle_settings(self) -> dict[str, str]:
        """Those of another error, and of the temperature where it is fixed or its target given."""
        config, idle = self.config, super().idle_settings()
        if config.loss_function != "huber":
            idle["huber_delta"] = f"loss_function is {config.loss_function}"
        targets = ("target_entropy_scale", "discrete_target_entropy_weight")
        if config.fixed_alpha:
            names = ("min_alpha", "max_alpha", "target_entropy", *targets)
            idle.update(dict.fromkeys(names, "fixed_alpha is true"))
        elif config.target_entropy is not None:
            idle.update(dict.fromkeys(targets, "target_entropy is given"))
        return idle

    # ------------------------------------------------------------------ parts
    def soft_actor(self, group: str) -> SoftActor:
        """The actor of ``group`` as critics see it; its parameters are the policy's. Built once."""
        if group not in self._actors:
            *layers, _ = self.get_policy_for_loss(group)
            network, squash = TensorDictSequential(*layers), self.config.use_tanh_normal
            options: dict[str, Any] = {"action_scale": self.config.action_scale}
            if not self.is_continuous(group):
                options["n_actions"] = policies.n_actions(self, group)
            else:
                space = self.action_spec[group, "action"].space
                if is_bounded(space.low, space.high):
                    options["bounds"] = (space.low.to(self.device), space.high.to(self.device))
            self._actors[group] = SoftActor(network, group, squash=squash, **options)
        return self._actors[group]

    def temperature(self, group: str) -> Temperature:
        """The temperature of ``group``, with its target."""
        config = self.config
        target = config.target_entropy
        if target is None and self.is_continuous(group):
            target = -config.target_entropy_scale * policies.d_action(self, group)
        elif target is None:
            target = config.discrete_target_entropy_weight * math.log(
                policies.n_actions(self, group)
            )
        return Temperature(
            target,
            None if config.share_alpha else self.n_agents(group),
            init=config.alpha_init,
            fixed=config.fixed_alpha,
            low=config.min_alpha,
            high=config.max_alpha,
        )

    def loss_options(self, group: str) -> dict[str, Any]:
        """What every loss of the family is built with."""
        config = self.config
        names = [name for name, _ in critics.scope_groups(self, group, self.scope)]
        return {
            "gamma": self.experiment_config.gamma,
            "loss_function": config.loss_function,
            "huber_delta": config.huber_delta,
            "central": self.reads_actions(group),
            "value_norm": ValueNorm() if config.value_norm == "running" else None,
            "n_steps": config.n_steps,
            "mask_dead_values": config.mask_dead_values,
            "actors": {name: self.trained_by(name, SacFamily).soft_actor(name) for name in names},
            "recurrent": self.has_rnn,
            "priority_eta": config.priority_eta,
        }

    def build_loss(self, group: str) -> MASACLoss:
        """The loss of ``group``, its keys not yet pointed there."""
        return MASACLoss(
            self.soft_actor(group),
            [self.action_value(group) for _ in range(self.config.num_qvalue_nets)],
            self.temperature(group),
            **self.loss_options(group),
        )

    # ------------------------------------------------------------- BenchMARL
    def _get_policy_for_loss(self, group: str, model_config: Any, continuous: bool) -> Any:
        return policies.stochastic(
            self,
            group,
            scale_mapping=self.config.scale_mapping,
            squash=self.config.use_tanh_normal,
        )

    def _get_loss(
        self, group: str, policy_for_loss: Any, continuous: bool
    ) -> tuple[MASACLoss, bool]:
        loss = self.build_loss(group)
        loss.set_group(group)
        if not continuous:
            loss.set_keys(action_value=(group, "action_value"))
        return loss, True

    def prepare_batch(self, group: str, batch: TensorDictBase) -> TensorDictBase:
        """Signals per agent, n steps as one transition, without what the loss computes anew."""
        self.prepare_signals(group, batch)
        if self.config.n_steps > 1 and not self.has_rnn:
            self._several_steps(group, batch)
        made = ("logits", "loc", "scale", "log_prob")
        return batch.exclude(*[(group, name) for name in made])

    def prepare_signals(self, group: str, batch: TensorDictBase) -> None:
        """Give every agent its reward, done and terminated."""
        signals.agent_signals(batch, group)

    def _several_steps(self, group: str, batch: TensorDictBase) -> None:
        """Make each step of ``[n_envs, T]`` the beginning of ``n_steps`` of them."""
        following = batch.get("next")
        own = following.get(group)
        done = following.get("done", None)
        ends = own.get("done").all(-2) if done is None else done
        cut = cut_off(batch, (group, "mask"), (group, "truncated"))
        if cut is not None:  # all reach one state: that in which one of them is cut off
            ends = ends | cut.any(-1, keepdim=True)
        terminated = own.get("terminated").squeeze(-1)
        if self.config.mask_dead_values:
            died = end_of_life(batch, (group, "mask"), (group, "truncated"))
            terminated = terminated if died is None else terminated | died
        found = n_step_transitions(
            own.get("reward").squeeze(-1),
            terminated,
            ends.squeeze(-1),
            gamma=self.experiment_config.gamma,
            n_steps=self.config.n_steps,
        )
        rows = torch.arange(batch.shape[0], device=found.last.device).unsqueeze(-1)
        reached = following[rows, found.last]
        reached.set((group, "reward"), found.reward.unsqueeze(-1))
        reached.set((group, "terminated"), found.terminated.unsqueeze(-1))
        discount = found.discount.unsqueeze(-1).expand_as(found.reward)
        reached.set((group, "discount"), discount.unsqueeze(-1))
        batch.set("next", reached)
