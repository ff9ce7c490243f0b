"""Callbacks that our algorithms add to an unchanged BenchMARL experiment."""

from __future__ import annotations

from typing import Any

from benchmarl.experiment.callback import Callback
from tensordict import TensorDict, TensorDictBase


def add_callback(experiment: Any, callback: Callback) -> None:
    """Add ``callback`` to a running set-up, once per class; it is not pickled with the experiment."""
    if any(type(known) is type(callback) for known in experiment.callbacks):
        return
    callback.experiment = experiment
    experiment.callbacks = [*experiment.callbacks, callback]


class JointKeys(Callback):
    """Keeps every group's observations and actions in the data of every other group.

    BenchMARL hands each group a batch without the other groups. Central critics over all groups of the
    environment read ``("joint", group, "observation" | "action" | "action_mask")`` and the same under
    ``"next"``, each ``[n_envs, T, n_agents, ...]``; these root keys survive into every group's replay.
    """

    def on_batch_collected(self, batch: TensorDictBase) -> None:
        """Copy the kept entries of each group below ``"joint"``."""
        for source in (batch, batch.get("next")):
            joint = TensorDict({}, batch_size=batch.batch_size, device=batch.device)
            for group in self.experiment.group_map:
                kept = [*self.experiment.observation_spec[group].keys(), "action", "action_mask"]
                joint.set(group, source.get(group).select(*kept, strict=False))
            source.set("joint", joint)
