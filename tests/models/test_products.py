"""Large products of compiled graphs are oneDNN's, where that is faster, and the same to rounding."""

import pytest
import torch
from torch._functorch import config as functorch
from torch._higher_order_ops.scan import scan
from torch._inductor import config
from torch.testing import assert_close

from marl_td.models import compiling, products
from marl_td.models.compiling import Compiled
from marl_td.models.products import WORTHWHILE, onednn_is_faster

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch was built without oneDNN"
)
LARGE, SMALL = 128, 32  # 128 * 128 * 128 multiplications are worth it, 32 * 32 * 32 are not


@pytest.fixture
def replaced(monkeypatch):
    """How many products of each graph that is compiled are oneDNN's."""
    seen = []
    whole = products.LargeProducts.__call__

    def counted(self, graph):
        whole(self, graph)
        found = graph.find_nodes(op="call_function", target=torch.ops.marl_td.linear.default)
        seen.append(len(found))

    monkeypatch.setattr(products.LargeProducts, "__call__", counted)
    monkeypatch.setattr(compiling, "onednn_is_faster", lambda: True)
    with config.patch(fx_graph_cache=False), functorch.patch(enable_autograd_cache=False):
        yield seen


def network(size, dtype=torch.float32):
    """A linear layer and rows for it, all integers, so that every order of adding gives the same."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(size, size, dtype=dtype)
    for parameter in layer.parameters():
        parameter.data = torch.randint(-3, 4, parameter.shape).to(dtype)
    return layer, torch.randint(-3, 4, (size, size)).to(dtype)


def test_the_sizes_are_on_either_side():
    assert SMALL**3 < WORTHWHILE <= LARGE**3


@pytest.mark.parametrize(
    ("size", "dtype", "n"),
    [(LARGE, torch.float32, 1), (SMALL, torch.float32, 0), (LARGE, torch.float64, 0)],
)
def test_large_products_are_replaced_and_the_same(replaced, size, dtype, n):
    layer, rows = network(size, dtype)
    with torch.no_grad():
        found = Compiled("product", layer)(rows)
        assert torch.equal(found, rows @ layer.weight.T + layer.bias)
    assert replaced == [n]


def test_a_product_with_a_matrix_that_is_no_transposed_one(replaced):
    left, right = (torch.randint(-3, 4, (LARGE, n)).float() for n in (LARGE, 2 * LARGE))
    assert torch.equal(Compiled("product", torch.matmul)(left, right), left @ right)
    assert replaced == [1]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("n", "replaced_ones"), [(3, 3), (17, 0)])
def test_the_products_of_several_networks(replaced, n, turned, replaced_ones):
    left, right = torch.randint(-3, 4, (2, n, LARGE, LARGE)).float()

    def multiply(left, right):
        return torch.bmm(left, right.mT if turned else right)

    expected = multiply(left, right)
    assert torch.equal(Compiled("products", multiply)(left, right), expected)
    assert replaced == [replaced_ones]


def test_a_product_added_to_another_matrix_is_left(replaced):
    one, left, right = torch.randint(-3, 4, (3, LARGE, LARGE)).float()
    assert torch.equal(Compiled("sum", torch.addmm)(one, left, right), one + left @ right)
    assert replaced == [0]


def test_gradients_are_the_same(replaced):
    layer, rows = network(LARGE)

    def gradients(rows):
        loss = (layer(rows) * rows).sum() / 2
        return torch.autograd.grad(loss, [layer.weight, layer.bias])

    with torch._dynamo.config.patch(trace_autograd_ops=True):
        found = Compiled("gradients", gradients)(rows)
    assert torch.equal(found[0], rows.T @ rows / 2)
    assert torch.equal(found[1], rows.sum(0) / 2)
    assert sum(replaced) == 1  # the value of the loss is not asked for


def test_products_in_a_loop_of_the_graph(replaced):
    layer, rows = network(LARGE)
    times = torch.arange(3.0)

    def steps(rows, times):
        def body(rows, time):
            after = torch.tanh(layer(rows) / 100 + time)
            return after, after.mean()

        return scan(body, rows, times)

    with torch.no_grad():
        final, sums = Compiled("loop", steps)(rows, times)
        for time, total in zip(times, sums, strict=True):
            rows = torch.tanh(layer(rows) / 100 + time)
            assert_close(rows.mean(), total, rtol=1e-5, atol=1e-6)
    assert_close(final, rows, rtol=1e-5, atol=1e-6)
    assert sum(replaced) >= 1


@pytest.mark.parametrize(
    ("capabilities", "mkl", "faster"),
    [
        ({"avx512_f": True, "cpu_name": "AMD EPYC 9R45"}, True, True),
        ({"avx512_f": True, "cpu_name": "Intel(R) Xeon(R) Platinum 8488C"}, True, False),
        ({"avx512_f": False, "cpu_name": "AMD Ryzen 7 5800X"}, True, False),
        ({"architecture": "aarch64"}, True, False),
        ({"avx512_f": True, "cpu_name": "AMD EPYC 9R45"}, False, False),
    ],
)
def test_where_onednn_is_faster(monkeypatch, capabilities, mkl, faster):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
    assert onednn_is_faster.__wrapped__() is faster


def test_other_versions_of_torch_multiply_as_they_do(monkeypatch):
    amd = {"avx512_f": True, "cpu_name": "AMD EPYC 9R45"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: amd)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    found = {}
    for version in ("2.13.0+cpu", "2.14.0"):
        monkeypatch.setattr(torch, "__version__", version)
        found[version] = onednn_is_faster.__wrapped__()
    assert found == {"2.13.0+cpu": True, "2.14.0": False}
