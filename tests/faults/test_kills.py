"""Killed at random instants, also with what was not flushed lost: the run ends as if it had not been."""

import os
import sys

import pytest
from kills import Victim, forked
from survival import FEW, every_case

pytestmark = [
    pytest.mark.skipif(sys.version_info < (3, 11), reason="faults need pathlib of Python 3.11"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked"),
    pytest.mark.filterwarnings("ignore:The default behavior of TransformedEnv:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:vmas"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def test_a_killed_run_ends_as_one_that_was_not(tmp_path):
    victim = Victim(FEW["maddpg by priority on disk"], tmp_path)
    assert victim.n_calls > 100
    for seed in (1, 6):
        assert victim.kill(seed)["wrong"] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", every_case())
def test_no_family_shows_that_it_was_killed(tmp_path, name):
    victim = Victim(every_case()[name], tmp_path)
    for seed in (2, 3):
        assert victim.kill(seed)["wrong"] == []


def test_errors_of_a_child_are_the_test_s():
    def fail():
        raise ValueError("in the child")

    with pytest.raises(AssertionError, match="ValueError: in the child"):
        forked(fail)
