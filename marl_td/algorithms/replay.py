"""The one place that builds the replay buffers of off-policy algorithms."""

from __future__ import annotations

from typing import Any

from torchrl.data import LazyMemmapStorage, LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers import RandomSampler, Sampler
from torchrl.envs import Compose

from marl_td.collect.prioritised import ProportionalSampler


def replay_buffer(
    algorithm: Any,
    group: str,
    *,
    item_length: int = 1,
    buffer_class: type[TensorDictReplayBuffer] = TensorDictReplayBuffer,
    transforms: Any = None,
    **options: Any,
) -> TensorDictReplayBuffer:
    """A buffer of items of ``item_length`` steps each, sampled uniformly or by priority.

    The experiment's sizes count steps. Priorities are what the losses write for each item, whatever that is.

    Args:
        algorithm: whose settings are used.
        group: whose data it is for.
        item_length: steps in an item: 1, the length of a row or window, or an episode's time limit.
        buffer_class: what takes the collected data apart into items.
        transforms: applied to what is sampled.
        options: for ``buffer_class``.
    """
    settings = algorithm.experiment_config
    n_stored = -(-settings.replay_buffer_memory_size(False) // item_length)
    n_sampled = -(-settings.train_minibatch_size(False) // item_length)
    return buffer_class(
        storage=_storage(algorithm, group, n_stored),
        sampler=_sampler(algorithm, n_stored),
        batch_size=n_sampled,
        priority_key=(group, "priority"),
        transform=None if transforms is None else Compose(*transforms),
        **options,
    )


def _storage(algorithm: Any, group: str, n_stored: int) -> LazyTensorStorage:
    if algorithm.buffer_device != "disk":
        return LazyTensorStorage(n_stored, device=algorithm.buffer_device)
    folder = algorithm.experiment.folder_name / f"buffer_{group}"
    return LazyMemmapStorage(n_stored, device=algorithm.device, scratch_dir=folder)


def _sampler(algorithm: Any, n_stored: int) -> Sampler:
    """By priority with importance weights that are exact at the end of the run, or uniform."""
    settings = algorithm.experiment_config
    if not settings.off_policy_use_prioritized_replay_buffer:
        return RandomSampler()
    return ProportionalSampler(
        n_stored,
        settings.off_policy_prb_alpha,
        settings.off_policy_prb_beta,
        beta_end=algorithm.config.priority_beta_end,
        n_anneal=settings.get_max_n_iters(False) * settings.n_optimizer_steps(False),
        device="cpu" if algorithm.buffer_device == "disk" else algorithm.buffer_device,
    )
