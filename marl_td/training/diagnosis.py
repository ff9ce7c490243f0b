"""What is kept of numbers that are not finite: where they are, whose they are, and the data around them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.algorithms.checks import nonfinite_entry
from marl_td.collect.nested import as_path, entries_of
from marl_td.training.files import write_atomic
from marl_td.training.tensor_files import save_tensors

DIAGNOSIS_FOLDER = "diagnosis"
MOST_ROWS = 256


@dataclass
class Problem:
    """A tensor that is not finite."""

    name: str
    """Of the entry, loss or gradient."""
    kind: str
    """``"entry of the collected batch"``, ``"loss"`` or ``"gradient"``."""
    agents: list[str]
    """Whose it is; of an entry, at the first step where it is not finite."""
    where: list[list[int]] = field(default_factory=list)
    """Places in the batch at that step, ``[environment, step]``."""
    parameters: list[str] = field(default_factory=list)
    """Parameters whose gradients are not finite."""


def batch_problem(batch: TensorDictBase, group_map: dict[str, list[str]]) -> Problem | None:
    """The first entry of a collected batch ``[n_envs, T]`` that is not finite; None if there is none."""
    key = nonfinite_entry(batch)
    if key is None:
        return None
    value, path = batch.get(key), as_path(key)
    bad = (~value.isfinite()).nonzero()
    bad = bad[bad[:, batch.ndim - 1].argsort(stable=True)]
    first = bad[
        bad[:, batch.ndim - 1] == bad[0, batch.ndim - 1]
    ]  # later ones may only follow from them
    groups = [part for part in path if part in group_map]
    agents = [agent for names in group_map.values() for agent in names]
    if groups and value.ndim > batch.ndim:
        names = group_map[groups[-1]]
        seats = first[:, batch.ndim].unique().tolist()
        agents = [names[seat] for seat in seats] if value.shape[batch.ndim] == len(names) else names
    places = first[:, : batch.ndim].unique(dim=0)[:MOST_ROWS].tolist()
    return Problem(".".join(path), "entry of the collected batch", agents, places)


def gradient_problem(name: str, named: Iterable[tuple[str, Tensor]], agents: list[str]) -> Problem:
    """What is known of a loss whose gradient is not finite.

    Args:
        name: of the loss.
        named: the loss module's parameters by name, with their gradients.
        agents: of the group; where parameters are stacked by agent, those of the bad rows are meant.
    """
    names, rows = [], []
    for parameter, tensor in named:
        gradient = tensor.grad
        if gradient is None or bool(gradient.isfinite().all()):
            continue
        names.append(parameter)
        stacked = gradient.ndim > 1 and gradient.shape[0] == len(agents)
        seats = (~gradient.isfinite()).flatten(1).any(1) if stacked else torch.ones(len(agents))
        rows.append(seats.bool().cpu())
    hit = torch.stack(rows).any(0).tolist() if rows else [True] * len(agents)
    concerned = [agent for agent, bad in zip(agents, hit, strict=True) if bad]
    return Problem(name, "gradient", concerned, parameters=names)


def write_diagnosis(
    folder: Path, problem: Problem, data: TensorDictBase | None, **facts: Any
) -> Path:
    """Write ``report.json`` and the rows of ``data`` around the problem (``rows.safetensors``).

    Args:
        folder: made; of this diagnosis alone.
        problem: what is not finite.
        data: the collected batch ``[n_envs, T]``, or the minibatch; rows with numbers that are not finite,
            or the first ones if there are none.
        facts: said in the report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = {**asdict(problem), **facts}
    if data is not None:
        rows = data.reshape(-1)
        entries = entries_of(rows)
        bad = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        for value in entries.values():
            if value.is_floating_point() and value.numel():
                bad |= ~value.isfinite().flatten(1).all(1) if value.ndim > 1 else ~value.isfinite()
        chosen = bad.nonzero().squeeze(-1) if bool(bad.any()) else torch.arange(len(rows))
        chosen = chosen[:MOST_ROWS].to(bad.device)
        report["rows"] = chosen.tolist()
        kept = {".".join(path): value[chosen] for path, value in entries.items()}
        save_tensors(folder / "rows.safetensors", kept)
    write_atomic(folder / "report.json", json.dumps(report, indent=2).encode())
    return folder
