"""Training sequences of recurrent networks on fresh data: where they start, how rows are cut into chunks."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers import SamplerWithoutReplacement
from torchrl.envs import Compose

from marl_td.losses.common import next_key


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
    """Buffer of one collected batch as chunks, in as many equal minibatches as ``settings`` asks for."""
    n_envs = settings.n_envs_per_worker(True)
    n_steps = -(-settings.collected_frames_per_batch(True) // n_envs)
    n_chunks = n_envs * -(-n_steps // length)
    n_minibatches = -(-settings.train_batch_size(True) // settings.train_minibatch_size(True))
    return TensorDictReplayBuffer(
        storage=LazyTensorStorage(n_chunks, device=device),
        sampler=SamplerWithoutReplacement(),
        batch_size=-(-n_chunks // n_minibatches),
        priority_key=(group, "td_error"),
        transform=None if transforms is None else Compose(*transforms),
    )


class Chunks:
    """Mixin of the algorithms on fresh data: cuts recurrent rows into chunks of ``chunk_length`` steps."""

    config: Any
    device: Any
    experiment_config: Any
    has_rnn: bool

    @property
    def has_chunks(self) -> bool:
        """Whether rows are cut."""
        return self.has_rnn and self.config.chunk_length > 0

    def cut(self, batch: TensorDictBase) -> TensorDictBase:
        """Rows ``[n_envs, T]`` as they are, or in chunks."""
        return chunk(batch, self.config.chunk_length) if self.has_chunks else batch

    def get_replay_buffer(self, group: str, transforms: Any = None) -> TensorDictReplayBuffer:
        """BenchMARL's buffer, or one that holds chunks."""
        if not self.has_chunks:
            return super().get_replay_buffer(group, transforms)  # type: ignore[misc]
        length = self.config.chunk_length
        return chunk_buffer(self.experiment_config, group, length, self.device, transforms)
