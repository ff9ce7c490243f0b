"""Queueing formulas, the dynamic programmes and the bounds of the banking task."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marl_td.tasks import make_task
from marl_td.tasks.banking import BankingParams, optimum, policies, queueing
from marl_td.tasks.banking.chain import Chain
from marl_td.tasks.banking.table import main, simulate

SMALL = [12, 12, 12]
"""Capacities that make the grid 13 x 13 x 13, and the chain the task's own, not a truncation."""

BEST_SPLIT = queueing.best_split(BankingParams())


def direct_erlang_c(load, servers):
    """The textbook sum."""
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last)


# ------------------------------------------------------------------------- formulas
@given(rho=st.floats(0.01, 0.99), mu=st.floats(0.1, 100.0))
def test_one_server_is_the_m_m_1_queue(rho, mu):
    assert queueing.erlang_c(rho * mu, mu, 1) == pytest.approx(rho)
    assert queueing.mean_latency(rho * mu, mu, 1) == pytest.approx(1 / (mu - rho * mu))


@given(rho=st.floats(0.01, 0.99), servers=st.integers(1, 12))
def test_erlang_c_is_the_textbook_sum(rho, servers):
    load = rho * servers
    assert queueing.erlang_c(load, 1.0, servers) == pytest.approx(direct_erlang_c(load, servers))
    if servers == 2:
        assert queueing.erlang_c(load, 1.0, 2) == pytest.approx(2 * rho**2 / (1 + rho))


def test_an_unstable_queue_never_answers():
    assert queueing.erlang_c(10.0, 5.0, 2) == 1.0
    assert queueing.mean_latency(10.0, 5.0, 2) == math.inf
    assert queueing.split_latency(BankingParams(), [1.0, 0.0, 0.0]) == math.inf


def test_erlang_c_refuses_bad_numbers():
    with pytest.raises(ValueError, match=r"erlang_c needs .* servers >= 1; got 1.0, 2.0, 0"):
        queueing.erlang_c(1.0, 2.0, 0)


def test_uniform_routing_takes_500_ms():
    rate, total = 117.55 / 3, 0.0
    for mu, c in zip((50.0, 12.5, 5.0), (2, 4, 8), strict=True):
        total += (1 / mu + direct_erlang_c(rate / mu, c) / (c * mu - rate)) / 3
    assert queueing.uniform_latency(BankingParams()) == pytest.approx(total)
    assert total == pytest.approx(0.5000, abs=3e-4)


@given(a=st.floats(-0.03, 0.03), b=st.floats(-0.03, 0.03))
def test_no_split_near_the_best_one_is_better(a, b):
    params, best = BankingParams(), BEST_SPLIT
    assert sum(best) == pytest.approx(1.0) and min(best) > 0.05
    other = [best[0] + a, best[1] + b, best[2] - a - b]
    if min(other) >= 0:
        other_latency = queueing.split_latency(params, other)
        assert queueing.split_latency(params, best) <= other_latency + 1e-9


def test_dear_fees_empty_the_dear_channel():
    assert queueing.best_split(BankingParams(), price_weight=0.05)[2] == 0.0


def test_pooled_equal_servers_are_one_m_m_c_queue():
    params = BankingParams(service_time=[0.08] * 3)
    exact = queueing.mean_latency(117.55, 12.5, 14)
    assert queueing.pooled_latency(params) == pytest.approx(exact, rel=1e-9)
    calm = queueing.pooled_latency(
        BankingParams(service_time=[0.08] * 3, burst=True, burst_factor=1.0)
    )
    assert calm == pytest.approx(exact, rel=1e-9)


def test_the_improvement_index_solves_the_balance_of_its_queue():
    params, share = BankingParams(), [0.6, 0.3, 0.1]
    table = queueing.improvement_index(params, share, 40)
    for index, part, mu, c in zip(table, share, params.service_rate, params.servers, strict=True):
        rate = part * params.arrival_rate
        mean = rate * queueing.mean_latency(rate, mu, c)
        assert rate * index[0] == pytest.approx(mean)  # from empty: h(1) - h(0) = mean / rate
        for n in range(1, 40):
            balance = n - mean + rate * index[n] - mu * min(n, c) * index[n - 1]
            assert balance == pytest.approx(0.0, abs=1e-9)


# ---------------------------------------------------------------------------- chain
def test_the_chain_knows_erlang_c():
    params = BankingParams(arrival_rate=60.0)
    split = [0.5, 0.3, 0.2]
    chain = Chain(params, "event")
    share = torch.tensor(split, dtype=torch.float64).view(3, 1, 1, 1).expand(3, *chain.sizes)
    found = optimum.evaluate(chain, share)
    assert found.latency == pytest.approx(queueing.split_latency(params, split), rel=1e-6)
    assert found.split == pytest.approx(split)
    assert found.fee == pytest.approx(0.5 * 0.1 + 0.3 * 0.5 + 0.2 * 2.0)
    assert found.risk == pytest.approx(0.5 * 0.03 + 0.3 * 0.02 + 0.2 * 0.01)


def test_a_finite_horizon_by_hand():
    # From empty: nothing in the first event; the second costs one payment if the first was an arrival.
    params = BankingParams(capacity=SMALL)
    chain = Chain(params, "event")
    rate = 117.55 + 190
    assert float(chain.total_cost(2)[0, 0, 0, 0]) == pytest.approx(117.55 / rate / rate)
    assert float(chain.total_cost(1)[0, 2, 1, 0]) == pytest.approx(3 / rate)


def test_one_slot_of_the_chain_is_one_slot_of_the_task():
    task = make_task("banking", start="empty", stale=0, capacity=SMALL)
    chain, n_envs = Chain(task.params, "slot"), 40_000
    draw = torch.Generator().manual_seed(0)
    queue = torch.tensor([5.0, 3.0, 9.0])
    state = task.reset(n_envs, task.draw_reset(n_envs, draw))
    state = state._replace(queue=queue.expand(n_envs, 3))
    keep = {"agents": torch.full((n_envs, 3), 3)}
    step = task.step(state, keep, task.draw_step(n_envs, draw))
    latency = step.info["latency"]
    error = 3.0 * float(latency.std()) / n_envs**0.5
    assert error < 0.1e-3
    assert float(latency.mean()) == pytest.approx(float(chain.total_cost(1)[0, 5, 3, 9]), abs=error)
    for k, death in enumerate(chain.death):
        law = torch.bincount(step.state.queue[:, k].long(), minlength=13) / n_envs
        torch.testing.assert_close(law.double(), death[int(queue[k])], rtol=0, atol=0.01)


def test_the_optimal_table_earns_the_optimal_value():
    chain = Chain(BankingParams(capacity=SMALL), "event")
    solved = chain.solve()
    own = optimum.evaluate(chain, optimum.one_hot(solved.table[0, 0])).latency
    assert solved.high - solved.low < 1e-6
    assert own == pytest.approx(solved.low, rel=1e-4)


def test_rules_are_ordered_by_exact_latency():
    task = make_task("banking", start="empty", clock="event", stale=0)
    chain = Chain(task.params, "event", optimum.SMALL)
    load = chain.number.movedim(0, -1).float()

    def latency(cost):
        return optimum.evaluate(chain, optimum.one_hot(cost.argmin(-1)), 1e-8).latency

    delay = latency(policies.delay(task, load))
    shortest = latency(load / task.tables.servers)
    improved = latency(policies.improvement(task)(load))
    spill = optimum.evaluate(chain, optimum.one_hot(optimum.spill_table(chain.number, 4, 6)), 1e-8)
    best = chain.solve(tolerance=1e-5).low
    split = queueing.split_latency(task.params, queueing.best_split(task.params))
    assert best < spill.latency < improved < delay < split < shortest < 0.5
    assert best == pytest.approx(0.05077, abs=2e-5)


def test_slots_approach_events_as_they_get_shorter():
    common = {"servers": [1, 1, 2], "capacity": [5, 5, 5], "arrival_rate": 40.0}
    event = Chain(BankingParams(**common), "event").solve().low
    gaps = []
    for dt in (0.004, 0.002):
        slot = Chain(BankingParams(dt=dt, **common), "slot").solve().low
        gaps.append((slot - event) / dt)
    # Half a slot of waiting for the slot's end, and some more for the blind batch.
    assert 0.5 < gaps[1] < gaps[0] < 1.0 or gaps[0] == pytest.approx(gaps[1], rel=0.2)


def test_a_constant_rate_in_two_phases_changes_nothing():
    common = {"capacity": [6, 6, 8], "arrival_rate": 100.0}
    for clock in ("event", "slot"):
        plain = Chain(BankingParams(**common), clock).solve().low
        phased = Chain(BankingParams(burst=True, burst_factor=1.0, **common), clock).solve().low
        assert phased == pytest.approx(plain, rel=1e-4)


def test_thresholds_are_better_than_their_neighbours():
    params = BankingParams(capacity=SMALL)
    chain = Chain(params, "event")
    first, second = optimum.best_thresholds(params)

    def latency(a, b):
        share = optimum.one_hot(optimum.spill_table(chain.number, a, b))
        return optimum.evaluate(chain, share).latency

    best = latency(first, second)
    for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        assert best <= latency(first + a, second + b)


# --------------------------------------------------------------------------- optimum
@pytest.mark.parametrize(
    ("params", "kind", "how"),
    [
        (
            {"clock": "event", "stale": 0},
            "exact",
            r"relative value iteration, event .* 13 x 13 x 13",
        ),
        ({"clock": "event", "stale": 2}, "lower", "one router that sees the true loads and"),
        ({"clock": "event", "stale": 0, "burst": True}, "lower", "true loads and the phase"),
        ({"clock": "event", "stale": 0, "classes": True}, "exact", "relative value iteration"),
        ({"start": "empty", "max_steps": 30}, "lower", "backward induction over 30 steps"),
        ({"hold": True}, "lower", "payments may change servers"),
    ],
)
def test_the_optimum_says_how_it_is_known(params, kind, how):
    import re

    found = optimum.optimum(BankingParams(capacity=SMALL, **params))
    assert found.kind == kind
    assert re.search(how, found.how)
    assert 1.0 < found.value < 100.0


def test_there_is_no_bound_for_holding_from_empty():
    assert optimum.optimum(BankingParams(hold=True, start="empty")) is None


def test_the_optimal_policy_earns_the_optimum_in_simulation():
    task = make_task("banking", clock="event", stale=0, capacity=SMALL, max_steps=600)
    score = task.score(simulate(task, task.baselines()["optimal_fresh"], 512))
    half = 2.6 * float(score.std()) / 512**0.5
    assert half < 2.5
    assert float(score.mean()) == pytest.approx(task.optimum().value, abs=half)


def test_from_empty_the_finite_horizon_optimum_is_earned():
    common = {"clock": "event", "stale": 0, "capacity": SMALL}
    task = make_task("banking", start="empty", max_steps=100, **common)
    score = task.score(simulate(task, task.baselines()["optimal_fresh"], 1024))
    half = 2.6 * float(score.std()) / 1024**0.5
    assert task.optimum().kind == "exact"
    assert float(score.mean()) == pytest.approx(task.optimum().value, abs=half)
    assert task.optimum().value < 0.8 * make_task("banking", **common).optimum().value


def test_warm_episodes_start_in_the_long_run_of_the_best_routing():
    task = make_task("banking", capacity=SMALL)
    noise = {"queue": torch.linspace(0, 1, 20_001)[:-1], "phase": torch.zeros(20_000)}
    queue = task.reset(20_000, noise).queue
    best = Chain(task.params, "event").solve().low
    assert float(queue.sum(-1).mean()) == pytest.approx(117.55 * best, rel=2e-3)


# ------------------------------------------------------------------------ constraints
def test_a_slack_risk_limit_costs_nothing_and_a_tight_one_does():
    common = {"capacity": [4, 5, 12], "arrival_rate": 80.0, "classes": True}
    slack, price = optimum.portfolio_bound(BankingParams(risk_limit=0.05, **common), 1e-4)
    chain = Chain(BankingParams(**common), "event")
    assert (slack, price) == (pytest.approx(chain.solve().low, rel=1e-2), 0.0)
    tight, price = optimum.portfolio_bound(BankingParams(risk_limit=0.02, **common), 1e-4)
    assert tight > slack + 0.005 and price > 0
    # Any policy within the limit is no better: the riskiest class to chain, the rest as it is best.
    every = optimum.payment_bound(BankingParams(risk_limit=0.05, **common))
    assert slack < every < 0.2


def test_a_limit_that_no_channel_meets_is_refused():
    with pytest.raises(
        ValueError, match=r"risk_limit 0.03 is below 0.04, the least risk of the risk"
    ):
        optimum.payment_bound(BankingParams(classes=True, risk_limit=0.03))


# ------------------------------------------------------------------------------ table
def test_the_table_prints_a_row_for_every_rule(capsys):
    main(["--exact", "capacity=[4,5,8]"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 8
    assert lines[2].startswith("| uniform (analytic) | 500.2")
    main(["--episodes", "3", "max_steps=20", "capacity=[4,5,8]", "clock=event", "hold=false"])
    out = capsys.readouterr().out
    for name in make_task("banking", start="empty").baselines():
        assert f"| {name} | " in out
    assert "lower: " in out
