"""Evaluations in other processes give what they give here."""

import pytest
import torch

from marl_td.evaluation.workers import STEPS_TO_PAY, evaluations, n_workers
from marl_td.tasks import make_task


def scores(task, n_processes, names):
    with evaluations(task, n_processes, 3, seed=5) as evaluate:
        waiting = [evaluate(name) for name in names]
        return [wait() for wait in waiting]


def test_the_scores_do_not_depend_on_the_number_of_processes():
    """With the random policy, and one that draws from a stream of its own."""
    task = make_task("banking", max_steps=20)
    names = [None, "uniform", "shortest_delay"]
    here, elsewhere = (scores(task, n, names) for n in (1, 2))
    assert [value.shape for value in here] == [(3,)] * 3
    for ours, theirs in zip(here, elsewhere, strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(here[0], here[2])


def test_an_error_elsewhere_arrives_here():
    with pytest.raises(KeyError, match="nobody"):
        scores(make_task("banking", max_steps=20), 2, ["nobody"])


def test_short_evaluations_start_no_process(monkeypatch):
    monkeypatch.setattr("marl_td.evaluation.workers.usable_cores", lambda: 6)
    steps = STEPS_TO_PAY // 4
    assert n_workers(make_task("banking", max_steps=steps), 4, 256) == 4
    assert n_workers(make_task("banking", max_steps=steps - 1), 4, 256) == 1
    assert n_workers(make_task("banking", max_steps=steps), 12, 256) == 6
    assert n_workers(make_task("banking", max_steps=steps // 2), 4, 512) == 4
