"""Random boxes cut by half-spaces, and the projection onto them by SciPy's general solver."""

import numpy as np
from scipy.optimize import minimize

from marl_td.tasks.shield.projection import Block


def random_set(rng, n_blocks):
    """Bounds and blocks of some agents with some numbers each; 0 lies inside."""
    n, d = rng.integers(1, 5), rng.integers(1, 4)
    low, high = -rng.uniform(0.2, 1.5, n * d), rng.uniform(0.2, 1.5, n * d)
    columns = np.arange(n * d).reshape(n, d)
    blocks = []
    for _ in range(n_blocks):
        if rng.random() < 0.5:
            own = rng.normal(size=(n, d))
            blocks.append(Block(columns, own, rng.uniform(0.05, 0.5, n)))
        else:
            joint = rng.normal(size=(1, n * d))
            blocks.append(Block(columns.reshape(1, -1), joint, rng.uniform(0.05, 0.5, 1)))
    return low, high, blocks


def as_rows(blocks, width):
    """All half-spaces as ``rows @ x <= limit``."""
    rows = np.zeros((sum(len(block.limit) for block in blocks), width))
    at = 0
    for block in blocks:
        here = rows[at : at + len(block.limit)]
        np.put_along_axis(here, block.columns, block.weights, axis=-1)
        at += len(here)
    return rows, np.concatenate([block.limit for block in blocks])


def nearest(point, low, high, rows, limit):
    """The projection of ``point``, to about 1e-7."""
    found = minimize(
        lambda x: 0.5 * ((x - point) ** 2).sum(),
        np.zeros_like(point),
        jac=lambda x: x - point,
        bounds=list(zip(low, high, strict=True)),
        constraints={"type": "ineq", "fun": lambda x: limit - rows @ x, "jac": lambda x: -rows},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return found.x
