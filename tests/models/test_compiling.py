"""What a compiled function does at its first call, and when it cannot be compiled."""

import warnings

import pytest
import torch

from marl_td.models import compiling
from marl_td.models.compiling import Compiled, CompileWarning, compiled_or_none


@pytest.fixture
def total():
    """A tensor that is changed in place."""
    return torch.zeros(2)


def add(total):
    def function(x):
        total.add_(x)
        return total * 2

    return function


def compiler(monkeypatch, fails):
    """Replaces ``torch.compile``; ``fails`` says what to raise for which options, after a change was made."""
    asked = []

    def compile_(function, *, options, **_):
        asked.append(options)

        def run(*args):
            out = function(*args)
            error = fails(options)
            if error is not None:
                raise error
            return out

        return run

    monkeypatch.setattr(compiling.torch, "compile", compile_)
    return asked


@pytest.fixture(params=[False, True])
def faster(request, monkeypatch):
    """Whether this is a machine on which oneDNN multiplies faster."""
    monkeypatch.setattr(compiling, "onednn_is_faster", lambda: request.param)
    return request.param


def test_what_fails_from_cpp_is_called_from_python_and_changes_once(monkeypatch, total, faster):
    asked = compiler(
        monkeypatch, lambda options: RuntimeError("shim") if "cpp_wrapper" in options else None
    )
    run = Compiled("sum", add(total), changed=lambda: [total])
    assert run(torch.ones(2)).tolist() == [2.0, 2.0]
    assert total.tolist() == [1.0, 1.0]
    if faster:
        assert "post_grad_custom_post_pass" in asked[0]
        assert "fallback_random" in asked.pop(0)
    assert not any("post_grad_custom_post_pass" in options for options in asked)
    assert ["cpp_wrapper" in options for options in asked] == [True, True, False]
    assert ["fallback_random" in options for options in asked] == [True, False, False]
    n_asked = len(asked)
    run(torch.ones(2))
    assert len(asked) == n_asked
    assert total.tolist() == [2.0, 2.0]


def test_what_is_recorded_on_a_gpu_has_no_wrapper_in_cpp(monkeypatch, total):
    asked = compiler(monkeypatch, lambda options: None)
    monkeypatch.setattr(compiling, "can_be_recorded", lambda args: True)
    monkeypatch.setattr(compiling, "CudaGraph", lambda what, function, lent: function)
    Compiled("sum", add(total), changed=lambda: [total])(torch.ones(2))
    assert asked == [compiling.FROM_PYTHON]


def test_what_the_compiler_advises_on_gpus_is_no_warning_of_ours(monkeypatch, total):
    def advises(options):
        warnings.warn("TensorFloat32 tensor cores for ... available but not enabled.", stacklevel=1)

    compiler(monkeypatch, advises)
    assert Compiled("sum", add(total))(torch.ones(2)).tolist() == [2.0, 2.0]


def test_an_error_of_the_function_itself_is_raised_and_nothing_is_changed(monkeypatch, total):
    compiler(monkeypatch, lambda options: RuntimeError("sizes do not match"))
    run = Compiled("sum", add(total), changed=lambda: [total])
    with pytest.raises(RuntimeError, match="sizes do not match"):
        run(torch.ones(2))
    assert total.tolist() == [0.0, 0.0]


def test_what_cannot_be_compiled_runs_as_it_is(monkeypatch, total):
    error = torch._dynamo.exc.Unsupported("there is a loop here\nmore", case_name="")
    compiler(monkeypatch, lambda options: error)
    run = Compiled("sum", add(total), changed=lambda: [total])
    with pytest.warns(CompileWarning, match=r"the sum is not compiled: there is a loop here$"):
        run(torch.ones(2))
    assert total.tolist() == [1.0, 1.0]
    assert run.graphs and run.seconds > 0.0


def test_each_shape_and_layout_has_its_own_graph(monkeypatch, total):
    asked = compiler(monkeypatch, lambda options: None)
    run = Compiled("sum", lambda x: x["a"] + 1, backend="eager")
    for x in (torch.ones(4, 2), torch.zeros(4, 2), torch.ones(3, 2), torch.ones(2, 4).T):
        assert torch.equal(run({"a": x}), x + 1)
    assert len(asked) == 3
    run({"a": torch.ones(4, 2, dtype=torch.float64)})
    assert len(asked) == 4


def test_an_older_torch_is_named(monkeypatch):
    assert compiled_or_none("rollout", lambda: 3) == 3
    monkeypatch.setattr(compiling.torch, "__version__", "2.9.1+cpu")
    with pytest.warns(CompileWarning, match=r"the rollout is not compiled: it takes torch 2\.13"):
        assert compiled_or_none("rollout", lambda: 3) is None


@pytest.mark.parametrize("known", [True, False], ids=["torch as it is", "another torch"])
def test_later_calls_do_not_ask_dynamo_and_see_what_changes_in_place(known, monkeypatch, total):
    asked = []
    stance = torch.compiler.set_stance
    monkeypatch.setattr(
        compiling.torch.compiler, "set_stance", lambda **s: [asked.append(s), stance(**s)][1]
    )
    if not known:
        monkeypatch.setattr("torch._dynamo.eval_frame._debug_get_cache_entry_list", lambda code: [])
    run = Compiled("sum", lambda nest: {"sum": nest["x"] + total}, backend="eager")
    twin = Compiled("sum", lambda nest: {"sum": nest["x"] - total}, backend="eager")
    for k in range(4):
        total.fill_(float(k))
        assert run({"x": torch.ones(2)})["sum"].tolist() == [1.0 + k] * 2
        assert twin({"x": torch.ones(2)})["sum"].tolist() == [1.0 - k] * 2
    assert len(asked) == (0 if known else 6)
    if known:  # and not what others do to Dynamo's memory
        torch._dynamo.reset()
        assert run({"x": torch.ones(2)})["sum"].tolist() == [4.0] * 2
