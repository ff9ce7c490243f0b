"""Classical routing rules of the banking task, its score and its pictures."""

import numpy as np
import pytest
import torch

from marl_td.tasks import make_env, make_task
from marl_td.tasks.banking import policies, queueing
from marl_td.tasks.banking.params import HOLD
from marl_td.tasks.banking.table import act, main, simulate

SMALL = [12, 12, 12]


def loaded(task, queue, n_envs=1):
    """A state with these loads now and ever since, and one payment in every buffer."""
    state = task.reset(n_envs, task.draw_reset(n_envs, torch.Generator()))
    queue = torch.tensor(queue).expand(n_envs, 3)
    return state._replace(
        queue=queue,
        seen=queue.unsqueeze(1).expand_as(state.seen),
        buffer=torch.ones_like(state.buffer),
        worth=torch.full_like(state.worth, 100.0),
    )


@pytest.fixture(scope="module")
def fresh():
    """A small task with fresh loads and its rules."""
    task = make_task("banking", start="empty", stale=0, capacity=SMALL)
    return task, task.baselines()


@pytest.mark.parametrize(
    ("name", "queue", "channel"),
    [
        ("join_shortest", [2.0, 3.0, 7.0], 1),  # 1, 0.75, 0.875 payments per server
        ("join_shortest", [1.0, 3.0, 3.0], 2),
        # 20 ms + 10 ms for each payment ahead of the next free server, against 80 ms
        ("shortest_delay", [6.0, 0.0, 0.0], 0),
        ("shortest_delay", [7.0, 0.0, 0.0], 0),  # a tie goes to the cheaper channel
        ("shortest_delay", [8.0, 0.0, 0.0], 1),
        ("shortest_delay_fresh", [8.0, 0.0, 0.0], 1),
        ("shortest_delay_predicted", [8.0, 0.0, 0.0], 1),  # nothing to predict without age
        ("threshold", [3.0, 0.0, 0.0], 0),
        ("threshold", [4.0, 0.0, 0.0], 1),
        ("threshold", [4.0, 7.0, 0.0], 2),
        ("improvement", [1.0, 0.0, 0.0], 0),
        ("improvement", [4.0, 0.0, 0.0], 1),  # leaves internal earlier than shortest delay
        ("improvement_predicted", [4.0, 0.0, 0.0], 1),
        ("optimal_fresh", [0.0, 0.0, 0.0], 0),
        ("optimal_fresh", [6.0, 0.0, 0.0], 1),
        ("shortest_delay", [12.0, 0.0, 0.0], 1),
        ("join_shortest", [12.0, 12.0, 12.0], HOLD),  # all full
        ("join_shortest", [3.0, 12.0, 12.0], 0),  # the others are full
    ],
)
def test_rules_choose_as_defined(fresh, name, queue, channel):
    task, rules = fresh
    assert act(task, rules[name], loaded(task, queue))["agents"].tolist() == [[channel] * 3]


@pytest.mark.parametrize(
    "params",
    [
        {"classes": True},
        {"hold": True, "burst": True, "n_agents": 2},
        {"clock": "event", "stale": 3, "classes": True},
    ],
    ids=["classes", "hold", "event"],
)
def test_every_rule_stays_within_the_mask(params):
    common = {"start": "empty", "capacity": [3, 5, 9], "arrival_rate": 170.0}
    env = make_env("banking", n_envs=3, **common, **params)
    for policy in env.task.baselines().values():
        steps = env.rollout(12, policy)
        taken = steps["agents", "action"].unsqueeze(-1)
        assert steps["agents", "action_mask"].gather(-1, taken).all()


def test_old_loads_lead_astray_and_true_ones_do_not():
    task = make_task("banking", start="empty", stale=4)
    state = loaded(task, [0.0, 0.0, 0.0])._replace(queue=torch.tensor([[9.0, 0.0, 0.0]]))
    rules = task.baselines()
    assert act(task, rules["shortest_delay"], state)["agents"].tolist() == [[0, 0, 0]]
    assert act(task, rules["shortest_delay_fresh"], state)["agents"].tolist() == [[1, 1, 1]]


def test_prediction_by_hand():
    # Seen 1 step ago: 1, 4, 0. Router 2 sent 1 payment to external, and so assumes 3 in all.
    task = make_task("banking", start="empty", stale=1)
    state = loaded(task, [1.0, 4.0, 0.0])
    sent = torch.zeros_like(state.sent)
    sent[0, 0, 1, 1] = 1.0
    seen = task.observe(state._replace(sent=sent))["agents"]
    td = make_env("banking", n_envs=1, start="empty", stale=1).reset()
    td["agents", "observation"] = seen
    found = policies.predicted_loads(task, td)[0, :, 0]
    internal, external = 1 - 0.005 * 50, 4 - 0.005 * 12.5 * 4
    expected = [[internal, external, 0.0], [internal, external + 3, 0.0], [internal, external, 0.0]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_the_static_split_is_kept_and_repeatable():
    task = make_task("banking", start="empty", max_steps=200)
    share = queueing.best_split(task.params)
    state = loaded(task, [0.0, 0.0, 0.0], 4000)
    taken = act(task, task.baselines()["static_split"], state)["agents"]
    again = act(task, task.baselines()["static_split"], state)["agents"]
    assert torch.equal(taken, again)  # each call of baselines() starts its random stream anew
    counts = torch.bincount(taken.flatten(), minlength=4) / taken.numel()
    assert counts.tolist() == pytest.approx([*share, 0.0], abs=0.02)


def test_the_riskiest_class_goes_to_the_safest_channel():
    task = make_task("banking", start="empty", stale=0, classes=True)
    state = loaded(task, [0.0, 0.0, 0.0])
    action = act(task, task.baselines()["shortest_delay_safe"], state)["agents"]
    assert task.choices[action[0]].tolist() == [[0, 0, 2]] * 3
    info = task.step(state, {"agents": action}, task.draw_step(1, torch.Generator())).info
    assert float(info["risky"]) == 0.0
    blind = act(task, task.baselines()["shortest_delay"], state)
    info = task.step(state, blind, task.draw_step(1, torch.Generator())).info
    assert float(info["risky"]) == 3.0


def test_rules_are_ordered_in_the_default_task():
    task = make_task("banking", max_steps=300)
    rules, means = task.baselines(), {}
    for name in ("uniform", "shortest_delay", "improvement_predicted"):
        means[name] = float(task.score(simulate(task, rules[name], 128)).mean())
    # The lower bound is 53.4 ms (the dynamic programme, in the docs page).
    assert means["uniform"] > means["shortest_delay"] > 1.1 * means["improvement_predicted"] > 58.0


def test_the_score_is_littles_law():
    task = make_task("banking", start="empty")
    totals = {"latency": torch.tensor([117.55, 58.775]), "steps": torch.tensor([2000.0, 2000.0])}
    # 10 s of on average 11.755 payments in the system, at 117.55 payments / s: 100 ms each.
    torch.testing.assert_close(task.score(totals), torch.tensor([100.0, 50.0]))
    assert task.unit == "ms" and not task.higher_is_better


# --------------------------------------------------------------------------- pictures
def test_the_picture_shows_the_state():
    env = make_env("banking", n_envs=2, start="empty")
    env.reset()
    empty = env.render()
    assert empty.dtype == np.uint8 and empty.shape == (400, 1000, 3)
    env.state = loaded(env.task, [9.0, 40.0, 0.0], 2)
    assert not np.array_equal(empty, env.render(index=1))


def test_series_are_named_with_units():
    task = make_task("banking", start="empty")
    state = loaded(task, [9.0, 4.0, 1.0])
    series = task.episode_series(state)
    loads = series["payments in internal, external, chain, buffers"]
    assert loads.tolist() == [[9.0, 4.0, 1.0, 3.0]]
    assert series["portfolio risk (%)"].tolist() == [[pytest.approx(2.0)]]


def test_the_table_command_draws_a_picture(tmp_path):
    main(["--picture", str(tmp_path / "a.png"), "start=empty"])
    assert (tmp_path / "a.png").stat().st_size > 5_000
