"""From the policy of a group to the steps of one of its agents.

A policy is a sequence of modules that read and write entries by key. Each becomes a step of plain tensors
for one agent; exploration falls away. A part that needs other agents' observations, or of which that is not
known, is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarl.models.cnn import Cnn
from benchmarl.models.common import Model, SequenceModel
from benchmarl.models.gru import Gru
from benchmarl.models.mlp import Mlp
from tensordict.nn import (
    NormalParamExtractor,
    ProbabilisticTensorDictModule,
    TensorDictModule,
    TensorDictSequential,
)
from tensordict.utils import NestedKey
from torch import nn
from torchrl.modules import IndependentNormal, SafeProbabilisticModule, TanhNormal

from marl_td.deploy import parts
from marl_td.deploy.networks import OwnCells, OwnCnn, OwnGru, OwnMlp
from marl_td.deploy.parts import NotExportable, own_bounds, own_copy, unknown_part
from marl_td.deploy.signature import CATEGORICAL, NORMAL, TANH_NORMAL
from marl_td.models.autoregressive import AutoregressivePolicy
from marl_td.models.belief import BeliefContext, BeliefEncoder
from marl_td.models.exploration import Boltzmann, EpsilonGreedy, GaussianExploration
from marl_td.models.floored import FlooredSoftmax
from marl_td.models.gru import StatefulGru
from marl_td.models.heads import (
    BoundedAction,
    DuelingValue,
    FiniteCategorical,
    FiniteMaskedCategorical,
    GreedyAction,
)
from marl_td.models.inputs import AgentContext, JointInput
from marl_td.models.roles import RoleEncoder, RoleHead
from marl_td.models.sub_policies import FixedSubPolicy, SubPolicies

Key = tuple[str, ...]
EXPLORATION = (EpsilonGreedy, Boltzmann, GaussianExploration)
ROW_WISE = (
    AgentContext,
    BeliefContext,
    BeliefEncoder,
    BoundedAction,
    DuelingValue,
    JointInput,
    NormalParamExtractor,
)
"""Modules that treat agents one by one."""
HEADS = (ProbabilisticTensorDictModule, SafeProbabilisticModule)
DISTRIBUTIONS = {
    FiniteCategorical: CATEGORICAL,
    FiniteMaskedCategorical: CATEGORICAL,
    TanhNormal: TANH_NORMAL,
    IndependentNormal: NORMAL,
}


@dataclass(frozen=True)
class Step:
    """A module of plain tensors, and the entries that it reads and writes."""

    module: nn.Module
    in_keys: tuple[Key, ...]
    out_keys: tuple[Key, ...]


@dataclass(frozen=True)
class OwnPolicy:
    """One agent's steps.

    Args:
        steps: in order.
        states: shapes ``[n_layers, width]`` of the hidden states by key; they are written under ``"next"``.
        distribution: name of what actions are drawn from; empty if the policy has none.
    """

    steps: tuple[Step, ...]
    states: dict[Key, tuple[int, ...]]
    distribution: str

    @property
    def in_keys(self) -> list[Key]:
        """Entries that no step writes before they are read."""
        known: set[Key] = set()
        out: list[Key] = []
        for step in self.steps:
            out += [key for key in step.in_keys if key not in known and key not in out]
            known.update(step.out_keys)
        return out


def own_policy(policy: nn.Module, group: str, agent: int) -> OwnPolicy:
    """The steps of the agent with index ``agent`` of ``group``, which ``policy`` acts for.

    Raises:
        NotExportable: naming the part that cannot act decentralised.
    """
    walk = _Walk(group, agent)
    steps = tuple(walk.steps(policy))
    return OwnPolicy(steps, walk.states, walk.distribution)


class _Walk:
    """Goes through the parts of a policy."""

    def __init__(self, group: str, agent: int) -> None:
        self.group = group
        self.agent = agent
        self.states: dict[Key, tuple[int, ...]] = {}
        self.distribution = ""
        self.member: int | None = None

    def steps(self, part: Any) -> Iterator[Step]:
        """The steps of a part."""
        if isinstance(part, TensorDictSequential | SequenceModel):
            for inner in part.models if isinstance(part, SequenceModel) else part:
                yield from self.steps(inner)
        elif isinstance(part, SubPolicies):
            yield from self._ensemble(part)
        elif isinstance(part, FixedSubPolicy):
            self.member = part.member
        elif not isinstance(part, EXPLORATION):
            yield self._step(part)

    def _step(self, part: Any) -> Step:
        """The one step of a part that is no sequence. Types are exact: a subclass may do something else."""
        if isinstance(part, Model):
            return self._network(part)
        if type(part) is FlooredSoftmax:
            self.distribution = CATEGORICAL
            head = parts.FlooredAction(float(part.eps))
            return _step(head, part.in_keys, [part.out_keys[0], (self.group, "scores")])
        if type(part) in HEADS:
            return self._head(part)
        if isinstance(part, RoleEncoder):
            role = parts.Role(own_copy(part.distribution, self.agent))
            return _step(role, part.in_keys[:1], part.out_keys[2:])
        if isinstance(part, RoleHead):
            layer = parts.RoleLayer(own_copy(part, self.agent))
            return _step(layer, part.in_keys, part.out_keys)
        if isinstance(part, AutoregressivePolicy):
            raise NotExportable(
                f"the policy of group '{self.group}' cannot act decentralised: it decides for agent after "
                "agent (MAT), from the observations of all agents and the actions of those before. Train "
                "marl_td/mat_dec, whose actors see their own observation only, or another algorithm."
            )
        if type(part) is TensorDictModule:
            return self._module(part)
        raise unknown_part(self.group, part)

    def _network(self, model: Model) -> Step:
        if model.centralised or not model.input_has_agent_dim:
            raise NotExportable(
                f"the network {type(model).__name__} of group '{self.group}' reads the observations of all "
                "agents, which an agent does not have when it acts."
            )
        if type(model) is Mlp:
            mlp = OwnMlp(model.mlp, self.agent, model.num_feature_dims)
            return _step(mlp, model.in_keys, [model.out_key])
        if type(model) is Cnn:
            keys = [*model.image_in_keys, *model.tensor_in_keys]
            return _step(OwnCnn(model, self.agent), keys, [model.out_key])
        if type(model) is StatefulGru:
            state = _key(model.state_key)
            self.states[state] = tuple(model.state_shape[1:])
            keys = [*model.input_keys, state]
            return _step(OwnGru(model, self.agent), keys, [model.out_key, ("next", *state)])
        if type(model) is Gru and not model.compile:
            state = _key(model.hidden_state_name)
            self.states[state] = (model.n_layers, model.hidden_size)
            keys = [*(key for key in model.in_keys if key not in model.rnn_keys), state]
            return _step(OwnCells(model, self.agent), keys, [model.out_key, ("next", *state)])
        raise NotExportable(
            f"the network {type(model).__name__} of group '{self.group}' cannot be exported: it may need the "
            "observations of other agents, or is not known. Use model=layers/mlp, layers/cnn, "
            "layers/marl_td/gru or a sequence of them."
        )

    def _module(self, part: TensorDictModule) -> Step:
        module, out_keys = part.module, list(part.out_keys)
        if isinstance(module, GreedyAction):
            return _step(
                parts.BestAction(logits=False), part.in_keys, [*out_keys, (self.group, "scores")]
            )
        if not isinstance(module, ROW_WISE):
            raise unknown_part(self.group, module)
        return _step(own_copy(module, self.agent), part.in_keys, out_keys)

    def _head(self, head: ProbabilisticTensorDictModule) -> Step:
        kind = head.distribution_class
        if kind not in DISTRIBUTIONS:
            raise NotExportable(
                f"the policy of group '{self.group}' draws from a {kind.__name__}; known are "
                f"{', '.join(known.__name__ for known in DISTRIBUTIONS)}."
            )
        self.distribution = DISTRIBUTIONS[kind]
        action = head.out_keys[0]
        found = {
            name if isinstance(name, str) else name[-1]: key
            for name, key in zip(head.dist_keys, head.in_keys, strict=True)
        }
        if self.distribution == CATEGORICAL:
            keys = [found["logits"], *([found["mask"]] if "mask" in found else [])]
            return _step(parts.BestAction(logits=True), keys, [action, (self.group, "scores")])
        module: nn.Module = parts.Mean()
        if self.distribution == TANH_NORMAL:
            bounds = (head.distribution_kwargs[name] for name in ("low", "high"))
            module = parts.SquashedMean(*(own_bounds(bound, self.agent) for bound in bounds))
        keys = [found["loc"], found["scale"]]
        out = [action, *((self.group, f"drawn_{name}") for name in ("loc", "scale"))]
        return _step(module, keys, out)

    def _ensemble(self, part: SubPolicies) -> Iterator[Step]:
        """The member that evaluation plays; if that is drawn, all run, and an index says which counts."""
        if self.member is not None:
            yield from self.steps(part.members[self.member])
            return
        read = {_key(key) for key in part.in_keys}
        for number, member in enumerate(part.members):
            written: set[Key] = set()
            for step in self.steps(member):
                written.update(step.out_keys)
                keys = (
                    _renamed(keys, written - read, number) for keys in (step.in_keys, step.out_keys)
                )
                yield Step(step.module, *keys)
        for key in map(_key, part.selected):
            values = [_renamed([key], {key}, number)[0] for number in range(len(part.members))]
            yield _step(parts.Played(), [part.index_key, *values], [key])


def _renamed(keys: Iterable[Key], names: set[Key], number: int) -> tuple[Key, ...]:
    return tuple((*key, f"member_{number}") if key in names else key for key in keys)


def _key(key: NestedKey) -> Key:
    return (key,) if isinstance(key, str) else tuple(key)


def _step(module: nn.Module, in_keys: Iterable[NestedKey], out_keys: Iterable[NestedKey]) -> Step:
    return Step(module, tuple(map(_key, in_keys)), tuple(map(_key, out_keys)))
