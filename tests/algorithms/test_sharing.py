"""The price of shared parameters (Kuba et al. 2022, proposition 1): 2 / 2^n at most, and 1 without them.

The settings are those of `benchmarks/sharing_table.py`, which makes the table of the task's page.
"""

import pytest
from benchmarl_runs import IGNORED

from marl_td.tasks.sharing_game import shared_ceiling

pytestmark = IGNORED

SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("method", ["mappo, shared", "ippo, shared"])
def test_shared_policies_reach_their_ceiling_and_no_more(method, seed, script):
    found = script("sharing_table").learn(method, 4, seed)
    assert shared_ceiling(4) - 0.005 < found <= shared_ceiling(4) + 1e-6


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("method", ["happo", "hatrpo"])
def test_policies_of_their_own_reach_the_optimum(method, seed, script):
    """More than seven times the ceiling of 0.125."""
    assert script("sharing_table").learn(method, 4, seed) > 0.97
