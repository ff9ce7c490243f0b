"""What a function's CUDA graph reads, writes and draws, recorded without a GPU (`tests/helpers/tape.py`)."""

import warnings

import pytest
import tape
import torch

from marl_td.models import compiling, cuda_graph
from marl_td.models.compiling import Compiled
from marl_td.models.cuda_graph import (
    SWITCH,
    WARM_UPS,
    CudaGraph,
    CudaGraphWarning,
    can_be_recorded,
    copied,
    span,
)


@pytest.fixture(autouse=True)
def recorded(monkeypatch):
    """Records here what would be recorded on a GPU."""
    monkeypatch.setattr(cuda_graph, "record", tape.record)


def warm(graph, *args):
    """The calls before it is recorded."""
    for _ in range(WARM_UPS):
        graph(*args)
    assert graph.n_recorded == 0


def test_every_call_reads_its_own_arguments():
    graph = CudaGraph("sum", lambda nest, pair: {"a": nest["x"] * 2, "b": (pair[0] + pair[1],)})
    for k in range(6):
        x, y = torch.full((2, 3), float(k)), torch.arange(3) + k
        out = graph({"x": x}, (x, y))
        assert torch.equal(out["a"], x * 2)
        assert torch.equal(out["b"][0], x + y)
    assert graph.n_recorded == 1


def test_what_stays_where_it_is_is_read_there():
    storage, calls = torch.zeros(4, 2), []

    def rows(storage, index):
        calls.append(storage.data_ptr())
        return storage[index]

    graph = CudaGraph("rows", rows)
    for k in range(5):
        storage.fill_(float(k))
        found = graph(storage, torch.tensor([k % 4]))
        assert found.tolist() == [[k, k]]
    assert set(calls) == {storage.data_ptr()}
    assert graph.n_recorded == 1


def test_what_moves_after_all_is_recorded_anew_and_copied_from_then_on():
    graph = CudaGraph("double", lambda x: x * 2)
    here = torch.ones(2)
    warm(graph, here)
    assert graph(here).tolist() == [2.0, 2.0]
    moved = [torch.full((2,), float(k)) for k in (3, 4, 5)]
    assert [graph(x).tolist() for x in moved] == [[6.0] * 2, [8.0] * 2, [10.0] * 2]
    assert graph.n_recorded == 2
    assert here.tolist() == [1.0, 1.0]
    assert moved[0].tolist() == [3.0, 3.0]


def test_outputs_are_the_callers_unless_lent():
    for lent, expected in ((False, [1.0, 2.0, 3.0]), (True, [3.0, 3.0, 3.0])):
        graph = CudaGraph("copy", lambda x: x + 1, lent=lent)
        warm(graph, torch.zeros(1))
        kept = [graph(torch.tensor([float(k)])) for k in range(3)]
        assert [value.item() for value in kept] == expected


def test_recording_itself_changes_nothing_and_every_call_once():
    total = torch.zeros(2)

    def add(x):
        total.add_(x)
        return total.clone()

    graph = CudaGraph("total", add)
    assert [graph(torch.ones(2))[0].item() for _ in range(5)] == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_random_numbers_are_new_and_those_of_the_plain_function():
    def draw(x):
        return x + torch.rand(3)

    graph = CudaGraph("draw", draw)
    torch.manual_seed(3)
    found = [graph(torch.zeros(3)) for _ in range(5)]
    torch.manual_seed(3)
    assert torch.equal(torch.stack(found), torch.stack([draw(torch.zeros(3)) for _ in range(5)]))


@pytest.mark.parametrize(
    "make",
    [
        lambda k: torch.full((2, 3), float(k)),
        lambda k: torch.full((2, 3), float(k)).T,
        lambda k: torch.full((2, 1), float(k)).expand(2, 3),
        lambda k: torch.full((4, 6), float(k))[1:3, ::2],
        lambda k: torch.tensor(float(k)),
        lambda k: torch.full((0, 3), float(k)),
    ],
    ids=["dense", "transposed", "expanded", "with gaps", "scalar", "empty"],
)
def test_memory_layouts_are_kept(make):
    value = make(7)
    twin = copied(value)
    assert torch.equal(twin, value)
    assert twin.stride() == value.stride()
    assert not value.numel() or twin.data_ptr() != value.data_ptr()
    seen = []

    def layout(x):
        seen.append(x.stride())
        return x * 1

    graph = CudaGraph("layout", layout)
    for k in range(5):
        assert torch.equal(graph(make(k)), make(k))
    assert set(seen) == {value.stride()}


def test_the_span_of_a_repeated_row_holds_it_once():
    assert span(torch.arange(3.0).expand(5, 3)).tolist() == [0.0, 1.0, 2.0]
    assert span(torch.arange(12.0).reshape(3, 4)[1:, 2]).tolist() == [6.0, 7.0, 8.0, 9.0, 10.0]


def test_gradients_inside_are_taken():
    weight = torch.nn.Parameter(torch.tensor([2.0, 3.0]))
    graph = CudaGraph(
        "slope", lambda x: torch.autograd.grad((weight * x).square().sum(), weight)[0]
    )
    for k in range(1, 6):
        with torch.no_grad():
            weight.fill_(float(k))
        assert graph(torch.tensor([1.0, 2.0])).tolist() == [2.0 * k, 8.0 * k]
    assert graph.n_recorded == 1


def test_what_cannot_be_recorded_goes_on_as_it_was():
    graph = CudaGraph("branch", lambda x: x + 1 if x.sum() > 1 else x)
    warm(graph, torch.ones(3))
    words = rf"the branch is not a CUDA graph: .*waits for the device. Set {SWITCH}=0"
    with pytest.warns(CudaGraphWarning, match=words):
        assert graph(torch.ones(3)).tolist() == [2.0] * 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert graph(torch.zeros(3)).tolist() == [0.0] * 3
    assert graph.failed and graph.n_recorded == 0


def test_only_what_is_on_a_gpu_is_recorded_and_a_switch_turns_it_off(monkeypatch):
    class There:
        """A tensor elsewhere, for one who asks where."""

        device = torch.device("cuda", 0)

    monkeypatch.setattr(cuda_graph, "tensors_of", lambda args: iter(args))
    assert can_be_recorded([There(), There()])
    assert not can_be_recorded([There(), torch.ones(1)])
    monkeypatch.setenv(SWITCH, "0")
    assert not can_be_recorded([There()])


def test_a_compiled_function_is_recorded_for_each_shape(monkeypatch):
    monkeypatch.setattr(compiling, "can_be_recorded", lambda args: True)
    run = Compiled("double", lambda x: x * 2, backend="eager", lent=True)
    for n in (2, 3):
        out = [run(torch.full((n,), float(k))) for k in range(5)]
        assert out[-1].tolist() == [8.0] * n
    assert [graph.n_recorded for graph in run.graphs.values()] == [1, 1]
    assert all(graph.lent for graph in run.graphs.values())
