"""The one place that builds actors, from an algorithm's specs and model settings.

Every builder takes the algorithm (specs, model configuration, device) and the group's name, and returns a
TensorDict module that reads ``(group, "observation")`` (and the mask, the hidden state) and writes
``(group, "action")``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensordict import unravel_key
from tensordict.nn import ProbabilisticTensorDictModule, TensorDictModule, TensorDictSequential
from tensordict.utils import NestedKey
from torch import nn
from torchrl.data import Composite, Unbounded
from torchrl.modules import (
    IndependentNormal,
    NormalParamExtractor,
    ProbabilisticActor,
    TanhNormal,
)

from marl_td.models.exploration import Boltzmann, EpsilonGreedy, GaussianExploration
from marl_td.models.heads import (
    BoundedAction,
    DuelingValue,
    FiniteCategorical,
    FiniteMaskedCategorical,
    GreedyAction,
    is_bounded,
    narrow,
    scale_output,
)
from marl_td.models.inputs import AgentContext

CONTEXT = "context"
"""Entry of a group that holds what an agent is told besides its observation."""
DUELING = "value_and_advantage"
"""Entry of a group that the two streams of a dueling network are in."""


def network(
    algorithm: Any, group: str, out_key: str, d_out: int, context: TensorDictModule | None = None
) -> nn.Module:
    """The agents' network of ``group``: own observation to ``(group, out_key)``, ``[*B, n_agents, d_out]``.

    Parameters are shared or per agent as ``share_policy_params`` of the algorithm says. Where the
    configuration says so, it also reads what :func:`agent_context` writes, or what
    ``context`` does instead.
    """
    n_agents = algorithm.n_agents(group)
    output = Composite({out_key: Unbounded(shape=(n_agents, d_out))}, shape=(n_agents,))
    inputs = algorithm.observation_spec[group].clone()
    context = agent_context(algorithm, group) if context is None else context
    if context is not None:
        inputs[CONTEXT] = Unbounded((n_agents, context.module.width))
    net = algorithm.model_config.get_model(
        input_spec=Composite({group: inputs.to(algorithm.device)}),
        output_spec=Composite({group: output}),
        agent_group=group,
        input_has_agent_dim=True,
        n_agents=n_agents,
        centralised=False,
        share_params=algorithm.share_policy_params,
        device=algorithm.device,
        action_spec=algorithm.action_spec,
    )
    return net if context is None else TensorDictSequential(context, net)


def agent_context(algorithm: Any, group: str) -> TensorDictModule | None:
    """What the agents are told besides their observations, in ``(group, "context")``; None for nothing.

    ``last_action`` and ``agent_id`` of the algorithm's configuration say what; the last action is read from
    ``(group, "last_action")``, which the environment must give.
    """
    last = getattr(algorithm.config, "last_action", False)
    index = getattr(algorithm.config, "agent_id", False)
    if not (last or index):
        return None
    n_agents = algorithm.n_agents(group)
    if last:
        key: NestedKey = "last_action"
        module = AgentContext(n_agents, n_actions(algorithm, group), index)
    else:
        key, spec = next(iter(algorithm.observation_spec[group].items(True, True)))
        module = AgentContext(n_agents, 0, index, n_dims=len(spec.shape))
    in_key = unravel_key((group, key))
    return TensorDictModule(module.to(algorithm.device), [in_key], [(group, CONTEXT)])


def n_actions(algorithm: Any, group: str) -> int:
    """Number of discrete actions of each agent in ``group``."""
    return int(algorithm.action_spec[group, "action"].space.n)


def d_action(algorithm: Any, group: str) -> int:
    """Width of the continuous action of each agent in ``group``."""
    return int(algorithm.action_spec[group, "action"].shape[-1])


def action_width(algorithm: Any, group: str) -> int:
    """Width of each agent's action as critics take it: continuous as it is, discrete one-hot."""
    if algorithm.is_continuous(group):
        return d_action(algorithm, group)
    return n_actions(algorithm, group)


def greedy_q(
    algorithm: Any,
    group: str,
    make_network: Callable[[str, int], nn.Module],
    *,
    dueling: bool = False,
) -> TensorDictSequential:
    """Action values and the greedy available action: the policy of value-based algorithms.

    Writes ``(group, "action_value")`` ``[*B, n_agents, n_actions]`` and ``(group, "action")``. With
    ``dueling`` the network gives a state value and advantages, ``[*B, n_agents, 1 + n_actions]``.
    ``make_network`` makes the network from its output's name in the group and its width.
    """
    mask = [(group, "action_mask")] if algorithm.is_masked(group) else []
    key, width = (group, "action_value"), n_actions(algorithm, group)
    if dueling:
        net = make_network(DUELING, 1 + width)
        parts = [net, TensorDictModule(DuelingValue(), [(group, DUELING), *mask], [key])]
    else:
        parts = [make_network("action_value", width)]
    head = TensorDictModule(GreedyAction(), in_keys=[key, *mask], out_keys=[(group, "action")])
    return TensorDictSequential(*parts, head)


def epsilon_greedy(
    algorithm: Any, group: str, policy: TensorDictSequential
) -> TensorDictSequential:
    """``policy`` with each agent, by itself, acting at random (among available actions) with epsilon.

    Epsilon falls linearly as the experiment's ``exploration_*`` settings say.
    """
    settings = algorithm.experiment_config
    explore = EpsilonGreedy(
        n_actions(algorithm, group),
        (group, "action"),
        (group, "action_mask") if algorithm.is_masked(group) else None,
        eps_init=settings.exploration_eps_init,
        eps_end=settings.exploration_eps_end,
        annealing_steps=settings.get_exploration_anneal_frames(algorithm.on_policy),
    ).to(algorithm.device)
    return TensorDictSequential(*policy, explore)


def boltzmann(
    algorithm: Any,
    group: str,
    policy: TensorDictSequential,
    temperature_init: float,
    temperature_end: float,
) -> TensorDictSequential:
    """``policy`` with each agent drawing from the softmax of its action values over a temperature.

    The temperature falls by a constant factor over the experiment's ``exploration_anneal_frames``.
    """
    settings = algorithm.experiment_config
    explore = Boltzmann(
        (group, "action_value"),
        (group, "action"),
        (group, "action_mask") if algorithm.is_masked(group) else None,
        temperature_init=temperature_init,
        temperature_end=temperature_end,
        annealing_steps=max(1, settings.get_exploration_anneal_frames(algorithm.on_policy)),
    ).to(algorithm.device)
    return TensorDictSequential(*policy, explore)


def stochastic(
    algorithm: Any,
    group: str,
    *,
    scale_mapping: str = "biased_softplus_1.0",
    squash: bool = True,
    output_gain: float = 1.0,
    net: nn.Module | None = None,
) -> ProbabilisticActor:
    """Actor that samples: masked categorical, or (tanh-squashed) normal inside the bounds.

    Writes ``(group, "action")`` and ``(group, "log_prob")`` ``[*B, n_agents]``.

    Args:
        algorithm: whose specs and model settings are used.
        group: the agent group.
        scale_mapping: how the network's output becomes a standard deviation (TorchRL's names).
        squash: squash continuous actions into their bounds by tanh; a plain normal otherwise.
        output_gain: as in :func:`marl_td.models.heads.scale_output`; 1 keeps the initialisation.
        net: writes the distributions' parameters ``(group, "logits")``; None for :func:`network`.

    Raises:
        ValueError: if ``squash`` is asked for without finite bounds.
    """
    continuous = algorithm.is_continuous(group)
    width = 2 * d_action(algorithm, group) if continuous else n_actions(algorithm, group)
    net = network(algorithm, group, "logits", width) if net is None else net
    if output_gain != 1.0:
        scale_output(net, output_gain)
    if continuous:
        return _continuous_actor(algorithm, group, net, scale_mapping, squash)
    in_keys: dict[str, Any] = {"logits": (group, "logits")}
    masked = algorithm.is_masked(group)
    if masked:
        in_keys["mask"] = (group, "action_mask")
    return ProbabilisticActor(
        module=net,
        spec=algorithm.action_spec[group, "action"],
        in_keys=in_keys,
        out_keys=[(group, "action")],
        distribution_class=FiniteMaskedCategorical if masked else FiniteCategorical,
        return_log_prob=True,
        log_prob_key=(group, "log_prob"),
    )


def _continuous_actor(
    algorithm: Any, group: str, net: nn.Module, scale_mapping: str, squash: bool
) -> ProbabilisticActor:
    extract = TensorDictModule(
        NormalParamExtractor(scale_mapping=scale_mapping),
        in_keys=[(group, "logits")],
        out_keys=[(group, "loc"), (group, "scale")],
    )
    spec = algorithm.action_spec[group, "action"]
    bounds = {"low": narrow(spec.space.low), "high": narrow(spec.space.high)} if squash else {}
    if squash and not is_bounded(**bounds):
        raise ValueError(
            f"the actions of group '{group}' are unbounded, tanh cannot squash them into "
            f"[{bounds['low'].min().item():g}, {bounds['high'].max().item():g}]. Bound the action space "
            "of the environment, or set use_tanh_normal=False."
        )
    return ProbabilisticActor(
        module=TensorDictSequential(net, extract),
        spec=spec,
        in_keys=[(group, "loc"), (group, "scale")],
        out_keys=[(group, "action")],
        distribution_class=TanhNormal if squash else IndependentNormal,
        distribution_kwargs=bounds,
        return_log_prob=True,
        log_prob_key=(group, "log_prob"),
    )


def deterministic(algorithm: Any, group: str, net: nn.Module) -> TensorDictSequential:
    """Actor that gives one bounded continuous action; ``net`` writes ``(group, "parameter")``."""
    spec = algorithm.action_spec[group, "action"]
    head = TensorDictModule(
        BoundedAction(spec.space.low, spec.space.high),
        in_keys=[(group, "parameter")],
        out_keys=[(group, "action")],
    )
    return TensorDictSequential(net, head.to(algorithm.device))


def gaussian_noise(
    algorithm: Any, group: str, policy: Any, scale: float = 1.0
) -> TensorDictSequential:
    """``policy`` with additive Gaussian exploration, clamped to the action's bounds.

    The standard deviation is a fraction of each action's half range: ``scale`` times the experiment's
    epsilon, which falls linearly from ``exploration_eps_init`` to ``exploration_eps_end``.
    """
    settings = algorithm.experiment_config
    space = algorithm.action_spec[group, "action"].space
    explore = GaussianExploration(
        space.low,
        space.high,
        (group, "action"),
        sigma_init=scale * settings.exploration_eps_init,
        sigma_end=scale * settings.exploration_eps_end,
        annealing_steps=max(1, settings.get_exploration_anneal_frames(algorithm.on_policy)),
    )
    return TensorDictSequential(*policy, explore.to(algorithm.device))


def logits_policy(algorithm: Any, group: str, net: nn.Module) -> TensorDictSequential:
    """Discrete actor for deterministic policy gradients: logits, and an action sampled from them.

    Sampling from the softmax is what Gumbel-softmax does in the hard limit; the loss relaxes the same logits
    (straight-through). ``net`` writes ``(group, "logits")`` ``[*B, n_agents, n_actions]``.
    """
    in_keys: dict[str, Any] = {"logits": (group, "logits")}
    masked = algorithm.is_masked(group)
    if masked:
        in_keys["mask"] = (group, "action_mask")
    sample = ProbabilisticTensorDictModule(
        in_keys=in_keys,
        out_keys=[(group, "action")],
        distribution_class=FiniteMaskedCategorical if masked else FiniteCategorical,
    )
    return TensorDictSequential(net, sample)
