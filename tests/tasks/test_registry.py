"""Tasks by name."""

import pytest

from marl_td.tasks import make_task, task_class
from marl_td.tasks.registry import TASKS


def test_registered_names_work_with_and_without_prefix():
    assert task_class("marl_td/matrix_game") is task_class("matrix_game")
    assert "two_step" in TASKS


def test_an_unknown_task_gets_a_suggestion():
    with pytest.raises(ValueError, match=r"unknown task 'matrx_game'. Did you mean 'matrix_game'"):
        make_task("matrx_game")
    with pytest.raises(ValueError, match=r"unknown task 'zzz'. Known: .*matrix_game"):
        make_task("zzz")


def test_an_unknown_parameter_gets_a_suggestion():
    with pytest.raises(ValueError, match=r"no parameter 'pay_off'. Did you mean 'payoff'"):
        make_task("matrix_game", pay_off=[[1]])


def test_an_action_space_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="'matrix_game' has no continuous actions; choose an algo"):
        make_task("matrix_game", continuous=True)


def test_a_level_sets_parameters_and_explicit_ones_win():
    easy = make_task("pursuit", level="easy", n_prey=2)
    assert (easy.params.grid_size, easy.params.penalty, easy.params.n_prey) == (5, 0.0, 2)
    assert make_task("pursuit", level="hard").params == make_task("pursuit").params


def test_an_unknown_level_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"no level 'hrad'. It has: easy, medium, hard"):
        make_task("pursuit", level="hrad")
    with pytest.raises(ValueError, match=r"'two_step' has no level 'easy'. It has none"):
        make_task("two_step", level="easy")
