"""What happens when numbers stop being finite: the run stops with a diagnosis, or leaves that step out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from marl_td.training.diagnosis import (
    DIAGNOSIS_FOLDER,
    Problem,
    batch_problem,
    gradient_problem,
    write_diagnosis,
)

MOST_IN_A_ROW = 20
"""Iterations in a row of which something was left out: then the run stops all the same."""
REMEDY = {
    "loss": "Lower experiment.lr, or set experiment.clip_grad_val.",
    "gradient": "Lower experiment.lr, or set experiment.clip_grad_val.",
}
LOOK = (
    "Look at what the environment gives there, or lower experiment.lr if it is what a network gave."
)


class Guard:
    """Looks at an experiment's numbers: once per collected batch, and at what is optimised.

    Args:
        experiment: a :class:`~marl_td.training.experiment.Experiment`; its setting ``on_nonfinite`` decides.
    """

    def __init__(self, experiment: Any) -> None:
        self.experiment = experiment
        self.skips = getattr(experiment.config, "on_nonfinite", "stop") == "skip"
        self.n_skipped = 0
        self._in_a_row = 0

    def begin(self) -> None:
        """A new iteration."""
        self._in_a_row = self._in_a_row + 1 if self.n_skipped else 0
        self.n_skipped = 0

    def takes_batch(self, batch: TensorDictBase) -> bool:
        """Whether the collected batch ``[n_envs, T]`` may be learned from; raises if the run is to stop."""
        problem = batch_problem(batch, self.experiment.group_map)
        if problem is not None:
            self._meet(problem, None, batch)
        return problem is None

    def takes_step(
        self, group: str, name: str, loss: Tensor, norm: float, minibatch: TensorDictBase
    ) -> bool:
        """Whether an optimiser may step; raises if the run is to stop, before anything has changed.

        Args:
            group: whose optimiser it is.
            name: of the loss.
            loss: its value, ``[]``.
            norm: of its gradient.
            minibatch: what it was computed on.
        """
        agents = self.experiment.group_map[group]
        if not math.isfinite(norm):
            parameters = self.experiment.losses[group].named_parameters()
            self._meet(gradient_problem(name, parameters, agents), group, minibatch)
        elif not math.isfinite(float(loss.detach())):
            self._meet(Problem(name, "loss", agents), group, minibatch)
        else:
            return True
        return False

    def took_steps(self, group: str, metrics: TensorDictBase, minibatch: TensorDictBase) -> bool:
        """Whether a loss that moves networks by itself took all those steps; raises if the run is to stop.

        It leaves out those whose gradients are not finite, and says so by the norm in its ``metrics``.
        """
        norms = {n: v for n, v in metrics.items() if n.startswith("grad_norm_")}
        bad = [name for name, value in norms.items() if not math.isfinite(float(value))]
        for name in bad:
            agents = self.experiment.group_map[group]
            self._meet(
                Problem(name.removeprefix("grad_norm_"), "gradient", agents), group, minibatch
            )
        return not bad

    def check_training(self, group: str, training: TensorDictBase, batch: TensorDictBase) -> None:
        """Stop on losses and gradients of an iteration that are not finite; one look at the device."""
        watched = {n: v for n, v in training.items() if n.startswith(("loss", "grad_norm_"))}
        if not watched or training.numel() == 0:
            return
        fine = torch.stack([value.isfinite().all() for value in watched.values()]).tolist()
        bad = [name for name, is_fine in zip(watched, fine, strict=True) if not is_fine]
        if bad:
            losses = [name for name in bad if name.startswith("loss")]
            name = (losses or bad)[0].removeprefix("grad_norm_")
            agents = self.experiment.group_map[group]
            kind = "loss" if losses else "gradient"
            self._meet(Problem(name, kind, agents), group, batch)

    def without_skipped(self, training: TensorDictBase) -> TensorDictBase:
        """The metrics ``[n_updates]`` of the updates that were made, where compiled ones leave some out."""
        if not self.skips:
            return training
        told = [v for n, v in training.items() if n.startswith(("loss", "grad_norm_"))]
        made = torch.stack(told).isfinite().all(0)
        n_left_out = int((~made).sum())
        self.n_skipped += n_left_out
        return training[made] if n_left_out else training

    def _meet(self, problem: Problem, group: str | None, data: TensorDictBase) -> None:
        """Stop the run, or count what is left out.

        Raises:
            FloatingPointError: if the run is to stop, or too much was left out in a row.
        """
        self.n_skipped += 1
        experiment = self.experiment
        step, frames = experiment.n_iters_performed, experiment.total_frames
        whose = ", ".join(problem.agents)
        text = (
            f"the {problem.kind} '{problem.name}' is no longer finite in iteration {step} ({frames} frames; "
            f"{whose})"
        )
        if self.n_skipped == 1:
            place = self._write(problem, group, data)
            text += f"; see {place}"
            if self.skips and self._in_a_row < MOST_IN_A_ROW:
                experiment.history.say(frames, f"{text}; left out.")
        if self.skips and self._in_a_row < MOST_IN_A_ROW:
            return
        too_many = f" {MOST_IN_A_ROW} iterations in a row had such numbers." * self.skips
        raise FloatingPointError(
            f"{text}; {experiment.history.kept()}.{too_many} {REMEDY.get(problem.kind, LOOK)}"
        )

    def _write(self, problem: Problem, group: str | None, data: TensorDictBase) -> Path:
        experiment = self.experiment
        folder = experiment.folder_name / DIAGNOSIS_FOLDER / f"frames_{experiment.total_frames}"
        facts = {
            "group": group,
            "iteration": experiment.n_iters_performed,
            "total_frames": experiment.total_frames,
        }
        try:
            return write_diagnosis(folder, problem, data, **facts)
        except OSError:  # a full disk must not hide the message
            return folder
