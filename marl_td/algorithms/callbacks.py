"""Callbacks that our algorithms add to an unchanged BenchMARL experiment."""

from __future__ import annotations

from typing import Any

import torch
from benchmarl.experiment.callback import Callback
from tensordict import TensorDictBase
from tensordict.utils import NestedKey

from marl_td.losses.targets import TargetUpdater
from marl_td.signals import join_groups


def add_callback(experiment: Any, callback: Callback) -> None:
    """Add ``callback`` to a running set-up, once per class; it is not pickled with the experiment."""
    if any(type(known) is type(callback) for known in experiment.callbacks):
        return
    callback.experiment = experiment
    experiment.callbacks = [*experiment.callbacks, callback]


class DelayedSteps(Callback):
    """Makes the optimisers of delayed losses (``loss.delays``) step at every so-manieth step only.

    BenchMARL calls all of them each time. One that finds no gradients changes nothing: no parameters, no
    momentum, not its count of steps. Actors and targets that move together count the same steps: those of the
    group's target updater. A resumed run goes on in the same place of the period.
    """

    def on_setup(self) -> None:
        """Put the hooks on the optimisers.

        Raises:
            ValueError: if a loss has delays and no target networks, with whose moves they are counted.
        """
        for group, loss in self.experiment.losses.items():
            for name, period in getattr(loss, "delays", {}).items():
                updater = self.experiment.target_updaters[group]
                if updater is None:
                    raise ValueError(
                        f"{type(loss).__name__} delays '{name}' but has no target networks; delays are "
                        "counted with their moves."
                    )
                hook = _EveryNth(period, updater)
                self.experiment.optimizers[group][name].register_step_pre_hook(hook)

    def on_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Add the number of steps so far, which BenchMARL does not keep."""
        state_dict["target_steps"] = {
            group: self.experiment.target_updaters[group].n_steps for group in self._delaying()
        }

    def on_load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting from there."""
        for group, n_steps in state_dict.get("target_steps", {}).items():
            self.experiment.target_updaters[group].n_steps = n_steps

    def _delaying(self) -> list[str]:
        """The groups whose losses have delays."""
        return [g for g, loss in self.experiment.losses.items() if getattr(loss, "delays", {})]


class _EveryNth:
    """Drops an optimiser's gradients in all but every ``period``-th step of the target updater.

    It counts no calls: trainers that leave a step out may not call the optimiser at all.
    """

    def __init__(self, period: int, updater: TargetUpdater) -> None:
        self.period = period
        self.updater = updater

    def __call__(self, optimiser: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if (self.updater.n_steps + 1) % self.period:  # targets move after the optimisers
            optimiser.zero_grad(set_to_none=True)


class JointKeys(Callback):
    """Keeps every group's observations and actions in the data of every other group.

    BenchMARL hands each group a batch without the other groups. Central critics over all groups of the
    environment read ``("joint", group, ...)`` and the same under ``"next"``: each group's observation,
    action, action mask, (recurrent policies) hidden state and what else the algorithm names,
    ``[n_envs, T, n_agents, ...]``. These root keys survive into every group's replay.
    """

    def on_batch_collected(self, batch: TensorDictBase) -> None:
        """Copy the kept entries of each group below ``"joint"``."""
        join_groups(batch, {group: self._kept(group) for group in self.experiment.group_map})

    def _kept(self, group: str) -> list[NestedKey]:
        """What the group's policy and the critics read of it."""
        algorithm = self.experiment.algorithm
        read = algorithm.get_policy_for_loss(group).in_keys
        own = [key[1:] for key in read if isinstance(key, tuple) and key[0] == group]
        seen = self.experiment.observation_spec[group].keys()
        members = getattr(algorithm, "algorithms_map", {group: algorithm}).values()
        named = {name for member in members for name in getattr(member, "joint_entries", ())}
        return [*seen, *own, "action", *sorted(named)]
