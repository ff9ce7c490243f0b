"""Training sequences of recurrent networks on fresh data: where they start, how rows are cut into chunks."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.data import TensorDictReplayBuffer

from marl_td.algorithms.replay import batch_buffer, count_minibatches, row_length
from marl_td.losses.entries import next_key


def state_keys(network: nn.Module) -> list[NestedKey]:
    """Keys of the hidden states that the parts of ``network`` keep with the data."""
    return [module.state_key for module in network.modules() if hasattr(module, "state_key")]


class Memory:
    """What goes on from one collected batch ``[n_envs, T]`` to the next.

    The critic is not run while data is collected: its state at the end of a row is where the same
    environment's next row starts. Where data lacks ``"is_init"``, that is kept too.

    Args:
        critic_states: keys of the critic's hidden state.
    """

    def __init__(self, critic_states: list[NestedKey]) -> None:
        self.critic_states = critic_states
        self.last: dict[NestedKey, Tensor] = {}

    def begin(self, batch: TensorDictBase) -> None:
        """Put ``"is_init"`` and the critic's start states into ``batch``."""
        n_envs, n_steps = batch.batch_size
        if "is_init" not in batch.keys():
            done = batch.get(("next", "done"))
            first = self.last.get("done", torch.ones_like(done[:, -1]))
            batch.set("is_init", torch.cat([first.unsqueeze(1), done[:, :-1]], dim=1))
            self.last["done"] = done[:, -1].clone()
        for key in self.critic_states:
            start = self.last.get(key)
            if start is not None and start.shape[0] == n_envs:
                batch.set(key, start.unsqueeze(1).expand(n_envs, n_steps, *start.shape[1:]))

    def snapshot(self) -> list[Any]:
        """What goes on, by key."""
        return [[key, value] for key, value in self.last.items()]

    def restore(self, state: list[Any], device: Any) -> None:
        """Go on from what :meth:`snapshot` gave."""
        self.last = {key: value.to(device) for key, value in state}

    def end(self, batch: TensorDictBase) -> None:
        """Remember the critic's states after the last steps."""
        for key in self.critic_states:
            self.last[key] = batch.get(next_key(key))[:, -1].clone()


def chunk(batch: TensorDictBase, length: int) -> TensorDictBase:
    """Cut rows ``[n_envs, T]`` into ``[n_envs * ceil(T / length), length]``.

    The last chunk of a row is filled up with copies of its last step; ``"step_mask"`` ``[..., 1]`` is true
    on real steps.
    """
    n_envs, n_steps = batch.batch_size
    n_chunks = -(-n_steps // length)
    index = torch.arange(n_chunks * length, device=batch.device)
    real = (index < n_steps).unsqueeze(-1).expand(n_envs, -1, 1)
    filled = batch[:, index.clamp(max=n_steps - 1)].set("step_mask", real)
    return filled.reshape(n_envs * n_chunks, length)


def chunk_buffer(
    settings: Any, group: str, length: int, device: Any, transforms: Any = None
) -> TensorDictReplayBuffer:
    """Buffer of one collected batch as chunks, in as many minibatches as ``settings`` asks for.

    Raises:
        ValueError: if there are fewer chunks than minibatches.
    """
    n_chunks = int(settings.n_envs_per_worker(True)) * -(-row_length(settings) // length)
    n_minibatches = count_minibatches(settings)
    if n_minibatches > n_chunks:
        n_frames, size = settings.train_batch_size(True), settings.train_minibatch_size(True)
        raise ValueError(
            f"experiment.on_policy_minibatch_size={size} makes {n_minibatches} minibatches of {n_frames} "
            f"frames, but these are only {n_chunks} sequences of {length} steps, and a minibatch holds whole "
            f"ones. Set experiment.on_policy_minibatch_size={-(-n_frames // n_chunks)} or more, or a smaller "
            "chunk_length."
        )
    return batch_buffer(settings, group, n_chunks, device, transforms)


class Chunks:
    """Mixin of the algorithms on fresh data: cuts recurrent rows into chunks of ``chunk_length`` steps."""

    config: Any
    device: Any
    experiment_config: Any
    has_rnn: bool

    def idle_settings(self) -> dict[str, str]:
        """Nothing is cut into chunks for networks without memory."""
        idle: dict[str, str] = super().idle_settings()  # type: ignore[misc]
        if not self.has_rnn:
            idle["chunk_length"] = "no network is recurrent"
        return idle

    @property
    def has_chunks(self) -> bool:
        """Whether rows are cut."""
        return self.has_rnn and self.config.chunk_length > 0

    def cut(self, batch: TensorDictBase) -> TensorDictBase:
        """Rows ``[n_envs, T]`` as they are, or in chunks."""
        return chunk(batch, self.config.chunk_length) if self.has_chunks else batch

    def get_replay_buffer(self, group: str, transforms: Any = None) -> TensorDictReplayBuffer:
        """BenchMARL's buffer, or one that holds sequences: chunks, or whole rows.

        BenchMARL's holds rows too where there are fewer of them than minibatches, as with its defaults: each
        minibatch is one row then.
        """
        settings = self.experiment_config
        n_rows = settings.n_envs_per_worker(True)
        length = self.config.chunk_length or row_length(settings)
        if self.has_chunks or (self.has_rnn and count_minibatches(settings) <= n_rows):
            return chunk_buffer(settings, group, length, self.device, transforms)
        return super().get_replay_buffer(group, transforms)  # type: ignore[misc]
