"""A random stream of its own for code that draws from the process-wide generators."""

import random

import numpy as np
import pytest
import torch

from marl_td.tasks.adapters.random_stream import RandomStream


def draw():
    """One number of each global generator."""
    return torch.rand(()).item(), np.random.random(), random.random()  # noqa: NPY002


def test_it_goes_on_where_it_was_left_and_puts_the_others_back():
    stream, whole = RandomStream(3), RandomStream(3)
    with whole:
        expected = [draw(), draw()]
    outside = draw()
    with stream:
        first = draw()
    torch.manual_seed(9), np.random.seed(9), random.seed(9)  # noqa: NPY002
    with stream:
        second = draw()
    assert [first, second] == expected and outside not in expected


def test_the_global_generators_go_on_as_if_nothing_had_been_drawn():
    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002
    expected = [draw(), draw()]
    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002
    first = draw()
    stream = RandomStream(5)
    with stream:
        draw()
    stream.seed(6)
    assert [first, draw()] == expected


@pytest.mark.parametrize("i", range(3))
def test_each_generator_is_seeded(i):
    with RandomStream(1):
        first = draw()[i]
    with RandomStream(1):
        again = draw()[i]
    with RandomStream(2):
        other = draw()[i]
    assert first == again != other


def test_of_torch_alone_leaves_the_others_where_they_are():
    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002
    expected = draw()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002
    stream = RandomStream(5, only_torch=True)
    with stream:
        number = torch.rand(()).item()
    place = stream.snapshot()
    assert place["numpy"] is place["python"] is None
    with stream:
        following = torch.rand(()).item()
    stream.restore(place)
    with stream:
        assert torch.rand(()).item() == following
    assert draw() == expected and number != expected[0]


def test_no_seed_draws_one():
    streams = [RandomStream(None) for _ in range(2)]
    numbers = []
    for stream in streams:
        with stream:
            numbers.append(draw())
    assert numbers[0] != numbers[1]


def test_entering_it_twice_is_entering_it_once():
    stream, whole = RandomStream(3), RandomStream(3)
    with whole:
        expected = [draw(), draw()]
    before = torch.get_rng_state()
    with stream:
        with stream:
            first = draw()
        second = draw()
    assert [first, second] == expected
    assert torch.equal(torch.get_rng_state(), before)


def test_an_error_inside_does_not_keep_it():
    stream, before = RandomStream(3), torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), stream:
        torch.rand(()) / (1 // 0)
    assert torch.equal(torch.get_rng_state(), before)
