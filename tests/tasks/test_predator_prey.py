"""Predator-prey: steps by hand, the game solved against an exhaustive search, masks, views, failures."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_td.evaluation.baselines import baseline_table
from marl_td.tasks import make_env, make_task
from marl_td.tasks.predator_prey import PredatorPreyParams, PredatorPreyState
from marl_td.tasks.predator_prey.board import MOVES, build
from marl_td.tasks.predator_prey.exact import Solution, solve

STAY, UP, DOWN, LEFT, RIGHT = range(5)


def at(task, predators, prey):
    """A state with everybody at (row, column), all alive and heard."""
    place = task.board.place.tolist()
    n = task.params.n_agents
    cells = torch.tensor([[place.index(list(spot)) for spot in predators]])
    yes = torch.ones(1, n, dtype=torch.bool)
    heard = torch.ones(1, n, n - 1, dtype=torch.bool)
    return PredatorPreyState(cells, torch.tensor([place.index(list(prey))]), yes, heard)


def stepped(task, state, predators, prey=None, way=0.0):
    """The step of one environment."""
    n = task.params.n_agents
    action = {"predator": torch.tensor([predators])}
    if prey is not None:
        action["prey"] = torch.tensor([[prey]])
    noise = {"way": torch.tensor([way]), "heard": torch.ones(1, n, n - 1)}
    return task.step(state, action, noise)


def places(task, state):
    """Rows and columns of the predators and of the prey."""
    return task.board.place[state.predator[0]].tolist(), task.board.place[state.prey[0]].tolist()


# ------------------------------------------------------------------------------------ by hand
def test_the_prey_is_caught_when_all_are_a_kings_move_away():
    task = make_task("predator_prey", grid_size=5, n_agents=2, prey="learned")
    state = at(task, [(1, 1), (4, 2)], (2, 2))
    step = stepped(task, state, [STAY, STAY], STAY)
    assert not step.terminated and step.info["captures"].item() == 0
    assert step.reward["predator"].tolist() == [[pytest.approx(-0.01)] * 2]
    assert step.reward["prey"].tolist() == [[1.0]]
    step = stepped(task, state, [STAY, UP], STAY)  # (3, 2) is beside (2, 2)
    assert step.terminated and step.info["captures"].item() == 1
    assert step.reward["predator"].tolist() == [[pytest.approx(9.99)] * 2]
    assert step.reward["prey"].tolist() == [[-10.0]]


def test_all_move_at_once_and_walls_hold():
    task = make_task("predator_prey", grid_size=4, n_agents=2, prey="learned", zero_sum=True)
    state = at(task, [(0, 0), (3, 3)], (0, 1))
    step = stepped(task, state, [RIGHT, DOWN], LEFT)  # past each other; down is a wall
    assert places(task, step.state) == ([[0, 1], [3, 3]], [0, 0])
    assert step.reward["prey"].item() == pytest.approx(0.01)


def test_a_prey_flees_from_the_nearest_or_from_all():
    spots, prey = [(0, 2), (4, 0), (4, 4)], (2, 2)
    nearest = make_task("predator_prey", grid_size=5, prey="nearest")
    # staying leaves 4 to the nearest, squared; down 9 to it, but 5 to the others; left and right 5
    assert places(nearest, stepped(nearest, at(nearest, spots, prey), [STAY] * 3).state)[1] == [
        3,
        2,
    ]
    total = make_task("predator_prey", grid_size=5, prey="total")
    # sums of squares: stay 4 + 8 + 8, up 1 + 13 + 13, down 9 + 5 + 5, left and right 5 + 5 + 13
    assert places(total, stepped(total, at(total, spots, prey), [STAY] * 3).state)[1] == [1, 2]


def test_a_prey_that_walks_at_random_takes_each_move_equally_often():
    task = make_task("predator_prey", grid_size=5, prey="random")
    state = at(task, [(0, 0)] * 3, (2, 2))
    ends = [
        places(task, stepped(task, state, [STAY] * 3, way=w).state)[1] for w in (0.1, 0.3, 0.99)
    ]
    assert ends == [[2, 2], [1, 2], [2, 3]]


def test_a_fast_prey_moves_twice():
    task = make_task("predator_prey", grid_size=4, mode="fast_prey", prey="learned")
    assert task.groups["prey"].action.n == 25
    state = at(task, [(3, 3)] * 3, (0, 0))
    assert places(task, stepped(task, state, [STAY] * 3, 5 * DOWN + RIGHT).state)[1] == [1, 1]
    assert places(task, stepped(task, state, [STAY] * 3, 5 * UP + DOWN).state)[1] == [1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_open_cells_hang_together_and_closed_ones_are_as_many_as_asked(seed):
    params = PredatorPreyParams(
        mode="obstacles", grid_size=6, obstacle_share=0.3, obstacle_seed=seed
    )
    board = build(params)
    assert board.n_cells == 36 - 11
    reached = {0}
    for _ in range(board.n_cells):
        reached |= {cell for at in reached for cell in board.next[at].tolist()}
    assert len(reached) == board.n_cells
    for cell, move in itertools.product(range(board.n_cells), range(5)):
        target = board.place[cell] + torch.tensor(MOVES[move])
        inside = ((target >= 0) & (target < 6)).all() and board.open[tuple(target)]
        goes = target if inside else board.place[cell]
        assert board.place[board.next[cell, move]].tolist() == goes.tolist()


# ------------------------------------------------------------------------------------ solved
def searched(board, n_agents, prey):
    """The same by exhaustive search over joint positions and joint moves: rounds of a dictionary."""
    cells = range(board.n_cells)
    ahead, after, near, square = (
        table.tolist() for table in (board.next, board.after, board.near, board.square)
    )
    states = list(itertools.product(cells, repeat=n_agents + 1))
    caught = {s for s in states if all(near[p][s[0]] for p in s[1:])}

    def moves(spots):
        return list(itertools.product(*({*ahead[p]} for p in spots)))

    def fled(x, spots):
        squares = [[square[y][p] for p in spots] for y in after[x]]
        far = [min(row) if prey == "nearest" else sum(row) for row in squares]
        return after[x][int(np.argmax(far))]

    def wins(x, spots, won):
        if prey == "informed":
            return any(all((y, *to) in won for y in after[x]) for to in moves(spots))
        if prey == "visible":
            return all(any((y, *to) in won for to in moves(spots)) for y in after[x])
        return any((fled(x, spots), *to) in won for to in moves(spots))

    steps, won = {}, set(caught)
    for k in range(1, 100):
        fresh = [s for s in states if s not in steps and wins(s[0], s[1:], won)]
        if not fresh:
            break
        steps.update(dict.fromkeys(fresh, k))
        won |= set(fresh)
    starts = [s for s in states if len(set(s)) == n_agents + 1]
    found = [steps[s] for s in starts if s in steps]
    if not found:
        return Solution(float("inf"), 0, 0.0)
    return Solution(sum(found) / len(found), max(found), len(found) / len(starts))


@pytest.mark.parametrize("prey", ["nearest", "total", "informed", "visible"])
@pytest.mark.parametrize(
    "params",
    [
        {"grid_size": 3, "n_agents": 2, "capture_distance": 1.0},
        {"grid_size": 4, "n_agents": 2},
        {"grid_size": 4, "n_agents": 1, "capture_distance": 1.0, "mode": "fast_prey"},
        {"grid_size": 4, "n_agents": 2, "mode": "obstacles", "obstacle_share": 0.3},
        {"grid_size": 3, "n_agents": 2, "capture_distance": 0.0},
    ],
    ids=["3x3", "4x4", "fast", "obstacles", "same cell"],
)
def test_the_solution_is_that_of_an_exhaustive_search(params, prey):
    board = build(PredatorPreyParams(**params))
    n_agents = params["n_agents"]
    found, expected = solve(board, n_agents, prey), searched(board, n_agents, prey)
    assert found.mean == pytest.approx(expected.mean)
    assert (found.most, found.share) == (expected.most, pytest.approx(expected.share))


@pytest.mark.slow
@pytest.mark.parametrize("prey", ["nearest", "total", "informed", "visible"])
def test_three_on_4x4_cells_as_an_exhaustive_search_finds(prey):
    board = build(PredatorPreyParams(grid_size=4))
    assert solve(board, 3, prey) == searched(board, 3, prey)


def test_against_a_random_prey_the_value_obeys_bellmans_equation_by_hand():
    """Two cells in a row: a prey that takes five moves, of which one leads to the other cell."""
    board = build(PredatorPreyParams(grid_size=2, n_agents=1, capture_distance=0.0))
    value = solve(board, 1, "random").mean
    # In 2 x 2 cells each neighbour is entered with probability 1/5, and the prey stays with 3/5. From a
    # neighbouring cell: stepping onto the prey's cell catches with 3/5; staying where it may come with 1/5.
    # On it: staying catches with 3/5. From the diagonal: one neighbour cell catches with 1/5.
    # Let a, d be the values beside and across. After a move onto the prey it is beside with 2/5:
    # a = 1 + 2/5 a, so a = 5/3. Across, moving beside: caught 1/5, then prey stays (3/5, beside), or
    # goes to the other neighbour (1/5, across the new place): d = 1 + 3/5 a + 1/5 d.
    beside, across = 5 / 3, (1 + 3 / 5 * 5 / 3) / (4 / 5)
    assert value == pytest.approx((2 * beside + across) / 3, abs=1e-5)


def test_too_large_games_are_refused_and_have_no_optimum():
    board = build(PredatorPreyParams(grid_size=10, n_agents=4))
    with pytest.raises(ValueError, match="10000000000 joint positions are too many to solve"):
        solve(board, 4, "nearest")
    with pytest.raises(ValueError, match=r"prey must be nearest, total, .*got 'lazy'"):
        solve(build(PredatorPreyParams(grid_size=3)), 1, "lazy")
    assert make_task("predator_prey", n_agents=4).optimum() is None


def test_a_time_limit_that_cuts_best_play_short_leaves_no_optimum():
    limits = {limit: make_task("predator_prey", grid_size=4, max_steps=limit) for limit in (3, 4)}
    assert limits[4].optimum().value == pytest.approx(1.9418956)
    assert limits[3].optimum() is None  # some starts take 4


def test_kinds_of_yardstick():
    kinds = {
        name: make_task("predator_prey", grid_size=4, **params).optimum().kind
        for name, params in {
            "seen": {"prey": "nearest"},
            "unseen": {"prey": "nearest", "sight": 1},
            "learned": {"prey": "learned"},
        }.items()
    }
    assert kinds == {"seen": "exact", "unseen": "lower", "learned": "upper"}


def test_nobody_beats_best_play_and_chasing_comes_near():
    task = make_task("predator_prey", grid_size=6, prey="nearest")
    table = baseline_table("predator_prey", task, 512, seed=0)
    value = {row.policy: row.value for row in table.rows}
    low = {row.policy: row.low for row in table.rows}
    best = table.optimum.value
    assert best - 0.3 < min(value.values())
    assert value["straight"] < 3 * best < low["random"]


def test_dead_predators_are_not_waited_for():
    task = make_task("predator_prey", grid_size=4, n_agents=3, prey="random", dead_agents=0.34)
    assert task.n_dead == 1
    pair = make_task("predator_prey", grid_size=4, n_agents=2, prey="random")
    assert task.optimum().value == pair.optimum().value
    state = at(task, [(0, 0), (1, 1), (3, 3)], (0, 1))
    state = state._replace(alive=torch.tensor([[True, True, False]]))
    step = stepped(task, state, [STAY, STAY, UP], way=0.0)
    assert step.terminated.item()
    assert places(task, step.state)[0][2] == [3, 3]
    assert step.reward["predator"][0, 2].item() == 0.0
    assert task.action_mask(state)["predator"][0, 2].tolist() == [True] + [False] * 4


# ------------------------------------------------------------------------------------ views
def test_views_by_hand():
    task = make_task("predator_prey", grid_size=5, n_agents=2, prey="learned", sight=2)
    state = at(task, [(0, 0), (2, 1)], (4, 4))
    seen = task.observe(state)
    assert seen["predator"][0, 0].tolist() == [0, 0, 0.5, 0.25, 1, 0, 0, 0]
    assert seen["predator"][0, 1].tolist() == [0.5, 0.25, -0.5, -0.25, 1, 0, 0, 0]
    near = task.observe(at(task, [(0, 0), (2, 2)], (4, 4)))["prey"][0, 0]
    assert near.tolist() == [1, 1, 0, 0, 0, -0.5, -0.5, 1]
    lost = state._replace(heard=torch.zeros(1, 2, 1, dtype=torch.bool))
    assert task.observe(lost)["predator"][0, 0, 2:5].tolist() == [0, 0, 0]
    assert task.team_state(state)[0].tolist() == [0, 0, 0.5, 0.25, 1, 1, 1, 1]


def test_masks_and_walls_name_the_same_moves():
    task = make_task("predator_prey", mode="obstacles", grid_size=5, n_agents=2, prey="learned")
    env = make_env("predator_prey", 64, mode="obstacles", grid_size=5, n_agents=2, prey="learned")
    state = env.task.reset(64, env.task.draw_reset(64, env.rng))
    mask, seen = task.action_mask(state), task.observe(state)
    for group in ("predator", "prey"):
        assert (mask[group][..., 1:5] == (seen[group][..., -4:] < 0.5)).all()
        assert mask[group][..., 0].all()


# ------------------------------------------------------------------------------------ laws
PARAMS = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["seed", "fast_prey", "obstacles"]),
        "prey": st.sampled_from(["random", "nearest", "total", "learned"]),
        "n_agents": st.integers(1, 4),
        "grid_size": st.integers(3, 6),
        "dead_agents": st.sampled_from([0.0, 0.4]),
        "message_dropout": st.sampled_from([0.0, 0.5]),
    }
)


@settings(max_examples=25, deadline=None)
@given(PARAMS, st.integers(0, 1000))
def test_nobody_jumps_and_an_environment_alone_does_the_same(params, seed):
    torch.manual_seed(seed)
    env = make_env("predator_prey", 6, seed=seed, **params)
    task, data = env.task, env.reset()
    for _ in range(4):
        before, noise = env.state, task.draw_step(6, env.rng)
        env.inject_noise(noise)
        data = env.rand_action(data)
        action = {group: data[group, "action"] for group in task.groups}
        data = env.step(data)["next"]
        moved = task.board.place[env.state.predator] - task.board.place[before.predator]
        assert (moved.abs().sum(-1) <= before.alive.long()).all()
        ran = (task.board.place[env.state.prey] - task.board.place[before.prey]).abs().sum(-1)
        assert (ran <= (2 if params["mode"] == "fast_prey" else 1)).all()
        assert torch.isfinite(data["predator", "reward"]).all()
        row = slice(2, 3)
        alone = task.step(
            PredatorPreyState(*(part[row] for part in before)),
            {group: value[row] for group, value in action.items()},
            {name: value[row] for name, value in noise.items()},
        )
        for one, many in zip(alone.state, env.state, strict=True):
            assert torch.equal(one[0], many[2])


def test_renaming_predators_renames_what_they_get():
    task = make_task("predator_prey", grid_size=6, prey="total")
    state = task.reset(32, task.draw_reset(32, torch.Generator().manual_seed(0)))
    order = torch.tensor([2, 0, 1])
    other = state._replace(predator=state.predator[:, order])
    action = torch.randint(5, (32, 3), generator=torch.Generator().manual_seed(1))
    noise = task.draw_step(32, torch.Generator().manual_seed(2))
    one = task.step(state, {"predator": action}, noise)
    two = task.step(other, {"predator": action[:, order]}, noise)
    assert torch.equal(one.state.prey, two.state.prey)
    assert torch.equal(one.state.predator[:, order], two.state.predator)
    assert torch.equal(one.terminated, two.terminated)


def test_it_is_drawn():
    env = make_env("predator_prey", 2, mode="obstacles", dead_agents=0.4)
    env.reset()
    picture = env.render()
    assert picture.shape == (400, 400, 3) and picture.dtype == np.uint8
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"mode": "night"},
            "mode must be one of seed, fast_prey, obstacles; got 'night'. Task 'pursuit' is the mode",
        ),
        ({"prey": "lazy"}, "prey must be one of random, nearest, total, learned; got 'lazy'"),
        ({"grid_size": 1}, "grid_size must be at least 2; got 1"),
        ({"sight": 0}, "sight must be at least 1; got 0"),
        ({"obstacle_share": 0.9}, r"obstacle_share must be in \[0, 0.5\]; got 0.9"),
        ({"grid_size": 2, "n_agents": 4}, "4 predators and a prey do not fit on 4 open cells"),
    ],
)
def test_wrong_parameters_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        make_task("predator_prey", **params)
