"""Fitting value tables to every transition of a small problem, many seeds in one program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from marl_td.losses.qmix import QMixingLoss
from marl_td.models.tables import ValueTable

N_STEPS = 1000
LEARNING_RATE = 3e-2
BETAS = (0.9, 0.99)
"""Adam's; with the usual 0.999 the large first gradients slow the last steps down."""
TARGET_INTERVAL = 20

MakeLoss = Callable[[ValueTable, int, int], QMixingLoss]
"""From free values, number of agents and number of states to an algorithm's loss."""


def seeded_losses(
    make_loss: MakeLoss, seeds: Iterable[int], *, n_states: int, n_agents: int, n_actions: int
) -> list[QMixingLoss]:
    """One freshly initialised loss per seed; torch's global random stream is left as it was."""
    losses = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            table = ValueTable(n_states, n_agents, n_actions)
            losses.append(make_loss(table, n_agents, n_states))
    return losses


class _Objective(nn.Module):
    def __init__(self, loss: QMixingLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, batch: TensorDictBase) -> Tensor:
        return self.loss.compute(batch)["loss_value"]


def fit(
    losses: Sequence[QMixingLoss],
    batch: TensorDictBase,
    *,
    n_steps: int = N_STEPS,
    on_step: Callable[[], object] | None = None,
) -> Sequence[QMixingLoss]:
    """Minimise every loss on the same full batch, all of them in one program; in place.

    Adam with a rate that falls linearly to 0 in the second half: with a constant rate the last steps
    still jump by about the rate times the mixer's slope. Target networks are copied every 20 steps.
    """
    objectives = [_Objective(loss) for loss in losses]
    parameters, buffers = stack_module_state(objectives)
    each = vmap(lambda p, b: functional_call(objectives[0], (p, b), (batch,)))
    trained = [value for value in parameters.values() if value.requires_grad]
    targets = _target_names(objectives[0])
    optimiser = torch.optim.Adam(trained, lr=LEARNING_RATE, betas=BETAS, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, 2.0 * (1.0 - step / n_steps))
    )
    for step in range(n_steps):
        each(parameters, buffers).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        if step % TARGET_INTERVAL == 0:
            _copy_targets(parameters, targets)
        if on_step is not None:
            on_step()
    for i, objective in enumerate(objectives):
        objective.load_state_dict(
            {name: value[i] for name, value in parameters.items()}, strict=False
        )
    return losses


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
