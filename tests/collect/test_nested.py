"""TensorDicts out of flat entries."""

import gc
import weakref

import torch
from tensordict import TensorDict

from marl_td.collect.nested import entries_of, nest, shapes_of


def data() -> TensorDict:
    return TensorDict(
        {
            "agents": TensorDict({"reward": torch.rand(2, 3, 5, 1)}, [2, 3, 5]),
            "empty": TensorDict({}, [2, 3]),
            "next": {"agents": TensorDict({"done": torch.zeros(2, 3, 5, 1)}, [2, 3, 5])},
            "done": torch.zeros(2, 3, 1),
        },
        [2, 3],
    )


def test_flat_and_back():
    given = data()
    made = nest(entries_of(given), shapes_of(given), (2, 3), given.device)
    assert set(made.keys(True)) == set(given.keys(True))
    assert (made == given).all()
    for path in ("agents", "empty", "next", ("next", "agents")):
        assert made[path].batch_size == given[path].batch_size, path


def test_what_is_dropped_is_freed_at_once():
    """Not at the next garbage collection: batches that wait for one take memory that is not in a cache."""
    given = data()
    entries, shapes = entries_of(given), shapes_of(given)
    gc.disable()
    try:
        made = nest(entries, shapes, (2, 3), given.device)
        gone = [weakref.ref(made), weakref.ref(made["next", "agents"])]
        del made
        assert [reference() for reference in gone] == [None, None]
    finally:
        gc.enable()
