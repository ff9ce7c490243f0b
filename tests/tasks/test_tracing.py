"""A program that changes tensors in place, as a graph."""

import pytest
import torch

from marl_td.tasks.adapters.slots import find_numbers, find_slots
from marl_td.tasks.adapters.tracing import Assuming, Untraceable, cut, reached_inputs, trace

X = torch.tensor([-1.0, 2.0, 3.0])


def graph_of(program, *inputs, assumed=None):
    return trace(program, list(inputs), assumed or {})


def test_changes_in_place_become_outputs():
    def program(x):
        x[0] += 1
        x.mul_(2)
        return [x]

    x = X.clone()
    graph = graph_of(program, x)
    assert graph(x)[0].tolist() == [0.0, 4.0, 6.0]
    assert graph(10 * x)[0].tolist() == [-18.0, 40.0, 60.0]
    assert torch.equal(x, X)


def test_entries_chosen_by_a_mask():
    def program(x, y):
        x[x > 0] += 10
        x[y > 0] = y[y > 0] * 2
        x[(y > 0) & (x < 0)] = -7.0
        return [x]

    graph = graph_of(program, X, torch.ones(3))
    x, y = torch.tensor([5.0, -2.0, -3.0]), torch.tensor([-1.0, -1.0, 4.0])
    expected = program(x.clone(), y)[0]
    assert expected.tolist() == [15.0, -2.0, 8.0]
    assert graph(x, y)[0].tolist() == expected.tolist()


def test_rows_chosen_by_a_mask():
    def program(x, done):
        x[done] = torch.tensor([7.0, 8.0])
        return [x]

    graph = graph_of(program, torch.zeros(3, 2), torch.zeros(3, dtype=torch.bool))
    out = graph(torch.zeros(3, 2), torch.tensor([True, False, True]))[0]
    assert out.tolist() == [[7.0, 8.0], [0.0, 0.0], [7.0, 8.0]]


@pytest.mark.parametrize("together", [lambda x: x[x > 0].sum(), lambda x: (2 * x[x > 0]).max()])
def test_chosen_entries_must_not_be_put_together(together):
    """All entries stand for the chosen ones: their sum would be another."""
    with pytest.raises(Untraceable, match="from the entries that a mask chooses together"):
        graph_of(lambda x: [together(x)], X)


def test_a_program_that_fails_is_refused_with_its_reason():
    with pytest.raises(Untraceable, match="it cannot be written as a graph: 'goal'"):
        graph_of(lambda x: [x * {}["goal"]], X)


def test_questions_about_constants_are_answered():
    gravity = torch.tensor([0.0, -9.8])

    def program(x):
        return [x + 1 if (gravity == 0).all() else x - 1]

    assert graph_of(program, X)(X)[0].tolist() == [-2.0, 1.0, 2.0]


def test_a_question_about_values_is_named():
    def bounces(x):
        return [-x if (x > 0).any() else x]

    with pytest.raises(Untraceable, match=r"bounces \(test_tracing.py, line \d+\) decides by the"):
        graph_of(bounces, X)


def test_a_question_about_random_numbers_is_one_about_values():
    def program(x):
        return [x if torch.rand(3).sum() > 1 else -x]

    with pytest.raises(Untraceable, match=r"program .* decides by the value of a tensor"):
        graph_of(program, X)


def test_some_questions_are_assumed_to_be_answered():
    def touches(x):
        return bool((x > 0).any())

    def program(x):
        return [x * 2] if touches(x) else [x]

    assert graph_of(program, X, assumed={"touches": True})(-X)[0].tolist() == [2.0, -4.0, -6.0]
    with Assuming({"touches": False}):
        assert program(X)[0] is X
    assert program(X)[0] is not X


def test_random_numbers_are_fresh_in_every_call():
    graph = graph_of(lambda x: [x + torch.rand_like(x)], X)
    torch.manual_seed(3)
    one, two = graph(X)[0], graph(X)[0]
    torch.manual_seed(3)
    assert torch.equal(one, X + torch.rand_like(X))
    assert not torch.equal(one, two)


def test_a_constant_that_is_changed_is_refused():
    total = torch.zeros(3)

    def program(x):
        total.add_(x)
        return [total * 1]

    with pytest.raises(Untraceable, match="it cannot be written as a graph: "):
        graph_of(program, X)


@pytest.mark.parametrize(
    "chosen",
    [lambda x: x[torch.nonzero(x > 0).squeeze(-1)], lambda x: torch.stack([x, x])[0, x > 0]],
)
def test_a_size_that_depends_on_values_is_refused(chosen):
    with pytest.raises(
        Untraceable, match=r"how many entries '(nonzero|index)' gives depends on val"
    ):
        graph_of(lambda x: [chosen(x).sum()], X)


def test_a_program_that_would_compile_for_too_long_is_refused(monkeypatch):
    from marl_td.tasks.adapters import tracing

    monkeypatch.setattr(tracing, "LARGEST_PROGRAM", 20)
    assert len(graph_of(lambda x: [x + i for i in range(20)], X)(X)) == 20
    with pytest.raises(Untraceable, match="it makes more than 20 calls"):
        graph_of(lambda x: [x + i for i in range(21)], X)


def test_inputs_that_outputs_depend_on():
    graph = graph_of(lambda a, b, c: [a + 1, b * c, c], X, X.clone(), X.clone())
    assert reached_inputs(graph) == [{0}, {1, 2}, {2}]
    smaller = cut(graph, [1, 2], [1])
    assert smaller(X, X)[0].tolist() == [1.0, 4.0, 9.0]


class Part:
    def __init__(self):
        self._pos = torch.zeros(2)
        self.name = "left"
        self.count = 3


class Whole:
    def __init__(self):
        self.parts = [Part(), Part()]
        self.by_part = {self.parts[0]: torch.ones(1)}
        self.again = self.parts[0]
        self.tuple = (torch.zeros(1),)
        self.kind = Part


def test_slots_of_an_object():
    whole = Whole()
    slots = find_slots(whole, packages=(Part.__module__.partition(".")[0],))
    paths = {("again", "_pos"), ("parts", "1", "_pos"), ("by_part", "left")}
    assert set(slots) == paths
    slots["parts", "1", "_pos"].set(X)
    slots["by_part", "left"].set(2 * X)
    assert whole.parts[1]._pos is X and slots["parts", "1", "_pos"].get() is X
    assert whole.by_part[whole.parts[0]].tolist() == [-2.0, 4.0, 6.0]
    assert set(find_slots(whole, packages=())) == {("by_part", "left")}
    numbers = find_numbers(whole, packages=(Part.__module__.partition(".")[0],))
    assert numbers == {("again", "count"): 3, ("parts", "1", "count"): 3}
