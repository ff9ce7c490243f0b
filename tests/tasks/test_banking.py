"""The banking task: one step by hand, conservation, masks, what routers see, errors."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchrl.envs.utils import check_env_specs

from marl_td.tasks import make_env, make_task
from marl_td.tasks.banking import dynamics
from marl_td.tasks.banking.params import HOLD

KINDS = {
    "slot": {},
    "event": {"clock": "event"},
    "fresh": {"stale": 0},
    "classes": {"classes": True, "stale": 2},
    "bursts": {"burst": True},
    "event_bursts_classes": {"clock": "event", "burst": True, "classes": True, "stale": 1},
    "hold_small": {"hold": True, "capacity": [2, 4, 8], "arrival_rate": 180.0, "n_agents": 2},
}
kinds = pytest.mark.parametrize("params", KINDS.values(), ids=KINDS.keys())


def cold(**params):
    """A task that starts empty, which needs no dynamic programme."""
    return make_task("banking", **{"start": "empty", **params})


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def legal(task, state, draw):
    """A random action among the available ones."""
    mask = task.action_mask(state)["agents"]
    score = torch.rand(mask.shape, generator=draw)
    return {"agents": torch.where(mask, score, -1.0).argmax(-1)}


def play(task, n_envs, steps, seed=0):
    """States and steps of a random legal policy."""
    draw = generator(seed)
    state = task.reset(n_envs, task.draw_reset(n_envs, draw))
    for _ in range(steps):
        step = task.step(state, legal(task, state, draw), task.draw_step(n_envs, draw))
        yield state, step
        state = step.state


def rows(noise, index):
    return {key: value[index] for key, value in noise.items()}


# ------------------------------------------------------------------------- contract
@kinds
def test_specs_hold(params):
    check_env_specs(make_env("banking", n_envs=2, start="empty", **params))


def test_there_are_no_continuous_actions():
    with pytest.raises(ValueError, match="task 'banking' has no continuous actions"):
        make_task("banking", continuous=True)


def test_a_dead_router_sends_all_to_internal():
    task = cold(n_agents=3, dead_agents=0.3, stale=0)
    assert task.n_dead == 1 and task.groups["agents"].mortal
    state = task.reset(1, task.draw_reset(1, generator()))
    alive = torch.tensor([[True, False, True]])
    state = state._replace(buffer=torch.tensor([[[2.0], [3.0], [1.0]]]), alive=alive)
    mask = task.action_mask(state)["agents"][0]
    assert mask[1].tolist() == [False, False, False, True] and mask[0, :3].all()
    to_chain = {"agents": torch.full((1, 3), 2)}
    step = task.step(state, to_chain, task.draw_step(1, generator()))
    sent = [step.info[name].item() for name in ("internal", "external", "chain")]
    assert sent == [3.0, 0.0, 3.0]
    assert torch.equal(step.state.alive, alive)
    assert task.team_state(state)[0, -3:].tolist() == [1.0, 0.0, 1.0]


def test_the_optimum_with_dead_routers_is_a_bound():
    living, failing = (make_task("banking", stale=0, dead_agents=d).optimum() for d in (0.0, 0.4))
    assert living.value == failing.value and failing.kind == "lower"
    assert failing.how == f"{living.how}, all routers alive"


@kinds
def test_an_environment_evolves_the_same_alone_and_in_a_batch(params):
    task, n_envs, alone = cold(**params), 5, 3
    draw = generator(1)
    state = task.reset(n_envs, task.draw_reset(n_envs, draw))
    single = type(state)(*(field[alone : alone + 1] for field in state))
    for _ in range(30):
        action, noise = legal(task, state, draw), task.draw_step(n_envs, draw)
        picked = slice(alone, alone + 1)
        step = task.step(state, action, noise)
        one = task.step(single, rows(action, picked), rows(noise, picked))
        state, single = step.state, one.state
        for batch, own in zip(state, single, strict=True):
            torch.testing.assert_close(batch[picked], own, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(step.reward["agents"][picked], one.reward["agents"])


def test_it_never_terminates_and_is_truncated_at_the_limit():
    steps = make_env("banking", n_envs=2, start="empty", max_steps=5).rollout(9)["next"]
    assert steps.shape == (2, 5)
    assert not steps["terminated"].any()
    assert steps["truncated"].squeeze(-1).tolist() == [[False] * 4 + [True]] * 2


# ------------------------------------------------------------------ one step by hand
def full_state(task, **fields):
    state = task.reset(1, task.draw_reset(1, generator()))
    return state._replace(**{name: torch.tensor([value]) for name, value in fields.items()})


def test_one_slot_by_hand():
    task = cold(stale=1, amount=100.0, amount_spread=0.0, cost_weight=2.0, loss_weight=0.5)
    state = full_state(
        task,
        queue=[2.0, 0.0, 1.0],
        buffer=[[1.0], [2.0], [0.0]],
        worth=[[100.0], [300.0], [0.0]],
    )
    # Internal gets 2 more, external 1: after routing 4, 1, 1. Internal works at 100 / s while it has
    # two payments or more: gaps of 0.2 end after 2 and 4 ms, the third would at 6 ms > 5 ms.
    action = {"agents": torch.tensor([[1, 0, HOLD]])}
    gaps = torch.full((1, 3, dynamics.most_completions(task.params)), 0.2)
    gaps[0, 1, 0] = 0.05  # external: 1 server at 12.5/s, ends after 4 ms
    gaps[0, 2, 0] = 0.03  # chain: 1 server at 5/s, would end after 6 ms
    noise = {
        "service": gaps,
        "arrival": torch.tensor([[[0.0], [0.9], [0.99895]]]),
        "amount": torch.zeros(1, 3, 1),
    }
    step = task.step(state, action, noise)
    # P(0 arrivals) = exp(-0.196) = 0.822, P(<= 1) = 0.983, P(<= 2) = 0.9989: 0, 1 and 3 arrivals.
    new = step.state
    assert new.queue.tolist() == [[2.0, 0.0, 1.0]]
    assert new.buffer.tolist() == [[[0.0], [1.0], [3.0]]]
    assert new.worth.tolist() == [[[0.0], [100.0], [300.0]]]
    assert new.seen.tolist() == [[[0.0, 0.0, 0.0], [2.0, 0.0, 1.0]]]
    assert new.sent.tolist() == [[[[0.0, 1.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]]
    # 6 payments for 5 ms, less the 3 + 1 ms after internal's completions and 1 ms after external's,
    # and 4 arrivals that waited 2.5 ms on average.
    latency = 6 * 0.005 - 0.003 - 0.001 - 0.001 + 4 * 0.0025
    info = {key: float(value) for key, value in step.info.items()}
    assert info["latency"] == pytest.approx(latency)
    assert info["completed"] == 3 and info["arrivals"] == 4
    assert (info["internal"], info["external"], info["chain"]) == (2, 1, 0)
    assert info["fees"] == pytest.approx(2 * 0.10 + 0.50)
    assert info["amount"] == 400.0
    assert info["loss"] == pytest.approx(0.02 * 100 + 0.03 * 300)
    assert info["latency_cost"] == pytest.approx(latency - 0.1 * 4)
    assert info["risk_cost"] == pytest.approx(11.0 - 0.05 * 400, rel=1e-5)
    reward = -(latency / 0.1 + 2.0 * 0.7 + 0.5 * 11.0)
    torch.testing.assert_close(step.reward["agents"], torch.full((1, 3), reward))
    assert not step.terminated.any()


@pytest.mark.parametrize(
    ("mark", "queue", "buffer"),
    [
        (0.0, [3, 1, 0], [1, 0, 0]),  # arrivals 0 .. 117.55, a third for each router
        (39.1, [3, 1, 0], [1, 0, 0]),
        (39.3, [3, 1, 0], [0, 1, 0]),
        (117.5, [3, 1, 0], [0, 0, 1]),
        (117.6, [2, 1, 0], [0, 0, 0]),  # internal: both servers busy, 100 / s
        (217.5, [2, 1, 0], [0, 0, 0]),
        (217.6, [3, 0, 0], [0, 0, 0]),  # external: one of 4 servers busy, 12.5 / s
        (230.0, [3, 0, 0], [0, 0, 0]),
        (230.1, [3, 1, 0], [0, 0, 0]),  # idle servers and chain: nothing happens
        (267.6, [3, 1, 0], [0, 0, 0]),
        (307.5, [3, 1, 0], [0, 0, 0]),
    ],
)
def test_one_event_by_hand(mark, queue, buffer):
    task = cold(clock="event", stale=0)
    assert task.params.event_rate == pytest.approx(307.55)
    state = full_state(task, queue=[2.0, 1.0, 0.0], buffer=[[0.0], [1.0], [0.0]])
    noise = {
        "event": torch.tensor([mark / 307.55]),
        "kind": torch.zeros(1),
        "amount": torch.zeros(1, 3, 1),
    }
    assert task.action_mask(state)["agents"][0].tolist() == [
        [False, False, False, True],
        [True, True, True, False],
        [False, False, False, True],
    ]
    step = task.step(state, {"agents": torch.tensor([[HOLD, 0, HOLD]])}, noise)
    assert step.state.queue.tolist() == [queue]
    assert step.state.buffer.squeeze(-1).tolist() == [buffer]
    assert float(step.info["latency"]) == pytest.approx(4 / 307.55)


def test_risk_classes_multiply_the_risk_and_are_sent_apart():
    task = cold(classes=True, stale=0, amount_spread=0.0)
    state = full_state(
        task,
        buffer=[[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]],
        worth=[[100.0, 0.0, 100.0], [0.0, 0.0, 100.0], [0.0, 0.0, 0.0]],
    )
    choice = torch.tensor([[0, HOLD, 2], [HOLD, HOLD, 0], [HOLD, HOLD, HOLD]])
    action = {"agents": (choice * torch.tensor([16, 4, 1])).sum(-1).unsqueeze(0)}
    assert task.action_mask(state)["agents"].gather(-1, action["agents"].unsqueeze(-1)).all()
    step = task.step(state, action, task.draw_step(1, generator()))
    # Class factors 0.5, 1, 4: 1.5 % on internal, 4 % on chain, 12 % on internal.
    assert float(step.info["loss"]) == pytest.approx(1.5 + 4.0 + 12.0)
    assert float(step.info["risky"]) == 1.0
    assert [float(step.info[name]) for name in ("internal", "external", "chain")] == [2, 0, 1]


def test_a_payment_behind_a_long_queue_is_likely_late():
    task = cold(stale=0, amount_spread=0.0)
    late = task.tables.late
    assert (late[0, :2] == 0).all() and (late[2, :8] == 0).all()
    # Behind 101 payments in internal 100 must complete first, in 1 s at 100 / s: P(Poisson(100) <= 99).
    terms = [math.exp(k * math.log(100) - 100 - math.lgamma(k + 1)) for k in range(100)]
    assert float(late[0, 101]) == pytest.approx(sum(terms), abs=1e-5)
    state = full_state(task, queue=[101.0, 0.0, 0.0], buffer=[[1.0], [0.0], [0.0]])
    state = state._replace(worth=state.buffer * 100.0)
    action = {"agents": torch.tensor([[0, HOLD, HOLD]])}
    info = task.step(state, action, task.draw_step(1, generator())).info
    assert float(info["late"]) == pytest.approx(sum(terms), abs=1e-5)
    assert float(info["loss"]) == pytest.approx(100 * (1 - 0.97 * (1 - sum(terms))), abs=1e-3)


# ------------------------------------------------------------------------ invariants
@given(seed=st.integers(0, 2**31), kind=st.sampled_from(sorted(KINDS)))
def test_payments_and_amounts_are_conserved(seed, kind):
    task = cold(**KINDS[kind])
    for old, step in play(task, 3, 12, seed):
        new, info = step.state, step.info
        change = (new.queue.sum(-1) + new.buffer.sum((1, 2))) - (
            old.queue.sum(-1) + old.buffer.sum((1, 2))
        )
        assert torch.equal(change, info["arrivals"] - info["completed"])
        routed = info["internal"] + info["external"] + info["chain"]
        kept = old.buffer.sum((1, 2)) - routed
        assert torch.equal(new.buffer.sum((1, 2)), kept + info["arrivals"])
        assert (new.queue >= 0).all() and (new.buffer >= 0).all()
        assert (new.queue <= task.tables.capacity).all()
        assert (new.worth >= -1e-2).all() and (step.info["latency"] >= 0).all()
        mask = task.action_mask(new)["agents"]
        assert mask.any(-1).all()


def test_full_channels_are_closed_and_turn_payments_away_in_order():
    task = cold(stale=0, capacity=[2, 4, 8])
    state = full_state(task, queue=[1.0, 4.0, 8.0], buffer=[[1.0], [1.0], [0.0]])
    assert task.action_mask(state)["agents"][0, 0].tolist() == [True, False, False, False]
    noise = task.draw_step(1, generator())
    noise["service"].fill_(9.0)
    noise["arrival"].fill_(0.0)
    new = task.step(state, {"agents": torch.tensor([[0, 0, HOLD]])}, noise).state
    assert new.queue.tolist() == [[2.0, 4.0, 8.0]]
    assert new.buffer.squeeze(-1).tolist() == [[0.0, 1.0, 0.0]]
    assert task.action_mask(new)["agents"][0, 1].tolist() == [False, False, False, True]


def test_keeping_without_the_right_to_sends_to_internal():
    state = full_state(cold(stale=0), buffer=[[1.0], [0.0], [0.0]])
    action = {"agents": torch.tensor([[HOLD] * 3])}
    for hold, sent in ((False, 1.0), (True, 0.0)):
        task = cold(stale=0, hold=hold)
        allowed = task.action_mask(state)["agents"][0]
        assert allowed[:, HOLD].tolist() == [hold, True, True]
        assert (
            float(task.step(state, action, task.draw_step(1, generator())).info["internal"]) == sent
        )


def test_routers_see_loads_d_steps_old_and_what_they_sent_since():
    stale = 3
    task = cold(stale=stale)
    history = list(play(task, 2, 12))
    queues = [state.queue for state, _ in history]
    state = history[-1][0]
    seen = task.observe(state)["agents"]
    loads = seen[..., task.columns["loads"]] * task.tables.servers
    torch.testing.assert_close(loads, queues[-1 - stale].unsqueeze(1).expand(-1, 3, -1))
    sent = (seen[..., task.columns["sent"]] * task.tables.servers).sum(1)
    routed = [
        torch.stack([step.info[name] for name in ("internal", "external", "chain")], -1)
        for _, step in history[-1 - stale : -1]
    ]
    torch.testing.assert_close(sent, sum(routed))
    assert seen[..., task.columns["index"]].tolist() == [torch.eye(3).tolist()] * 2
    true = task.team_state(state)[:, :3] * task.tables.servers
    torch.testing.assert_close(true, queues[-1])


def test_without_router_numbers_the_rest_of_the_observation_is_the_same():
    with_, without = (cold(router_id=router_id) for router_id in (True, False))
    (*_, (state, _)) = play(with_, 2, 8)
    seen = without.observe(state)["agents"]
    assert seen.shape == (2, 3, without.groups["agents"].d_obs) == (2, 3, 9)
    assert torch.equal(seen, with_.observe(state)["agents"][..., :-3])
    assert without.columns["index"] == slice(9, 9)


@pytest.mark.parametrize("clock", ["slot", "event"])
def test_bursts_keep_the_mean_rate_and_change_the_phase(clock):
    task = cold(clock=clock, burst=True, burst_factor=1.8, burst_time=0.01, stale=0)
    steps = [(state.phase, step) for state, step in play(task, 400, 60)]
    phase = torch.stack([phase for phase, _ in steps]).flatten()
    arrivals = torch.stack([step.info["arrivals"] for _, step in steps]).flatten()
    changed = torch.stack([step.state.phase != phase for phase, step in steps])
    mean = 117.55 * task.params.step_time
    assert float(phase.float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float(arrivals[phase == 0].mean()) == pytest.approx(1.8 * mean, rel=0.05)
    assert float(arrivals[phase == 1].mean()) == pytest.approx(0.2 * mean, rel=0.1)
    often = 1 - math.exp(-0.005 / 0.01) if clock == "slot" else task.params.step_time / 0.01
    assert float(changed.float().mean()) == pytest.approx(often, rel=0.06)


@pytest.mark.gpu
def test_the_step_is_the_same_on_a_gpu():
    host, device = cold(classes=True), cold(classes=True, device="cuda")
    draw = generator(3)
    state = host.reset(8, host.draw_reset(8, draw))
    there = type(state)(*(field.cuda() for field in state))
    for _ in range(20):
        action, noise = legal(host, state, draw), host.draw_step(8, draw)
        state = host.step(state, action, noise).state
        moved = {key: value.cuda() for key, value in noise.items()}
        there = device.step(there, {"agents": action["agents"].cuda()}, moved).state
        for ours, theirs in zip(state, there, strict=True):
            torch.testing.assert_close(theirs.cpu(), ours)


# ----------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_agents": 0}, "n_agents must be positive; got 0"),
        ({"stale": -1}, "stale must be at least 0; got -1"),
        ({"clock": "tick"}, "clock must be one of slot, event; got 'tick'"),
        ({"start": "hot"}, "start must be one of empty, warm; got 'hot'"),
        (
            {"servers": [2, 4]},
            "servers needs one entry for each of internal, external, chain; got 2",
        ),
        ({"service_time": [0.02, 0.0, 0.2]}, "service_time must be positive; got 0.0"),
        ({"price": [0.1, -0.5, 2.0]}, "price must be at least 0; got -0.5"),
        ({"risk": [0.03, 1.02, 0.01]}, r"every entry of risk must be in \[0, 1\]"),
        ({"arrival_rate": 190.0}, "below the total service rate 190 / s.*lower it or add servers"),
        ({"capacity": [1, 9, 9]}, "capacity of internal must be at least its 2 servers; got 1"),
        ({"burst_factor": 2.5}, r"burst_factor must be in \[1, 2\]; got 2.5"),
        ({"class_share": [0.5, 0.5]}, "must have equal lengths; got 2, 3"),
        ({"class_share": [0.6, 0.3, 0.2]}, "class_share must add up to 1; got 1.1"),
        (
            {"classes": True, "class_risk": [0.5, 1.0, 40.0]},
            r"risk x class_risk must be in \[0, 1\]; its largest value is 1.2",
        ),
    ],
)
def test_bad_parameters_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        make_task("banking", **params)
