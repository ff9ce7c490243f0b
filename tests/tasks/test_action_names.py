"""Actions have names where they mean something: for people, and in the signatures of exported policies."""

import pytest
from task_variants import ALL

from marl_td.tasks import make_task
from marl_td.tasks.base import Box, Discrete

NAMELESS = ("matrix_game", "two_step", "sharing_game")
"""Rows and columns of a table."""


@pytest.mark.parametrize("variant", ALL, ids=str)
def test_every_action_is_named_once(variant):
    for spec in variant.env(1).task.groups.values():
        names = spec.action.names
        n = spec.action.n if isinstance(spec.action, Discrete) else len(spec.action.low)
        assert len(names) == (0 if variant.task in NAMELESS else n)
        assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("task", "params", "action", "name"),
    [
        ("banking", {}, 3, "keep"),
        ("banking", {"classes": True}, 1 * 16 + 0 * 4 + 3, "external, internal, keep"),
        ("retail", {}, 3 * 5 + 2, "level 0.5, request"),
        ("market_making", {"size": 2}, (0 * 6 + 5) * 2 + 1, "bid 1/5, ask none, 2 units"),
        ("drones", {}, 3, "90 degrees"),
        ("energy_grid", {}, 0, "power -1 ramp"),
        ("pursuit", {}, 5, "catch"),
        ("intersection", {}, 0, "brake"),
    ],
)
def test_names_are_those_of_the_description(task, params, action, name):
    (spec,) = make_task(task, continuous=False, **params).groups.values()
    assert spec.action.names[action] == name


def test_a_fast_prey_s_pairs_are_named():
    groups = make_task("predator_prey", prey="learned", mode="fast_prey").groups
    assert groups["prey"].action.names[5 * 1 + 4] == "up, right"


def test_names_must_fit():
    with pytest.raises(ValueError, match="3 actions need 3 names, or none; got left, right"):
        Discrete(3, ("left", "right"))
    with pytest.raises(ValueError, match="1 actions need 1 names, or none; got x, y"):
        Box((0.0,), (1.0,), ("x", "y"))
