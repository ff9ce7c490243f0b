"""Returns as the sums they are defined by."""

from __future__ import annotations

import torch


def lambda_returns(steps: dict[str, torch.Tensor], gamma: float, lmbda: float) -> torch.Tensor:
    """lambda-returns of one trajectory ``[T]`` as the weighted sum of n-step returns they are defined by."""
    n_steps = len(steps["reward"])
    out = torch.zeros(n_steps, dtype=torch.float64)
    for t in range(n_steps):
        n_step, discount, weight, total = 0.0, 1.0, 1.0, 0.0
        for k in range(t, n_steps):
            n_step += discount * steps["reward"][k]
            discount *= gamma
            bootstrap = 0.0 if steps["terminated"][k] else discount * steps["next_value"][k]
            last = bool(steps["done"][k]) or k == n_steps - 1
            share = weight if last else weight * (1.0 - lmbda)
            total += share * (n_step + bootstrap)
            weight *= lmbda
            if last:
                break
        out[t] = total
    return out
