"""Token passing: by hand, and whole episodes without collision or deadlock."""

import numpy as np
import pytest
import torch

from marl_td.evaluation.scores import evaluate_episodes
from marl_td.tasks import make_env, make_task
from marl_td.tasks.grid.space_time import as_bits
from marl_td.tasks.grid.token_passing import Token


def token_of(layout):
    free = np.array([[letter == "." for letter in row] for row in layout.split()])
    return Token(as_bits(free), free.shape[1] + 1)


def played(token, cells, goals, n_steps):
    """Where everybody is after each step; goals are kept."""
    seen = [cells]
    for _ in range(n_steps):
        seen.append(token.step(seen[-1], goals))
    return seen


def test_the_first_goes_straight_and_the_second_makes_room():
    seen = played(token_of(".... #.##"), {0: 3, 1: 0}, {0: 0, 1: 3}, 5)
    assert [cells[0] for cells in seen] == [3, 2, 1, 0, 0, 0][: len(seen)]
    assert [cells[1] for cells in seen] == [0, 1, 6, 1, 2, 3]


def test_who_finds_no_path_comes_first_and_the_token_stays_valid():
    # If 0, whose turn is first, went straight to its goal, 1 had nowhere to go: so it waits in the bay, 5.
    seen = played(token_of("... #.#"), {0: 1, 1: 0}, {0: 0, 1: 2}, 3)
    assert [cells[1] for cells in seen] == [0, 1, 2, 2]
    assert [cells[0] for cells in seen] == [1, 5, 1, 0]


def test_there_is_no_step_where_nobody_can_pass():
    assert token_of("..").step({0: 0, 1: 1}, {0: 1, 1: 0}) is None


def test_new_goals_are_planned_for_at_once_and_others_keep_their_paths():
    token = token_of("......... .........")
    seen = played(token, {0: 0, 1: 18}, {0: 8, 1: 10}, 2)
    kept = token._paths[0]
    after = token.step(seen[-1], {0: 8, 1: 18})
    assert token._paths[0] is kept and after[0] == 3  # on its way
    assert after[1] == 17 and token._paths[1][1] == 18  # turned round


def test_robots_that_are_not_where_they_should_be_plan_anew():
    token = token_of(".....")
    assert token.step({0: 0}, {0: 4}) == {0: 1}
    assert token.step({0: 3}, {0: 4}) == {0: 4}
    assert token.step({0: 4, 1: 2}, {0: 4, 1: 0}) == {0: 4, 1: 1}  # another one is there as well


def test_a_step_without_paths_is_left_to_pibt():
    env = make_env("warehouse", 1, layout="DP", n_agents=2, sight=1, blocked_cost=1.0)
    td = env.reset()
    cell = env.task.board.inside[torch.tensor([[0, 1]])]
    zero = torch.zeros_like(cell)
    loaded = torch.tensor(
        [[False, True]]
    )  # one has to pick where the other stands, which has to deliver
    env.state = env.state._replace(cell=cell, pick=zero, drop=zero, loaded=loaded)
    for name, value in env.task.agent_info(env.state).items():
        td["agents", "info", name] = value["agents"]
    td = env.step(env.task.baselines()["token_passing"](td))
    assert td["agents", "action"].tolist() == [[0, 0]]
    assert td["next", "info", "blocked"].item() == 0


# ---------------------------------------------------------------------------------- episodes
def test_a_warehouse_runs_for_a_whole_episode_and_nobody_waits_for_ever():
    task = make_task("warehouse", sight=1)
    env = make_env("warehouse", 4, sight=1)
    env.set_seed(1)
    td, policy = env.reset(), env.task.baselines()["token_passing"]
    delivered = torch.zeros(4)
    for _ in range(task.params.max_steps):
        td = env.step(policy(td))["next"]
        assert not td["info", "blocked"].any()  # every planned move is made
        delivered += td["info", "deliveries"].squeeze(-1)
        assert env.state.waited.max() < 4 * sum(task.board.shape)
    assert (delivered / task.params.max_steps > 0.45).all()  # PIBT: 0.468, bound: 0.592
    assert (delivered / task.params.max_steps <= task.optimum().value).all()


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("warehouse", {"n_agents": 50, "density": 0.3, "max_steps": 64}),
        ("warehouse", {"dead_agents": 0.5, "max_steps": 64}),
        ("mapf", {"mode": "restart"}),
        ("mapf", {"mode": "restart", "dead_agents": 0.3, "density": 0.3}),
        ("mapf", {"mode": "restart", "grid_size": 4, "n_agents": 6, "density": 0.1}),
    ],
)
def test_no_move_fails_and_more_is_done_than_by_other_rules(name, params):
    task = make_task(name, sight=1, **params)
    failed = "blocked" if name == "warehouse" else "conflicts"
    rules, scores = task.baselines(), {}
    for rule in ("token_passing", "pibt", "sidestep"):
        totals = evaluate_episodes(task, rules[rule], 8, seed=0).totals
        scores[rule] = task.score(totals).mean()
        assert rule == "sidestep" or not totals[failed].any()
    crowd = params.get("grid_size") == 4  # too narrow for planning ahead: PIBT does more
    assert scores["token_passing"] > scores["sidestep" if crowd else "pibt"]
