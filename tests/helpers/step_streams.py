"""Collected steps whose place in their episodes can be read from a number."""

from __future__ import annotations

import torch
from tensordict import TensorDict


def stream(lengths: list[list[int]], n_steps: int) -> TensorDict:
    """Consecutive steps ``[n_envs, n_steps]``; ``"x"`` is 10000 environment + 100 episode + step."""
    columns = []
    for env, episodes in enumerate(lengths):
        steps = [(env, i, t, n) for i, n in enumerate(episodes) for t in range(n)][:n_steps]
        columns.append([(t == 0, t == n - 1, 10_000 * e + 100 * i + t) for e, i, t, n in steps])
    init, done, x = (torch.tensor([[s[k] for s in c] for c in columns]) for k in range(3))
    shape = [len(lengths), n_steps]
    after = TensorDict({"done": done.unsqueeze(-1)}, shape)
    return TensorDict({"is_init": init.unsqueeze(-1), "x": x, "next": after}, shape)
