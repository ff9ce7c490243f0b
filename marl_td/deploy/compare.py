"""The forms of an actor, and how far their outputs are from the training policy's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from marl_td.deploy.agents import AgentExport
from marl_td.deploy.golden import TOLERANCE, largest_difference
from marl_td.deploy.programs import export_program, onnx_bytes, program_bytes, run_program
from marl_td.deploy.samples import of_agent, policy_outputs, random_inputs
from marl_td.deploy.session import onnx_session
from marl_td.deploy.signature import Array
from marl_td.deploy.source import PolicySource

BATCHES = (7, 1)
"""Sizes of the compared batches; the first is the one that is stored."""
SEED = 7


@dataclass(frozen=True)
class Difference:
    """Largest difference to the training policy's outputs, of each form of an actor.

    Args:
        eager: the actor as a torch module.
        program: the ``torch.export`` program.
        onnx: ONNX Runtime.
    """

    eager: float = 0.0
    program: float = 0.0
    onnx: float = 0.0


@dataclass(frozen=True)
class ActorForms:
    """An actor as files, and ready to run.

    Args:
        onnx: the ONNX file.
        program: the ``.pt2`` file.
        session: ONNX Runtime's session of the first.
        module: what the second runs.
    """

    onnx: bytes
    program: bytes
    session: Any
    module: Any


def actor_forms(source: PolicySource, agent: AgentExport) -> ActorForms:
    """Export one actor; both forms are loaded from the bytes that a bundle will hold.

    Raises:
        ImportError: without the packages of the extra ``export``.
    """
    example = example_inputs(source, agent, group_inputs(source, agent, BATCHES[0]))
    exported = export_program(agent.actor, example)
    onnx = onnx_bytes(exported, list(agent.actor.inputs), list(agent.actor.outputs))
    program = program_bytes(exported)
    return ActorForms(onnx, program, onnx_session(onnx, threads=1), load_program(program))


def load_program(data: bytes) -> Any:
    """The module of a ``.pt2`` file: from inputs by name to outputs by name."""
    import io

    return torch.export.load(io.BytesIO(data)).module()


def golden_case(
    source: PolicySource, agent: AgentExport, forms: ActorForms
) -> tuple[Difference, dict[str, Array]]:
    """Differences over random inputs, and the inputs and the training policy's outputs to be stored.

    All agents get inputs of their own: what another one sees must not matter.

    Raises:
        ValueError: if a difference is above 1e-5, or the training policy gives numbers that are not finite.
    """
    worst: Difference | None = None
    stored: dict[str, Array] = {}
    for batch in BATCHES:
        every = group_inputs(source, agent, batch)
        inputs = example_inputs(source, agent, every)
        expected = expected_outputs(source, agent, every)
        _require_finite(agent.name, expected)
        arrays = {name: value.numpy() for name, value in inputs.items()}
        names = list(expected)
        onnx = dict(zip(names, forms.session.run(names, arrays), strict=True))
        found = Difference(
            eager=_difference(run_program(agent.actor, inputs), expected),
            program=_difference(run_program(forms.module, inputs), expected),
            onnx=_difference(onnx, expected),
        )
        worst = largest(worst, found)
        if not stored:
            stored = {f"{agent.name}/in/{name}": value for name, value in arrays.items()}
            stored |= {f"{agent.name}/out/{name}": v.numpy() for name, v in expected.items()}
    result = worst or Difference()
    for field in fields(result):
        value = getattr(result, field.name)
        if not value <= TOLERANCE:
            raise ValueError(
                f"the {field.name} form of the actor of agent '{agent.name}' differs by {value:.3g} from the "
                f"training policy (at most {TOLERANCE:g}): nothing was written. This is a bug of the "
                "exporter, or the policy's outputs are so large that single precision cannot tell."
            )
    return result, stored


def _require_finite(agent: str, expected: Mapping[str, Tensor]) -> None:
    for name, value in expected.items():
        if not value.isfinite().all():
            raise ValueError(
                f"the training policy gives agent '{agent}' numbers that are not finite in '{name}': nothing "
                "was written. Training went wrong: train again."
            )


def expected_outputs(
    source: PolicySource, agent: AgentExport, inputs: TensorDict
) -> dict[str, Tensor]:
    """What the training policy gives for this agent, by the actor's output names."""
    group, index = agent.signature.group, agent.signature.index
    names = agent.actor.outputs
    every = policy_outputs(source.policies[group], inputs, names, group)
    return of_agent(every, names, group, index)


def largest(first: Difference | None, second: Difference) -> Difference:
    """The larger of two differences, form by form."""
    if first is None:
        return second
    both = {f.name: max(getattr(first, f.name), getattr(second, f.name)) for f in fields(second)}
    return Difference(**both)


def group_inputs(source: PolicySource, agent: AgentExport, batch: int) -> TensorDict:
    """Random inputs of the agent's whole group: observations, and hidden states where there are any."""
    generator = torch.Generator().manual_seed(SEED + batch)
    group = agent.signature.group
    read = {key: spec for key, spec in source.specs.items() if key[0] == group or len(key) == 1}
    out = random_inputs(read, batch, generator)
    if "is_init" in out.keys():  # it would put hidden states back to zero
        out.set("is_init", torch.zeros_like(out.get("is_init")))
    n_agents = len(source.group_map[group])
    for entry in agent.signature.state:
        key = agent.actor.inputs[entry.name]
        if key not in read:
            shape = (batch, n_agents, *entry.shape)
            out.set(key, torch.randn(shape, generator=generator))
    return out


def example_inputs(
    source: PolicySource, agent: AgentExport, inputs: TensorDict
) -> dict[str, Tensor]:
    """The agent's part of them, by the actor's input names."""
    keys = agent.actor.inputs
    values = {name: inputs.get(key) for name, key in keys.items()}
    own = of_agent(values, keys, agent.signature.group, agent.signature.index)
    return {name: value.contiguous() for name, value in own.items()}


def _difference(found: Mapping[str, Any], expected: Mapping[str, Tensor]) -> float:
    return largest_difference(
        {name: torch.as_tensor(value).numpy() for name, value in found.items()},
        {name: value.numpy() for name, value in expected.items()},
    )
