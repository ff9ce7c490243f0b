"""Global random streams are put back."""

import random

import numpy as np
import pytest
import torch

from marl_td.collect.rng import isolated_rng


def draws():
    """One number from every global stream."""
    return torch.rand(1).item(), np.random.rand(), random.random()  # noqa: NPY002


@pytest.mark.parametrize("seed", [None, 7])
def test_the_body_leaves_no_trace(seed):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    expected = draws()
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    with isolated_rng(seed):
        draws()
    assert draws() == expected


def test_a_seed_makes_the_body_repeatable():
    with isolated_rng(7):
        first = draws()
    draws()
    with isolated_rng(7):
        assert draws() == first


def test_streams_are_put_back_after_an_error():
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="stop"), isolated_rng(0):
        torch.rand(3)
        raise RuntimeError("stop")
    assert torch.equal(torch.get_rng_state(), state)


def test_the_stream_of_vmas_is_put_back():
    environment = pytest.importorskip("vmas.simulator.environment.environment").Environment
    before = environment.vmas_random_state[0].clone()
    with isolated_rng(0):
        environment.vmas_random_state[0] = torch.get_rng_state()
    assert torch.equal(environment.vmas_random_state[0], before)
