"""Fitting value tables to every transition of a small problem, many seeds in one program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from marl_td.losses.q_mixing import MixedQLoss
from marl_td.models.tables import TableNetworks, ValueTable
from marl_td.models.team import TeamNetworks

N_STEPS = 1000
TABLE_RATE, NETWORK_RATE = 3e-2, 3e-3
"""Free numbers travel to the scale of the payoff; a network takes such large steps badly: its units die."""
BETAS = (0.9, 0.99)
"""Adam's; with the usual 0.999 the large first gradients slow the last steps down."""
TARGET_INTERVAL = 20

MakeLoss = Callable[[TeamNetworks], MixedQLoss]
"""From what makes tables of free values and central networks to an algorithm's loss."""


def seeded_losses(
    make_loss: MakeLoss, seeds: Iterable[int], *, n_states: int, n_agents: int, n_actions: int
) -> list[MixedQLoss]:
    """One freshly initialised loss per seed; torch's global random stream is left as it was."""
    losses = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks = TableNetworks(n_states, n_agents, n_actions)
            losses.append(make_loss(networks))
    return losses


class _Objective(nn.Module):
    def __init__(self, loss: MixedQLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, batch: TensorDictBase) -> Tensor:
        values = self.loss.compute(batch)
        return torch.stack([values[name] for name in self.loss.networks()]).sum()


def fit(
    losses: Sequence[MixedQLoss],
    batch: TensorDictBase,
    *,
    n_steps: int = N_STEPS,
    on_step: Callable[[], object] | None = None,
    minibatches: Iterable[Tensor] | None = None,
    rate: float | None = None,
) -> Sequence[MixedQLoss]:
    """Minimise every loss on the same full batch, all of them in one program; in place.

    Adam with a rate that falls linearly to 0 in the second half: with a constant rate the last steps
    still jump by about the rate times the mixer's slope. Target networks are copied every 20 steps.

    Args:
        losses: of one kind, each with parameters of its own.
        batch: every transition once, ``[n_transitions]``.
        n_steps: optimiser steps.
        on_step: called after each step.
        minibatches: per step the transitions that each loss sees in it, ``[n_losses, size]`` int64; None:
            all of them see all.
        rate: a constant learning rate for all parameters, with the usual betas; None: as above.
    """
    objectives = [_Objective(loss) for loss in losses]
    parameters, buffers = stack_module_state(objectives)
    trained = {name: value.detach() for name, value in parameters.items() if value.requires_grad}
    frozen = {name: value.detach() for name, value in parameters.items() if name not in trained}
    seen = repeat(()) if minibatches is None else ((each,) for each in minibatches)
    first = next(seen)
    gradients = _traced_gradients(objectives[0], batch, trained, frozen, buffers, *first)
    targets = _target_names(objectives[0])
    optimiser = _adam(objectives[0], trained, rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, 2.0 * (1.0 - step / n_steps)) if rate is None else 1.0
    )
    for step, at in zip(range(n_steps), chain([first], seen), strict=False):
        found = gradients(trained, frozen, buffers, *at)
        for name, value in trained.items():
            value.grad = found[name]
        optimiser.step()
        schedule.step()
        if targets and step % TARGET_INTERVAL == 0:
            _copy_targets({**trained, **frozen}, targets)
        if on_step is not None:
            on_step()
    parameters = {**trained, **frozen}
    for i, objective in enumerate(objectives):
        objective.load_state_dict(
            {name: value[i] for name, value in parameters.items()}, strict=False
        )
    return losses


def _traced_gradients(
    objective: _Objective, batch: TensorDictBase, *stacked: Any
) -> Callable[..., dict[str, Tensor]]:
    """A function from the stacked ``trained``, ``frozen``, ``buffers`` to the gradients of ``trained``.

    It also takes the transitions that are seen, ``[n_losses, size]``, if it is made with some.

    It is the list of tensor operations of one call: without the Python around them a step of such small
    networks takes half the time or less.
    """

    def loss(
        trained: dict[str, Tensor],
        frozen: dict[str, Tensor],
        buffers: dict[str, Tensor],
        *seen: Tensor,
    ) -> Tensor:
        data = batch[seen[0]] if seen else batch
        value: Tensor = functional_call(objective, ({**trained, **frozen}, buffers), (data,))
        return value

    each = vmap(grad(loss), randomness="different")
    traced: Callable[..., dict[str, Tensor]] = make_fx(each)(*stacked)
    return traced


def _adam(
    objective: _Objective, trained: dict[str, Tensor], rate: float | None
) -> torch.optim.Adam:
    """The optimiser of the stacked parameters."""
    if rate is not None:
        return torch.optim.Adam(trained.values(), lr=rate, fused=True)
    tables = {
        f"{prefix}.{name}"
        for prefix, module in objective.named_modules()
        if isinstance(module, ValueTable) and module.out_keys[0][-1] == "action_value"
        for name, _ in module.named_parameters()
    }
    groups = [
        {"params": [v for k, v in trained.items() if k in tables], "lr": TABLE_RATE},
        {"params": [v for k, v in trained.items() if k not in tables], "lr": NETWORK_RATE},
    ]
    return torch.optim.Adam([g for g in groups if g["params"]], betas=BETAS, fused=True)


def _target_names(objective: _Objective) -> list[tuple[str, str]]:
    """Names of every parameter that has a target, and of that target."""
    names = {id(value): name for name, value in objective.named_parameters()}
    return [
        (names[id(source)], names[id(target)])
        for pair in objective.loss.target_pairs()
        for source, target in zip(pair[0].parameters(), pair[1].parameters(), strict=True)
    ]


@torch.no_grad()
def _copy_targets(parameters: dict[str, Any], names: list[tuple[str, str]]) -> None:
    sources = [parameters[source] for source, _ in names]
    torch._foreach_copy_([parameters[target] for _, target in names], sources)
