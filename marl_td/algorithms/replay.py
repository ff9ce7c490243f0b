"""The one place that builds replay buffers: of collected batches, and of off-policy algorithms."""

from __future__ import annotations

from typing import Any

from torchrl.data import LazyMemmapStorage, LazyTensorStorage, Storage, TensorDictReplayBuffer
from torchrl.data.replay_buffers import RandomSampler, Sampler, SamplerWithoutReplacement
from torchrl.envs import Compose

from marl_td.collect.prioritised import ProportionalSampler


class EvenMinibatches(SamplerWithoutReplacement):
    """Divides each pass over the stored rows into ``n_minibatches``, whose sizes differ by one at most.

    Minibatches of one size, of which the last is cut short, can be fewer than were asked for: a pass would
    go on in the next, and read some rows twice.

    Args:
        n_minibatches: of a pass, at most as many as there are rows.
    """

    def __init__(self, n_minibatches: int) -> None:
        super().__init__()
        self.n_minibatches = n_minibatches

    def sample(self, storage: Storage, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """Indices of the next minibatch ``[k]``; ``batch_size`` is not read."""
        n_rows = len(storage)
        begun = self._sample_list is not None and self.len_storage == n_rows
        first = n_rows - len(self._sample_list) if begun else 0
        # Minibatch k has the rows from k n_rows / n_minibatches on, rounded down.
        number = -(-first * self.n_minibatches // max(1, n_rows))
        size = (number + 1) * n_rows // self.n_minibatches - first
        return super().sample(storage, size)


def row_length(settings: Any, on_policy: bool = True) -> int:
    """Steps that each environment makes in one collected batch."""
    n_frames = int(settings.collected_frames_per_batch(on_policy))
    return -(-n_frames // int(settings.n_envs_per_worker(on_policy)))


def batch_length(settings: Any, on_policy: bool) -> int:
    """Steps of all environments in one collected batch: as many as were asked for, or some more."""
    return int(settings.n_envs_per_worker(on_policy)) * row_length(settings, on_policy)


def count_minibatches(settings: Any) -> int:
    """Minibatches of one collected batch."""
    return -(-int(settings.train_batch_size(True)) // int(settings.train_minibatch_size(True)))


def batch_buffer(
    settings: Any, group: str, n_items: int, device: Any, transforms: Any = None
) -> TensorDictReplayBuffer:
    """Buffer of one collected batch of ``n_items`` steps, rows or chunks.

    A pass reads it in as many minibatches as ``settings`` asks for, or one for each item where that is fewer.
    """
    n_minibatches = min(count_minibatches(settings), n_items)
    return TensorDictReplayBuffer(
        storage=LazyTensorStorage(n_items, device=device),
        sampler=EvenMinibatches(n_minibatches),
        batch_size=-(-n_items // n_minibatches),  # of the largest
        priority_key=(group, "td_error"),
        transform=None if transforms is None else Compose(*transforms),
    )


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
