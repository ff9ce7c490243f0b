"""Path finding beside pogema 1.4.0, rule `soft`: a replay of what `scripts/pogema_fixture.py` saw."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from marl_td.tasks import make_task

FILE = np.load(Path(__file__).parent / "pogema_soft.npz")
SETTINGS = json.loads(str(FILE["settings"]))


def recorded(number):
    """What pogema did in one setting, as tensors."""
    names = [name for name in FILE.files if name.endswith(f"_{number}")]
    return {name.rsplit("_", 1)[0]: torch.from_numpy(FILE[name]) for name in names}


def as_text(free):
    maps = [" ".join("".join(".#"[not cell] for cell in row) for row in one) for one in free]
    return "/".join(maps)


def same_start(task, told, size):
    """The start of all episodes, each on its own map."""
    n_envs = len(told["free"])
    state = task.reset(n_envs, task.draw_reset(n_envs, torch.Generator().manual_seed(0)))
    places, goals = (told[name][:, 0].long() for name in ("places", "goals"))
    goal = goals[..., 0] * size + goals[..., 1]
    start = places[..., 0] * size + places[..., 1]
    maps = torch.arange(n_envs)
    way = task.tables.steps(maps, goal, start)
    return state._replace(map=maps, cell=task.board.inside[start], goal=goal, way=way)


def compare_views(seen, told, time):
    """Obstacles and goals are as in pogema; agents too, less those that it loses sight of.

    pogema clears the cell that an agent leaves after another has entered it already, if the other's number
    is lower: until somebody moves again, nobody sees who stands there.
    """
    active = told["active"][0, time]
    ours = seen[active, : 3 * 49].unflatten(-1, (3, 7, 7))
    theirs = told["seen"][time][active].float()
    assert torch.equal(ours[:, [0, 2]], theirs[:, [0, 2]])
    assert (theirs[:, 1] <= ours[:, 1]).all()
    if time == 0:
        assert torch.equal(theirs, ours)


@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_every_step_is_pogema_s(number):
    setting, told = SETTINGS[number], recorded(number)
    size, mode = setting["size"], setting["mode"]
    task = make_task(
        "mapf", mode=mode, n_agents=setting["agents"], layout=as_text(told["free"]), sight=3
    )
    state = same_start(task, told, size)
    running = torch.ones(len(told["free"]), dtype=torch.bool)
    cost = torch.zeros(len(running))
    for time in range(setting["steps"]):
        if running[0]:
            compare_views(task.observe(state)["agents"][0], told, time)
        noise = task.draw_step(len(running), torch.Generator().manual_seed(time))
        step = task.step(state, {"agents": told["actions"][:, time].long()}, noise)
        cost = cost + step.info["cost"]
        after = task.agent_info(step.state)["position"]["agents"]
        active = told["active"][:, time + 1]
        expected = torch.where(active.unsqueeze(-1), told["places"][:, time + 1], -1)
        assert torch.equal(after[running], expected[running].float())
        assert torch.equal(step.reward["agents"][running], told["rewards"][running, time].float())
        assert torch.equal(step.terminated[running], told["ended"][running, time])
        goals = told["goals"][:, time + 1].long()
        state = step.state._replace(goal=goals[..., 0] * size + goals[..., 1])
        over = running & step.terminated
        if mode == "nothing" and over.any():
            assert torch.equal(cost[over].int(), told["costs"][over])
        running = running & ~step.terminated


def test_the_record_has_conflicts_arrivals_and_ends_of_all_kinds():
    steps = sum(int(recorded(k)["active"][:, :-1].sum()) for k in range(len(SETTINGS)))
    assert steps > 20_000
    ends = dict.fromkeys(("finish", "nothing", "restart"), 0)
    arrivals = failed = 0
    for k, setting in enumerate(SETTINGS):
        told = recorded(k)
        ends[setting["mode"]] += int(told["ended"].any(1).sum())
        arrivals += int(told["rewards"].sum())
        stayed = (told["places"][:, 1:] == told["places"][:, :-1]).all(-1)
        failed += int((stayed & (told["actions"] > 0) & told["active"][:, 1:]).sum())
    assert ends["finish"] >= 3 and ends["nothing"] >= 3 and ends["restart"] == 0
    assert arrivals > 500 and failed > 5000
