"""Tensor files: bit for bit, order in memory included; nothing that is not tensors or plain values."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_td.training.tensor_files import (
    load_tensors,
    pack,
    parse_tensors,
    save_tensors,
    tensor_bytes,
    unpack,
)

HERE = Path("state.json")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool)


def round_trip(state):
    packed, tensors = pack(state)
    return unpack(json.loads(json.dumps(packed)), parse_tensors(tensor_bytes(tensors), HERE), HERE)


@st.composite
def a_tensor(draw):
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    dtype = draw(st.sampled_from(DTYPES))
    value = (torch.rand(shape, dtype=torch.float64) * 200 - 100).to(dtype)
    order = draw(st.permutations(range(len(shape))))
    value = value.permute(order)
    return value.unsqueeze(0).expand(3, *value.shape) if draw(st.booleans()) else value


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | a_tensor()
NAMES = st.text(st.characters(exclude_characters="$", exclude_categories=["Cs"]), max_size=4)
NESTS = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(NAMES | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


def same(a, b):
    if isinstance(a, torch.Tensor):
        bits = a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
        moved = [s for s, n in zip(a.stride(), a.shape, strict=True) if n > 1]
        came = [s for s, n in zip(b.stride(), b.shape, strict=True) if n > 1]
        return bits and (a.numel() == 0 or moved == came)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and math.isnan(a):
        return math.isnan(b)
    return type(a) is type(b) and a == b


@settings(max_examples=60, deadline=None)
@given(NESTS)
def test_a_nest_comes_back_bit_for_bit_and_in_its_order_in_memory(state):
    assert same(state, round_trip(state))


def test_places_that_read_alike_do_not_collide():
    state = {"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}}
    assert same(state, round_trip(state))


def test_tensors_that_share_memory_are_saved():
    whole = torch.arange(6.0)
    assert same([whole[:2], whole[1:3], whole], round_trip([whole[:2], whole[1:3], whole]))


@pytest.mark.parametrize(
    ("value", "name"), [(object(), "object"), ({1, 2}, "set"), (torch.Size, "type")]
)
def test_what_a_checkpoint_cannot_hold_is_named(value, name):
    with pytest.raises(TypeError, match=rf"state\.x\.0 is a {name}, which a checkpoint cannot"):
        pack({"x": [value]})


def test_a_key_that_is_neither_name_nor_number_is_named():
    with pytest.raises(TypeError, match=r"state has the key \(1, 2\)"):
        pack({(1, 2): 0})


@pytest.mark.parametrize(
    "packed",
    [
        {"$tensor": "missing"},
        {"$tensor": "x", "order": [0, 0]},
        {"$tensor": "x", "order": [5]},
        {"$tensor": "x", "shape": [7, 7]},
        {"$tensor": ["x"]},
        {"$float": "1.0"},
        {"$items": 3},
        {"$items": [[{}, 1]]},
        json.loads("[" * 80 + "]" * 80),
    ],
)
def test_a_description_that_does_not_fit_the_tensors_is_refused(packed):
    with pytest.raises(ValueError, match=r"'state\.json' does not describe a state"):
        unpack(packed, {"x": torch.zeros(2, 3)}, HERE)


def test_every_cut_and_most_flipped_bits_in_the_header_are_refused(tmp_path):
    content = tensor_bytes({"weight": torch.arange(4.0), "bias": torch.ones(2)})
    for end in range(0, len(content) - 1, 7):
        with pytest.raises(ValueError, match="is not a safetensors file, or is damaged"):
            parse_tensors(content[:end], HERE)
    with pytest.raises(ValueError, match="is not a safetensors file, or is damaged"):
        parse_tensors(content + b"more", HERE)


class Payload:
    def __reduce__(self):
        return os.mkdir, ("payload",)


def test_a_pickle_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Payload(), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        load_tensors(tmp_path / "weights.safetensors")
    assert not (tmp_path / "payload").exists()


def test_what_does_not_fit_is_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"weight": torch.zeros(2, 3)})
    assert torch.equal(load_tensors(path)["weight"], torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"'weight' is float32 \[2, 3\].* float32 \[3, 2\] is exp"):
        load_tensors(path, {"weight": torch.zeros(3, 2)})
    with pytest.raises(ValueError, match="'bias' is nothing in the file, float32"):
        load_tensors(path, {"weight": torch.zeros(2, 3), "bias": torch.zeros(1)})
    with pytest.raises(ValueError, match="there is no file"):
        load_tensors(tmp_path / "other.safetensors")


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    with path.open("wb") as file:
        file.truncate(2**34)  # a sparse file: 16 GiB that take no room
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("it was read"))
    with pytest.raises(ValueError, match="has 17179869184 bytes; at most"):
        load_tensors(path, {"weight": torch.zeros(2, 3)})
