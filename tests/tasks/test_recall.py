"""The memory game: what is seen when, what is paid, and what no policy without memory can beat."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict
from torchrl.envs.utils import check_env_specs, step_mdp

from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.tasks import make_env, make_task
from marl_td.tasks.base import Step
from marl_td.tasks.recall import Recall, RecallParams, RecallState

BOTH = pytest.mark.parametrize("continuous", [True, False])


def game(continuous=False, **params) -> Recall:
    return make_task("recall", continuous=continuous, **params)


def starts(task: Recall, cues: list[list[int]], extra: int = 0) -> RecallState:
    """Episodes with the given cues ``[n_envs][n_agents]``."""
    cue = torch.tensor(cues)
    n = task.params.n_cues
    waits = torch.full((len(cues),), (extra + 0.5) / (task.params.extra_delay + 1))
    return task.reset(len(cues), {"cue": (cue + 0.5) / n, "extra": waits})


def play(task: Recall, state: RecallState, *actions) -> Step[RecallState]:
    """The last of some steps; an action is ``[n_agents]`` numbers, the same in all episodes."""
    n_envs = state.cue.shape[0]
    for action in actions:
        answer = torch.as_tensor(action).expand(n_envs, -1)
        answer = answer.unsqueeze(-1) if task.continuous else answer
        step = task.step(state, {"agents": answer}, {})
        state = step.state
    return step


# -------------------------------------------------------------------------------------- the episode
@BOTH
@pytest.mark.parametrize("params", [{}, {"n_agents": 1, "delay": 0}, {"extra_delay": 3}])
def test_specs_hold(continuous, params):
    check_env_specs(make_env("recall", n_envs=3, continuous=continuous, **params))


def test_an_episode_by_hand():
    """Two agents, three cues, one step of waiting: cues 2 and 0; agent 1 is right, agent 2 is not."""
    task = game(n_agents=2, n_cues=3, delay=1, bonus=0.25)
    state = starts(task, [[2, 0]])
    assert task.observe(state)["agents"].tolist() == [[[0, 0, 1, 0], [1, 0, 0, 0]]]
    assert task.team_state(state).tolist() == [[0, 0, 1, 1, 0, 0, 1.0]]
    step = play(task, state, [2, 0])  # too early
    assert not step.terminated.any() and (step.reward["agents"] == 0).all()
    assert (task.observe(step.state)["agents"] == 0).all()
    assert task.team_state(step.state).tolist() == [[0, 0, 1, 1, 0, 0, 0.5]]
    step = play(task, step.state, [1, 1])
    assert task.observe(step.state)["agents"].tolist() == [[[0, 0, 0, 1], [0, 0, 0, 1]]]
    assert task.team_state(step.state)[0, -1] == 0
    last = play(task, step.state, [2, 1])
    assert last.terminated.all()
    assert last.reward["agents"].tolist() == [[0.75, 0.0]]
    assert last.info["right"].tolist() == [0.5] and last.info["all_right"].tolist() == [0.0]
    both = play(task, step.state, [2, 0])
    assert both.reward["agents"].tolist() == [[1.0, 1.0]]
    assert both.info["all_right"].tolist() == [1.0]


def test_continuous_answers_are_right_at_the_cue_and_wrong_at_the_next():
    """Three cues lie at -1, 0 and 1."""
    task = game(True, n_agents=2, n_cues=3, delay=0, bonus=0.5)
    state = play(task, starts(task, [[0, 1]]), [0.0, 0.0]).state
    for answers, right in (
        ([-1.0, 0.0], [1, 1]),
        ([-0.75, 0.5], [0.75, 0.5]),
        ([0.0, -1.0], [0, 0]),
    ):
        step = play(task, state, answers)
        expected = 0.5 * np.array(right) + 0.5 * np.prod(right)
        assert step.reward["agents"][0].tolist() == pytest.approx(expected.tolist())
    beyond = play(task, state, [-7.0, 0.0])
    assert beyond.reward["agents"].tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("extra", [0, 1, 2])
def test_the_wait_is_as_long_as_drawn_and_ends_the_episode(extra):
    task = game(delay=1, extra_delay=2, n_agents=1)
    state, seen = starts(task, [[1]], extra), []
    for _ in range(extra + 3):
        seen.append(task.observe(state)["agents"][0, 0].tolist())
        step = play(task, state, [1])
        state = step.state
    assert seen == [[0, 1, 0]] + [[0, 0, 0]] * (extra + 1) + [[0, 0, 1]]
    assert step.terminated.all() and step.reward["agents"].item() == 1.0


def test_all_cues_and_waits_are_drawn_equally_often():
    task, n = game(n_agents=2, n_cues=3, extra_delay=2), 30_000
    state = task.reset(n, task.draw_reset(n, torch.Generator().manual_seed(0)))
    joint = 3 * state.cue[:, 0] + state.cue[:, 1]
    for values, low, size in ((joint, 0, 9), (state.answer_at, 3, 3)):
        share = torch.bincount(values - low, minlength=size) / n
        assert share.shape == (size,)
        assert (share - 1 / size).abs().max() < 4 * (0.25 / n) ** 0.5


@given(data=st.data(), continuous=st.booleans())
def test_nothing_done_before_the_answer_leaves_a_trace(data, continuous):
    """Whatever the actions, what is seen, how long it takes and what is paid in the end are the same."""
    task = game(continuous, n_agents=2, n_cues=3, delay=2, extra_delay=1)
    state = starts(task, [[0, 2], [1, 1]], data.draw(st.integers(0, 1)))
    one = st.floats(-1, 1, width=32) if continuous else st.integers(0, 2)
    actions = st.lists(one, min_size=2, max_size=2)
    other = state
    while not (state.step == state.answer_at).all():
        state = play(task, state, data.draw(actions)).state
        other = play(task, other, data.draw(actions)).state
        for a, b in zip(state, other, strict=True):
            assert torch.equal(a, b)


@given(cue=st.integers(0, 2), other=st.integers(0, 2), after=st.integers(1, 4))
def test_after_the_first_step_what_is_seen_says_nothing_of_the_cue(cue, other, after):
    task = game(n_agents=2, n_cues=3, delay=3)
    one, two = starts(task, [[cue, 0]]), starts(task, [[other, 2]])
    for _ in range(after):
        one, two = play(task, one, [0, 0]).state, play(task, two, [0, 0]).state
    assert torch.equal(task.observe(one)["agents"], task.observe(two)["agents"])


# -------------------------------------------------------------------------------------- the ceiling
@pytest.mark.parametrize("bonus", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("n_agents", "n_cues"), [(1, 2), (2, 3), (3, 2)])
def test_every_fixed_joint_answer_makes_exactly_the_memoryless_return(n_agents, n_cues, bonus):
    """All cues against all joint answers: any policy without memory is a mixture of these."""
    task = game(n_agents=n_agents, n_cues=n_cues, delay=0, bonus=bonus)
    cues = [list(cue) for cue in itertools.product(range(n_cues), repeat=n_agents)]
    asked = play(task, starts(task, cues), [0] * n_agents).state
    for answer in cues:
        paid = play(task, asked, answer).reward["agents"].double().mean()
        assert paid.item() == pytest.approx(task.memoryless_return(), abs=1e-7)


@given(
    answers=st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), n_cues=st.integers(2, 5)
)
def test_so_does_every_continuous_one(answers, n_cues):
    task = game(True, n_cues=n_cues, delay=0)
    cues = [list(cue) for cue in itertools.product(range(n_cues), repeat=3)]
    asked = play(task, starts(task, cues), [0.0] * 3).state
    paid = play(task, asked, answers).reward["agents"].double().mean()
    assert paid.item() == pytest.approx(task.memoryless_return(), abs=1e-5)


@BOTH
def test_baselines_and_random_play_make_what_the_page_says(continuous):
    n = 20_000
    env = make_env("recall", n_envs=n, continuous=continuous, n_cues=3, extra_delay=1)
    task, limit = env.task, env.task.params.max_steps

    def returns(policy):
        rollout = env.rollout(limit, policy, break_when_any_done=False)["next"]
        running = rollout["done"].long().cumsum(1) - rollout["done"].long() == 0
        return (rollout["agents", "reward"] * running.unsqueeze(-1)).sum(1).mean().item()

    assert set(task.baselines()) == {"guess", "perfect_memory"}
    assert returns(task.baselines()["perfect_memory"]) == pytest.approx(1.0) == task.optimum().value
    for policy in (None, task.baselines()["guess"]):
        assert abs(returns(policy) - task.memoryless_return()) < 4 * 0.5 / n**0.5
    assert task.optimum().kind == "exact"


def test_the_memoryless_return_in_numbers():
    assert game().memoryless_return() == pytest.approx(0.25 + 0.5 / 8)
    assert game(bonus=0.0, n_cues=4).memoryless_return() == 0.25
    assert game(bonus=1.0, n_agents=4).memoryless_return() == 1 / 16


# ----------------------------------------------------------------------------------- as an environment


def test_pictures_show_who_was_right():
    env = make_env("recall", n_envs=2, delay=0, continuous=False)
    td, pictures, policy = env.reset(), [], env.task.baselines()["perfect_memory"]
    pictures.append(env.render(index=1))
    for _ in range(2):
        td = step_mdp(env.step(policy(td)))
        pictures.append(env.render(index=1))
    assert all(picture.shape == (200, 600, 3) for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == 3
    (series,) = env.task.episode_series(env.state).values()
    assert series.tolist() == [[1.0] * 3] * 2


# -------------------------------------------------------------------------------------------- messages
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_agents": 0}, "n_agents must be at least 1; got 0"),
        ({"n_cues": 1}, "n_cues must be at least 2; got 1"),
        ({"delay": -1}, "delay must be at least 0; got -1"),
        ({"extra_delay": -2}, "extra_delay must be at least 0; got -2"),
        ({"bonus": 1.5}, r"bonus must be in \[0, 1\]; got 1.5"),
    ],
)
def test_parameters_out_of_range_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        RecallParams(**params)


def test_a_low_time_limit_does_not_cut_the_answer_off():
    task = MarlTdTask.RECALL.get_task({"delay": 7, "extra_delay": 2, "max_steps": 3})
    env = task.get_env_fun(4, False, 0, "cpu")()
    assert env.task.params.max_steps == task.max_steps(env) == 11
    ends = env.rollout(20, break_when_all_done=True, break_when_any_done=False)["next"]
    assert ends["terminated"].any(1).all() and not ends["truncated"].any()


def test_benchmarl_knows_a_raised_time_limit():
    """It stores so many steps of an episode, and evaluates for so long."""
    config = {**MarlTdTask.MATRIX_GAME.get_from_yaml().config, "repeats": 5}
    task = MarlTdTask.MATRIX_GAME.get_task(config)
    assert task.max_steps(task.get_env_fun(1, False, 0, "cpu")()) == 5


def test_a_plain_batch_is_enough_for_the_policies():
    td = TensorDict({"agents": TensorDict({"observation": torch.zeros(2, 3, 3)}, [2, 3])}, [2])
    td["state"] = torch.tensor([[1, 0, 0, 1, 1, 0, 0.0], [0, 1, 0, 1, 0, 1, 0.5]])
    policies = game().baselines()
    named = policies["perfect_memory"](td)["agents", "action"]
    assert named.tolist() == [[0, 1, 0], [1, 1, 1]]
    assert policies["guess"](td)["agents", "action"].tolist() == [[0] * 3] * 2
