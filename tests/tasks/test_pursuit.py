"""Pursuit: steps by hand, the loop that a step stands for, conservation, masks, views, ends."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from torchrl.envs.utils import check_env_specs

from marl_td.evaluation.baselines import baseline_table
from marl_td.tasks import make_env, make_task
from marl_td.tasks.predator_prey import PredatorPrey
from marl_td.tasks.predator_prey.params import MODES
from marl_td.tasks.pursuit import Pursuit, PursuitState
from marl_td.tasks.pursuit.params import PursuitParams
from marl_td.tasks.pursuit.task import CATCH, DOWN, LEFT, RIGHT, STAY, UP
from marl_td.tasks.registry import task_of_mode
from marl_td.training.compose import compose_task

WAYS = ((-1, 0), (1, 0), (0, -1), (0, 1))


def drawn(*rows, **params):
    """A task and a state from a picture: `A` an agent, `P` a prey, in reading order; prey stand still."""
    cells = [letter for row in rows for letter in row]
    params = {"prey_rest": 1.0, "sight": 1, **params}
    task = make_task(
        "pursuit",
        grid_size=len(rows),
        n_agents=cells.count("A"),
        n_prey=cells.count("P"),
        **params,
    )
    places = [[i for i, letter in enumerate(cells) if letter == kind] for kind in "AP"]
    agent, prey = (task.board.inside[place].unsqueeze(0) for place in places)
    return task, PursuitState(agent, prey, torch.zeros(1, agent.shape[1], 0, dtype=torch.bool))


def picture(task, state):
    """The board as rows of letters."""
    size = task.params.grid_size
    rows = [["."] * size for _ in range(size)]
    for letter, cells in zip("AP", state[:2], strict=True):
        for cell in cells[0][cells[0] != task.board.nowhere].tolist():
            row, column = task.board.place(torch.tensor(cell))
            rows[row][column] = letter
    return ["".join(row) for row in rows]


def calm(task, **noise):
    """Everybody's turn in order, prey choose the first free way."""
    n, m = task.params.n_agents, task.params.n_prey
    widths = {"agent_turn": n, "prey_turn": m, "way": m, "rest": m}
    fixed = {name: torch.arange(width).unsqueeze(0) / 100 for name, width in widths.items()}
    fixed["way"], fixed["rest"] = torch.zeros(1, m), torch.zeros(1, m)
    fixed["unheard"] = torch.zeros(1, n, 0)
    return fixed | {name: torch.tensor([values]) for name, values in noise.items()}


def stepped(task, state, *actions, **noise):
    """The step of one environment."""
    return task.step(state, {"agents": torch.tensor([actions])}, calm(task, **noise))


def outcome(step):
    """Reward, captures, lone catches and whether it is over."""
    info = step.info
    numbers = (step.reward["agents"][0, 0], info["captures"], info["lone_catches"])
    return (*(value.item() for value in numbers), step.terminated.item())


# ------------------------------------------------------------------------------------ by hand
def test_two_catch_a_prey_and_leave_with_it():
    task, state = drawn("APA", "...", "P.A")
    step = stepped(task, state, CATCH, CATCH, STAY)
    assert outcome(step) == (10.0, 1.0, 0.0, True)  # one agent is left, who cannot catch any more
    assert picture(task, step.state) == ["...", "...", "P.A"]
    assert step.reward["agents"].tolist() == [[10.0] * 3]
    assert task.alive(step.state)["agents"].tolist() == [[False, False, True]]


def test_one_alone_pays():
    task, state = drawn("APA", "...", "...", penalty=1.5)
    step = stepped(task, state, CATCH, STAY)
    assert outcome(step) == (-1.5, 0.0, 1.0, False)
    assert picture(task, step.state) == picture(task, state)


def test_three_catch_one_prey_and_all_leave():
    task, state = drawn("APA", ".A.", "..P")
    step = stepped(task, state, CATCH, CATCH, CATCH)
    assert outcome(step) == (10.0, 1.0, 0.0, True)
    assert picture(task, step.state) == ["...", "...", "..P"]


def test_two_agents_beside_two_prey_catch_the_one_whose_turn_is_first():
    task, state = drawn("AP..", "PA..", "....", "A..A")
    for turn, left in (([0.1, 0.2], "....P..."), ([0.2, 0.1], ".P......")):
        step = stepped(task, state, CATCH, CATCH, STAY, STAY, prey_turn=turn)
        assert outcome(step) == (10.0, 1.0, 0.0, False)
        assert "".join(picture(task, step.state))[:8] == left


def test_a_catcher_taken_by_one_prey_is_missing_at_the_next():
    """Three in a row with a prey between each: the middle one can help only once."""
    task, state = drawn("APAPA", *[".A..."] + ["....."] * 3)
    step = stepped(task, state, CATCH, CATCH, CATCH, STAY)
    assert outcome(step) == (8.0, 1.0, 1.0, False)
    assert picture(task, step.state)[0] == "...PA"
    step = stepped(task, state, CATCH, CATCH, CATCH, STAY, prey_turn=[0.2, 0.1])
    assert outcome(step) == (8.0, 1.0, 1.0, False)
    assert picture(task, step.state)[0] == "AP..."


def test_one_catcher_beside_two_prey_pays_for_both():
    task, state = drawn("PAP", "...", "A..")
    assert outcome(stepped(task, state, CATCH, STAY)) == (-4.0, 0.0, 2.0, False)


def test_a_catch_at_nothing_costs_nothing():
    task, state = drawn("A.P", "...", "A..")
    assert outcome(stepped(task, state, CATCH, CATCH)) == (0.0, 0.0, 0.0, False)


def test_agents_move_before_prey_are_judged():
    """Who steps beside a prey does not catch; a move into an agent, a prey or a wall fails."""
    task, state = drawn("AP.", ".A.", "A..")
    step = stepped(task, state, RIGHT, UP, UP)
    assert picture(task, step.state) == ["AP.", "AA.", "..."]
    step = stepped(task, state, LEFT, LEFT, RIGHT)
    assert picture(task, step.state) == ["AP.", "A..", ".A."]


def test_prey_walk_to_a_free_cell_after_the_agents():
    task, state = drawn("PA.", "...", "A..", prey_rest=0.0)
    assert picture(task, stepped(task, state, STAY, STAY).state) == [".A.", "P..", "A.."]
    assert picture(task, stepped(task, state, STAY, UP).state) == ["PA.", "A..", "..."]


def test_prey_that_want_the_same_cell_go_by_turn():
    task, state = drawn("P.P", "A.A", "...", prey_rest=0.0)
    assert picture(task, stepped(task, state, STAY, STAY).state)[0] == ".PP"
    later = stepped(task, state, STAY, STAY, prey_turn=[0.2, 0.1])
    assert picture(task, later.state)[0] == "PP."


def test_prey_enter_the_cells_of_those_who_were_caught():
    task, state = drawn("PAP.", "..A.", "A..A", "....", prey_rest=0.0)
    step = stepped(task, state, CATCH, CATCH, STAY, STAY, prey_turn=[0.2, 0.1], way=[0.99, 0.0])
    assert outcome(step) == (10.0, 1.0, 0.0, False)
    assert picture(task, step.state)[:2] == [".P..", "...."]


def test_rest_is_a_probability():
    task, state = drawn("P..", "...", "A.A", prey_rest=0.3)
    assert picture(task, stepped(task, state, STAY, STAY, rest=[0.2]).state)[0] == "P.."
    assert picture(task, stepped(task, state, STAY, STAY, rest=[0.4]).state)[1] == "P.."


# ------------------------------------------------------------------------------- beside the loop
def beside(a, b):
    return abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1


class LoopBoard:
    """A board played thing by thing, in the order of the turns; `None` stands for what is gone."""

    def __init__(self, size, agents, prey):
        self.size, self.agents, self.prey = size, list(agents), list(prey)
        self.captures = self.lone = 0

    def free(self, place):
        inside = 0 <= place[0] < self.size and 0 <= place[1] < self.size
        return inside and place not in self.agents and place not in self.prey

    def move_agents(self, actions, turn):
        for i in np.argsort(turn):
            if self.agents[i] is not None and actions[i] in (UP, DOWN, LEFT, RIGHT):
                way = WAYS[actions[i] - 1]
                target = (self.agents[i][0] + way[0], self.agents[i][1] + way[1])
                self.agents[i] = target if self.free(target) else self.agents[i]

    def judge(self, actions, order):
        for j in order:
            catching = [i for i, a in enumerate(self.agents) if a and actions[i] == CATCH]
            ready = [i for i in catching if beside(self.agents[i], self.prey[j])]
            if len(ready) >= 2:
                self.captures, self.prey[j] = self.captures + 1, None
                self.agents = [None if i in ready else a for i, a in enumerate(self.agents)]
            self.lone += len(ready) == 1

    def walk(self, way, order):
        targets = {}
        for j in order:
            around = [(self.prey[j][0] + row, self.prey[j][1] + column) for row, column in WAYS]
            open_ = [place for place in around if self.free(place)]
            if open_:
                targets[j] = open_[min(int(way[j] * len(open_)), len(open_) - 1)]
        for j, target in targets.items():
            if self.free(target):
                self.prey[j] = target

    def left(self, turn):
        """The prey still there, by turn."""
        return [j for j in np.argsort(turn) if self.prey[j] is not None]

    def step(self, actions, noise):
        self.move_agents(actions, noise["agent_turn"])
        self.judge(actions, self.left(noise["prey_turn"]))
        self.walk(noise["way"], self.left(noise["prey_turn"]))


def places(task, cells):
    """Row and column of each thing of one environment, None for those gone."""
    found = zip(*(part.tolist() for part in task.board.place(cells)), strict=True)
    gone = (cells == task.board.nowhere).tolist()
    return [None if out else place for place, out in zip(found, gone, strict=True)]


def random_action(task, state, generator, catch=0.5):
    """Random available actions, catching with probability `catch` where that is possible."""
    mask = task.action_mask(state)["agents"]
    score = torch.rand(mask.shape, generator=generator)
    score[..., CATCH] += torch.where(score[..., CATCH] < catch, 1.0, -1.0)
    return {"agents": torch.where(mask, score, -2.0).argmax(-1)}


@given(
    size=st.integers(3, 6),
    n_agents=st.integers(2, 6),
    n_prey=st.integers(1, 6),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=25, deadline=None)
def test_a_step_is_that_of_the_loop_and_nothing_is_lost(size, n_agents, n_prey, seed):
    n_prey = min(n_prey, size * size - n_agents)
    task = make_task("pursuit", grid_size=size, n_agents=n_agents, n_prey=n_prey)
    generator = torch.Generator().manual_seed(seed)
    state = task.reset(8, task.draw_reset(8, generator))
    for _ in range(6):
        action, noise = random_action(task, state, generator), task.draw_step(8, generator)
        step = task.step(state, action, noise)
        for env in range(8):
            before = [places(task, cells[env]) for cells in state[:2]]
            row = {name: value[env].numpy() for name, value in noise.items()}
            loop = LoopBoard(size, *before)
            loop.step(action["agents"][env].tolist(), row)
            agents, prey = (places(task, cells[env]) for cells in step.state[:2])
            assert (agents, prey) == (loop.agents, loop.prey)
            assert step.info["captures"][env] == loop.captures
            assert step.info["lone_catches"][env] == loop.lone
            crowd = [place for place in agents + prey if place is not None]
            assert len(set(crowd)) == len(crowd)
            assert before[1].count(None) + loop.captures == prey.count(None)
            assert 2 * loop.captures <= agents.count(None) - before[0].count(None)
            over = prey.count(None) == n_prey or agents.count(None) > n_agents - 2
            assert step.terminated[env].item() == over
        state = step.state


def test_the_loop_sees_captures_whose_catchers_are_contested():
    """The random boards above contain what is hard: several captures at once, and lone ones beside."""
    task = make_task("pursuit", grid_size=4, n_agents=6, n_prey=6)
    generator = torch.Generator().manual_seed(0)
    state = task.reset(500, task.draw_reset(500, generator))
    action = random_action(task, state, generator, catch=1.0)
    step = task.step(state, action, task.draw_step(500, generator))
    assert (step.info["captures"] > 1).sum() > 50
    assert ((step.info["captures"] > 0) & (step.info["lone_catches"] > 0)).sum() > 50


# ---------------------------------------------------------------------------------- what is seen
def test_views_are_centred_on_the_agent():
    task, state = drawn("AP.", "A..", "..P")
    agents, prey, walls = task.observe(state)["agents"][0, 0].unflatten(0, (3, 3, 3))
    assert agents.tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert prey.tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert walls.tolist() == [[1, 1, 1], [1, 0, 0], [1, 0, 0]]
    task, state = drawn("AP.", "A..", "..P", see_walls=False, sight=2)
    assert task.observe(state)["agents"].shape == (1, 2, 50)


def test_the_global_state_is_the_board():
    task, state = drawn("AP.", "A..", "..P")
    agents, prey = task.team_state(state)[0].unflatten(0, (2, 3, 3))
    assert agents.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert prey.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_masks_know_walls_and_prey():
    task, state = drawn("AP.", "A..", "..P")
    allowed = [row.nonzero().flatten().tolist() for row in task.action_mask(state)["agents"][0]]
    assert allowed == [[STAY, DOWN, RIGHT, CATCH], [STAY, UP, DOWN, RIGHT]]


def test_those_who_left_see_nothing_and_can_only_stay():
    task, state = drawn("APA", "A.A", "P..")
    state = stepped(task, state, CATCH, CATCH, STAY, STAY).state
    assert task.action_mask(state)["agents"][0, 0].tolist() == [True] + [False] * 5
    assert task.observe(state)["agents"][0, :2].eq(0).all()
    assert task.agent_info(state)["position"]["agents"][0].tolist() == [
        [-1.0, -1.0],
        [-1.0, -1.0],
        [1.0, 0.0],
        [1.0, 2.0],
    ]
    for ignored in (UP, DOWN, LEFT, RIGHT, CATCH):  # a policy that ignores the mask changes nothing
        again = stepped(task, state, ignored, ignored, STAY, STAY)
        assert outcome(again) == (0.0, 0.0, 0.0, False)
        assert all(torch.equal(a, b) for a, b in zip(again.state, state, strict=True))


# ---------------------------------------------------------------------------------- environments
@pytest.mark.parametrize("params", [{}, {"grid_size": 4, "n_agents": 3, "n_prey": 1, "sight": 1}])
def test_specs_hold(params):
    check_env_specs(make_env("pursuit", 3, **params))


def test_starts_are_uniform_and_all_different():
    task = make_task("pursuit", grid_size=4, n_agents=3, n_prey=2)
    state = task.reset(4000, task.draw_reset(4000, torch.Generator().manual_seed(0)))
    for cells in (state.agent, state.prey):
        share = torch.bincount(cells.flatten(), minlength=task.board.n_cells)[task.board.inside]
        assert (share / cells.numel() - 1 / 16).abs().max() < 0.012
    crowd = torch.cat([state.agent, state.prey], 1).sort(1).values
    assert (crowd.diff(dim=1) > 0).all()


def test_the_time_limit_truncates_and_the_last_pair_terminates():
    td = make_env("pursuit", 2, max_steps=4).rollout(9, break_when_any_done=False)
    assert td["next", "truncated"][0, :, 0].nonzero().flatten().tolist() == [3, 7]
    assert not td["next", "terminated"].any()
    _, state = drawn("APA", "...", "P.A")
    env = make_env(
        "pursuit", 1, grid_size=3, n_agents=3, n_prey=2, sight=1, prey_rest=1.0, max_steps=1
    )
    env.reset()
    env.state = state
    action = TensorDict({"action": torch.tensor([[CATCH, CATCH, STAY]])}, [1, 3])
    after = env.step(TensorDict({"agents": action}, [1]))["next"]
    assert after["terminated"].item() and not after["truncated"].item()


def test_dead_agents_are_not_on_the_board():
    task = make_task("pursuit", grid_size=4, n_agents=5, n_prey=3, dead_agents=0.4)
    state = task.reset(300, task.draw_reset(300, torch.Generator().manual_seed(0)))
    alive = task.alive(state)["agents"]
    assert (alive.sum(-1) == 3).all()
    assert (alive.float().mean(0) - 0.6).abs().max() < 0.1  # anyone may be dead
    assert task.observe(state)["agents"][~alive].eq(0).all()
    assert task.action_mask(state)["agents"][~alive].sum(-1).eq(1).all()
    assert task.optimum().value == 10.0  # three agents catch once


def test_a_lost_message_hides_the_others_but_not_the_prey():
    heard, state = drawn("AP.", "A..", "..P")
    deaf, _ = drawn("AP.", "A..", "..P", message_dropout=1.0)
    lost = state._replace(unheard=torch.ones(1, 2, deaf.board.window.numel(), dtype=torch.bool))
    seen, left = (
        task.observe(here)["agents"].unflatten(-1, (3, -1))
        for task, here in ((heard, state), (deaf, lost))
    )
    assert torch.equal(seen[..., 1:, :], left[..., 1:, :])
    assert seen[..., 0, :].sum(-1).tolist() == [[2.0, 2.0]]
    assert left[..., 0, :].sum(-1).tolist() == [[1.0, 1.0]]  # itself


# --------------------------------------------------------------------------------------- judging
def test_policies_by_rule_come_in_their_known_order():
    table = baseline_table("t", make_task("pursuit", max_steps=60), 40, seed=0)
    found = {row.policy: row.value for row in table.rows}
    assert found["random"] < -20.0 < 25.0 < found["hunter"] <= found["pack"] + 1.0
    assert found["pack"] <= table.optimum.value == 40.0


def test_the_pack_finds_prey_that_hunters_cannot_see():
    params = {"grid_size": 16, "n_agents": 2, "n_prey": 1, "max_steps": 60}
    table = baseline_table("t", make_task("pursuit", **params), 60, seed=0)
    found = {row.policy: row.value for row in table.rows}
    assert found["hunter"] + 2.0 < found["pack"] <= table.optimum.value == 10.0


@pytest.mark.parametrize(
    ("n_agents", "n_prey", "most"), [(8, 8, 40.0), (5, 8, 20.0), (8, 2, 20.0), (2, 1, 10.0)]
)
def test_the_bound_counts_prey_and_pairs(n_agents, n_prey, most):
    bound = make_task("pursuit", n_agents=n_agents, n_prey=n_prey).optimum()
    assert (bound.value, bound.kind) == (most, "upper")


def test_a_series_and_a_picture():
    env = make_env("pursuit", 2)
    env.reset()
    (line,) = env.task.episode_series(env.state).values()
    assert line.tolist() == [[8.0, 8.0]] * 2
    shown = env.render(index=1)
    assert shown.shape == (400, 400, 3) and shown.dtype == np.uint8
    assert not np.array_equal(shown, env.render(index=0))
    gone = torch.full_like(env.state.prey, env.task.board.nowhere)
    env.state = env.state._replace(prey=gone)
    assert not np.array_equal(shown, env.render(index=1))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"mode": "slow_prey"},
            "mode must be one of relative_overgeneralisation; got 'slow_prey'. Task 'predator_prey' has",
        ),
        ({"n_agents": 1}, "n_agents must be at least 2; got 1"),
        ({"n_prey": 0}, "n_prey must be at least 1; got 0"),
        ({"sight": 0}, "sight must be at least 1; got 0"),
        ({"penalty": -2.0}, "penalty must be at least 0; got -2"),
        ({"prey_rest": 1.5}, r"prey_rest is a probability and must be in \[0, 1\]; got 1.5"),
        ({"grid_size": 3}, "16 agents and prey do not fit on 9 cells; raise grid_size"),
        ({"max_steps": 0}, "max_steps must be at least 1; got 0"),
    ],
)
def test_a_bad_parameter_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        make_task("pursuit", **params)


@pytest.mark.parametrize("mode", MODES)
def test_hunts_for_one_prey_are_found_under_this_name_too(mode):
    task = make_task("pursuit", mode=mode, n_agents=2, grid_size=4)
    assert isinstance(task, PredatorPrey) and task.params.mode == mode
    words = ["task=marl_td/pursuit", f"task.mode={mode}", "task.prey=total"]
    name, found = compose_task(words)
    assert name == "marl_td/predator_prey"
    assert (found.config["mode"], found.config["prey"]) == (mode, "total")


def test_its_own_mode_stays_its_own():
    mode = "relative_overgeneralisation"
    assert isinstance(make_task("marl_td/pursuit", mode=mode), Pursuit)
    assert compose_task(["task=marl_td/pursuit", f"task.mode={mode}"])[0] == "marl_td/pursuit"
    assert task_of_mode("vmas/pursuit", "seed") == "vmas/pursuit"
    with pytest.raises(ValueError, match="Task 'predator_prey' has the modes seed"):
        PursuitParams(mode="seed")
