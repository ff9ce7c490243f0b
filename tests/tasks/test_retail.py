"""The retail task: one period by hand, conservation, independence of environments, policies."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchrl.envs.utils import check_env_specs

from marl_td.tasks import VectorEnv, make_env, make_task
from marl_td.tasks.retail.demand import poisson_pmf
from marl_td.tasks.retail.dynamics import match, split
from marl_td.tasks.retail.optimum import market
from marl_td.tasks.retail.policies import StockPolicy
from marl_td.tasks.retail.search import (
    best_base_stock,
    best_reorder_point,
    best_transfers,
    simulate,
)

MODES = ("reactive", "action")


def rows(*values):
    """One environment with these amounts, `[1, n_agents]`."""
    return torch.tensor([values], dtype=torch.float32)


def state_with(task, stock, pipeline):
    """A state with the given `stock` [n_agents] and `pipeline` [n_agents][lead_time]."""
    n_envs = 1
    noise = task.draw_reset(n_envs, torch.Generator().manual_seed(0))
    state = task.reset(n_envs, noise)
    return state._replace(
        stock=rows(*stock), pipeline=torch.tensor([pipeline], dtype=torch.float32)
    )


def noise_for(task, demand, rounding=0.0):
    """Noise under which `demand` [n_agents] arrives: a number inside each value's probability."""
    cdf = poisson_pmf(task.rates).cumsum(-1)
    upper = cdf.gather(-1, torch.tensor(demand).unsqueeze(-1)).squeeze(-1)
    uniform = (
        upper - 0.5 * poisson_pmf(task.rates).gather(-1, torch.tensor(demand).unsqueeze(-1))[:, 0]
    )
    return {"demand": uniform.float().unsqueeze(0), "rounding": torch.tensor([rounding])}


def random_actions(task, n_envs, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (n_envs, task.n_agents)
    if task.continuous:
        return torch.rand((*shape, 2), generator=generator) * torch.tensor(
            [1.0, 2.0]
        ) - torch.tensor([0.0, 1.0])
    return torch.randint(33, shape, generator=generator)


def same(a, b):
    return all(bool((x == y).all()) for x, y in zip(a, b, strict=True))


# ------------------------------------------------------------------------------------------ specs
@pytest.mark.parametrize("continuous", [True, False])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("more", [{}, {"lead_time": 0, "n_agents": 1}], ids=["default", "small"])
def test_specs_hold(continuous, mode, more):
    check_env_specs(make_env("retail", 2, continuous=continuous, transfer_mode=mode, **more))


def test_specs_hold_with_every_option():
    options = {
        "season_amplitude": 0.5,
        "correlation": 0.4,
        "share_inventory": True,
        "site_id": True,
        "message_dropout": 0.5,
    }
    env = make_env("retail", 3, lead_time=2, demand=[2, 4, 5, 6, 8], order_cost=1.0, **options)
    check_env_specs(env)
    assert env.reset()["agents", "observation"].shape == (3, 5, 4 + 2 + 2 + 5 + 4)
    assert env.reset()["state"].shape == (3, 5 * 5 + 2)


def test_it_never_terminates_and_is_truncated_at_the_limit():
    steps = make_env("retail", 2, max_steps=4).rollout(10)["next"]
    assert steps.shape == (2, 4)
    assert not steps["terminated"].any()
    assert steps["truncated"][:, -1].all() and not steps["truncated"][:, :-1].any()


# ------------------------------------------------------------------------------------ one period
def test_one_reactive_period_by_hand():
    """Delivery 4, 0, 2; order up to 13; demand 9, 1, 8; what is left and lent covers one unit of two."""
    task = make_task("retail", n_agents=3, max_level=26)
    state = state_with(task, [3, 6, 4], [[4], [0], [2]])
    action = torch.tensor([[[0.5, -1.0], [0.5, 0.2], [0.5, 0.7]]])
    step = task.step(state, {"agents": action}, noise_for(task, [9, 1, 8]))
    # On hand 7, 6, 6. Unmet 2, 0, 2; left 0, 5, 0; 0.2 of 5 is lent: one unit, to the first in line.
    assert step.state.stock.tolist() == [[0, 4, 0]]
    assert step.state.pipeline.tolist() == [[[6], [7], [7]]]
    assert step.state.lost.sum() == 3 and step.state.moved[0, 1] == -1
    assert step.info["cost"].item() == pytest.approx(0.1 * 4 + 10 * 3 + 0.5 * 1)
    assert step.info["demand"].item() == 18 and step.info["ordered"].item() == 20
    assert step.reward["agents"].tolist() == [[pytest.approx(-30.9 / 3 / 10)] * 3]


def test_one_period_with_transfers_before_demand_by_hand():
    """Offers of 4 and 2 meet a request of 3 in proportion: 2 and 1 move."""
    task = make_task(
        "retail", n_agents=3, transfer_mode="action", max_level=20, reward="individual"
    )
    state = state_with(task, [10, 5, 1], [[2], [3], [1]])
    # On hand 12, 8, 2. Order up to 14, 8, 10. Shares of a van of 10: offer 4; of 8: offer 2.
    action = torch.tensor([[[0.7, 0.4], [0.4, 0.25], [0.5, -0.3]]])
    step = task.step(state, {"agents": action}, noise_for(task, [5, 8, 4]))
    assert step.state.moved.tolist() == [[-2, -1, 3]]
    assert step.state.pipeline.tolist() == [[[2], [0], [8]]]
    assert step.state.stock.tolist() == [[5, 0, 1]]
    assert step.state.lost.tolist() == [[0, 1, 0]]
    costs = [0.1 * 5 + 0.25 * 2, 10 + 0.25 * 1, 0.1 * 1 + 0.25 * 3]
    assert step.reward["agents"][0].tolist() == pytest.approx([-c / 10 for c in costs])
    assert step.info["transfer_cost"].item() == pytest.approx(0.5 * 3)


@pytest.mark.parametrize("continuous", [True, False])
def test_a_dead_site_decides_nothing_and_is_served_by_those_who_lend(continuous):
    """Five units left at the first site, all lent; the second is dead and lacks three, the third one."""
    task = make_task("retail", continuous=continuous, n_agents=3, max_level=20, dead_agents=0.3)
    assert task.n_dead == 1 and task.groups["agents"].mortal
    state = state_with(task, [9, 2, 3], [[0], [0], [0]])
    state = state._replace(alive=torch.tensor([[True, False, True]]))
    order_all_lend_all = torch.ones(1, 3, 2) if continuous else torch.full((1, 3), 30)
    step = task.step(state, {"agents": order_all_lend_all}, noise_for(task, [4, 5, 4]))
    assert step.state.pipeline.flatten().tolist() == [11, 0, 17]
    assert step.state.moved.tolist() == [[-4, 3, 1]] and step.info["lost"].item() == 0
    assert step.state.stock.tolist() == [[1, 0, 0]] and torch.equal(step.state.alive, state.alive)
    if not continuous:
        mask = task.action_mask(state)["agents"][0]
        assert mask[1].nonzero().flatten().tolist() == [1] and mask[0].sum() > 1


def test_the_bound_with_dead_sites_is_that_of_living_ones():
    living, failing = (make_task("retail", n_agents=2, dead_agents=d).optimum() for d in (0.0, 0.5))
    assert failing.value == living.value and failing.kind == "lower"
    assert failing.how == f"{living.how}, all sites alive"


def test_an_order_is_limited_by_size_and_capacity():
    task = make_task("retail", n_agents=2, lead_time=2, capacity=30, max_order=12, max_level=60)
    state = state_with(task, [1, 10], [[2, 3], [4, 8]])
    action = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    step = task.step(state, {"agents": action}, noise_for(task, [0, 0]))
    assert step.state.pipeline[0].tolist() == [[3, 12], [8, 8]]


def test_without_lead_time_an_order_serves_todays_demand():
    task = make_task("retail", n_agents=1, lead_time=0, max_level=10, order_cost=7.0)
    step = task.step(
        state_with(task, [1], [[]]), {"agents": torch.tensor([[[0.8, 0.0]]])}, noise_for(task, [6])
    )
    assert step.state.stock.item() == 2 and step.info["lost"].item() == 0
    assert step.info["order_cost"].item() == 7


def test_a_discrete_action_is_its_level_and_lot():
    task = make_task("retail", continuous=False, max_level=20, transfer_mode="action")
    decision = task.decide(torch.tensor([[0, 1, 2, 21, 32]]))
    assert decision.level.tolist() == [[0, 0, 0, 14, 20]]
    assert decision.transfer.tolist() == [[1, 0, -1, 1, -1]]
    state = state_with(task, [9, 9, 9, 9, 9], [[0]] * 5)
    step = task.step(state, {"agents": torch.tensor([[0, 1, 2, 1, 1]])}, noise_for(task, [0] * 5))
    assert step.state.moved.tolist() == [[-3, 0, 3, 0, 0]]


# ----------------------------------------------------------------------------------- conservation
@given(
    seed=st.integers(0, 10**6),
    mode=st.sampled_from(MODES),
    lead=st.integers(0, 3),
    continuous=st.booleans(),
)
def test_no_unit_appears_or_vanishes(seed, mode, lead, continuous):
    task = make_task(
        "retail", transfer_mode=mode, lead_time=lead, continuous=continuous, demand=8.0
    )
    generator = torch.Generator().manual_seed(seed)
    state = task.reset(6, task.draw_reset(6, generator))
    for _ in range(3):
        action = random_actions(task, 6, seed)
        after, flow = task.flow(state, action, task.draw_step(6, generator))
        before = state.stock + state.pipeline.sum(-1)
        now = after.stock + after.pipeline.sum(-1)
        assert torch.equal(now, before + flow.ordered + flow.got - flow.given - flow.sold)
        assert torch.equal(flow.given.sum(-1), flow.got.sum(-1))
        assert torch.equal(flow.sold + flow.lost, flow.demand)
        assert min(float(x.min()) for x in flow) >= 0
        assert float(now.max()) <= task.params.capacity
        assert all(torch.equal(x, x.round()) for x in flow)
        state = after


@given(
    offer=st.lists(st.integers(0, 30), min_size=5, max_size=5),
    request=st.lists(st.integers(0, 30), min_size=5, max_size=5),
)
def test_everybody_gives_and_gets_in_proportion(offer, request):
    """On average over the rounding exactly the share, and always the share rounded up or down."""
    offered, requested = rows(*offer), rows(*request)
    moved = min(sum(offer), sum(request))
    n = 600
    rounding = (torch.arange(n) + 0.5) / n
    for sent, wanted in zip(
        match(offered.expand(n, -1), requested.expand(n, -1), rounding),
        (offered, requested),
        strict=True,
    ):
        share = wanted[0] * moved / wanted.sum().clamp_min(1)
        assert (sent.sum(-1) == moved).all()
        assert ((sent - share).abs() < 1).all()
        assert torch.allclose(sent.mean(0), share, atol=0.02)


# ----------------------------------------------------------------------- environments and batches
@pytest.mark.parametrize("continuous", [True, False])
def test_an_environment_goes_alone_as_in_a_batch(continuous):
    task = make_task(
        "retail",
        continuous=continuous,
        transfer_mode="action",
        share_inventory=True,
        message_dropout=0.3,
        season_amplitude=0.4,
        correlation=0.5,
    )
    generator = torch.Generator().manual_seed(3)
    start = task.draw_reset(8, generator)
    state, alone = task.reset(8, start), task.reset(1, {k: v[5:6] for k, v in start.items()})
    for seed in range(6):
        noise, action = task.draw_step(8, generator), random_actions(task, 8, seed)
        step = task.step(state, {"agents": action}, noise)
        one = task.step(alone, {"agents": action[5:6]}, {k: v[5:6] for k, v in noise.items()})
        state, alone = step.state, one.state
        assert same(alone, [field[5:6] for field in state])
        assert torch.equal(one.reward["agents"], step.reward["agents"][5:6])
        assert torch.equal(task.observe(alone)["agents"], task.observe(state)["agents"][5:6])


@pytest.mark.parametrize("mode", MODES)
def test_renaming_the_sites_renames_the_result(mode):
    """Exact but for odd units, so with an even split: two requests, each met in full."""
    task = make_task("retail", transfer_mode=mode)
    order = torch.tensor([3, 0, 4, 1, 2])
    state = state_with(task, [12, 2, 11, 0, 9], [[5], [4], [3], [2], [1]])
    noise = noise_for(task, [4, 8, 3, 5, 6])
    action = torch.tensor([[[0.5, 0.0], [0.6, -0.3], [0.4, 0.0], [0.7, -0.1], [0.5, 1.0]]])
    if mode == "reactive":
        action[0, :, 1] = 1.0
        noise = noise_for(task, [4, 8, 3, 5, 16])
    renamed_state = state._replace(
        **{
            k: getattr(state, k)[:, order]
            for k in ("stock", "pipeline", "demand", "demand_average", "lost", "moved")
        }
    )
    step = task.step(state, {"agents": action}, noise)
    renamed = task.step(
        renamed_state, {"agents": action[:, order]}, {**noise, "demand": noise["demand"][:, order]}
    )
    total = {key: value.item() for key, value in step.info.items()}
    assert {key: value.item() for key, value in renamed.info.items()} == pytest.approx(total)
    assert step.info["moved"].item() > 0
    if mode == "action":
        assert torch.equal(renamed.state.stock, step.state.stock[:, order])


def test_the_same_seed_gives_the_same_episode_and_a_policy_does_not_disturb_it():
    a, b = make_env("retail", 3, seed=4), make_env("retail", 3, seed=4)
    assert torch.equal(a.reset()["agents", "observation"], b.reset()["agents", "observation"])
    torch.rand(5)
    action = a.action_spec.zero()
    assert torch.equal(
        a.step(action.clone())["next", "state"], b.step(action.clone())["next", "state"]
    )


# ------------------------------------------------------------------------------------ observation
def test_the_observation_counts_in_periods_of_mean_demand():
    task = make_task(
        "retail", n_agents=3, demand=[2, 4, 6], share_inventory=True, lead_time=2, site_id=True
    )
    state = state_with(task, [4, 4, 12], [[2, 6], [0, 4], [6, 3]])
    first, last = task.observe(state)["agents"][0, 0], task.observe(state)["agents"][0, 2]
    assert first.tolist() == pytest.approx([2, 1, 3, 1, 1, 0.5, 1, 0, 0, 1, 3])
    assert last.tolist() == pytest.approx([2, 1, 0.5, 1, 1, 1.5, 0, 0, 1, 3, 1])


def test_a_lost_message_hides_the_stock():
    task = make_task("retail", n_agents=3, share_inventory=True, message_dropout=0.5)
    noise = task.draw_reset(1, torch.Generator().manual_seed(0))
    noise["heard"] = torch.tensor([[[0.4, 0.6], [0.6, 0.6], [0.4, 0.4]]])
    others = task.observe(task.reset(1, noise))["agents"][0, :, -2:]
    assert (others == -1).tolist() == [[True, False], [False, False], [True, True]]


def test_the_mask_leaves_out_what_makes_no_sense():
    task = make_task(
        "retail", n_agents=2, continuous=False, transfer_mode="action", capacity=20, max_level=25
    )
    mask = task.action_mask(state_with(task, [0, 20], [[0], [0]]))["agents"].reshape(2, 11, 3)
    assert (
        (task.order_levels() <= 20).tolist() == mask[0, :, 1].tolist() == [True] * 9 + [False] * 2
    )
    assert not mask[0, :, 0].any() and mask[0, :8, 2].all() and not mask[0, 8, 2]
    assert mask[1, :9, 0].all() and not mask[1, :, 2].any()
    reactive = make_task("retail", n_agents=2, continuous=False)
    mask = reactive.action_mask(state_with(reactive, [0, 20], [[0], [0]]))["agents"].reshape(
        2, 11, 3
    )
    assert not mask[..., 2].any() and mask[..., :2].all()


def test_random_actions_are_available_ones():
    env = make_env(
        "retail", 16, continuous=False, transfer_mode="action", capacity=20, max_level=25
    )
    td = env.rollout(20)
    taken = td["agents", "action_mask"].gather(-1, td["agents", "action"].unsqueeze(-1))
    assert taken.all() and td["agents", "action_mask"].any(-1).all()


# ----------------------------------------------------------------------------------------- demand
def draws(n, **params):
    task = make_task("retail", **params)
    generator = torch.Generator().manual_seed(0)
    state = task.reset(n, task.draw_reset(n, generator))
    idle = torch.zeros(n, task.n_agents, 2)
    return task.flow(state, idle, task.draw_step(n, generator))[1].demand, state.phase


def test_demand_is_poisson_with_or_without_a_common_factor():
    for correlation in (0.0, 0.6):
        demand = draws(20_000, demand=[2, 5, 8, 5, 5], correlation=correlation)[0]
        assert demand.mean(0).tolist() == pytest.approx([2, 5, 8, 5, 5], rel=0.03)
        assert demand.var(0).tolist() == pytest.approx([2, 5, 8, 5, 5], rel=0.08)
        between = torch.corrcoef(demand.T)[3, 4].item()
        assert between == pytest.approx(correlation, abs=0.05)


def test_the_season_goes_on_with_time():
    env = make_env("retail", 3, season_amplitude=0.5, season_period=4)
    env.reset()
    phase = [env.state.phase]
    for _ in range(5):
        env.step(env.action_spec.zero())
        phase.append(env.state.phase)
    assert (torch.stack(phase).diff(dim=0) % 4 == 1).all()


def test_demand_follows_the_season():
    demand, phase = draws(20_000, season_amplitude=0.8, season_period=4)
    means = [demand[phase == k].mean().item() for k in range(4)]
    assert means == pytest.approx([5, 9, 5, 1], rel=0.05)


# ---------------------------------------------------------------------------------------- policies
def played(task, policy, n_envs=128):
    """Mean score, fill rate and cost per unit over one episode each."""
    env = VectorEnv(task, n_envs, seed=11)
    td, totals = env.reset(), {"steps": torch.tensor(float(task.params.max_steps))}
    for _ in range(task.params.max_steps):
        td = env.step(env.rand_action(td) if policy is None else policy(td))["next"]
        for key, value in td["info"].items():
            totals[key] = totals.get(key, 0.0) + value.squeeze(-1)
    figures = {k: v.mean().item() for k, v in task.figures(totals).items()}
    return task.score(totals).mean().item(), figures


def test_policies_come_in_their_known_order():
    task = make_task("retail", max_steps=50)
    found = task.baselines()
    assert list(found) == ["base_stock", "transfers"]
    random, _ = played(task, None)
    alone, figures = played(task, found["base_stock"])
    shared, better = played(task, found["transfers"])
    assert 1.5 * alone < random
    assert shared < 0.7 * alone
    assert task.optimum().value < shared
    assert better["fill_rate"] > figures["fill_rate"] > 0.99
    assert better["cost_per_unit"] == pytest.approx(shared / 25, rel=0.02)


@pytest.mark.parametrize("continuous", [True, False])
def test_transfers_before_demand_pay_at_a_longer_lead_time(continuous):
    task = make_task(
        "retail", transfer_mode="action", lead_time=3, max_steps=25, continuous=continuous
    )
    alone = played(task, best_base_stock(task))[0]
    shared = played(task, best_transfers(task))[0]
    assert market(task.params, price=0.1) < shared < 0.97 * alone


def test_a_fixed_order_cost_calls_for_a_reorder_point():
    task = make_task("retail", n_agents=2, order_cost=10.0, max_steps=40)
    policy = best_reorder_point(task)
    assert policy.gap.min() > 5
    every_period = StockPolicy(task, policy.level)
    costs = [
        simulate(
            StockPolicy(task, p.level.unsqueeze(0), None if p.gap is None else p.gap.unsqueeze(0)),
            32,
        )
        for p in (policy, every_period)
    ]
    assert costs[0].mean() < 0.6 * costs[1].mean()


def test_a_policy_knows_the_period_of_the_season():
    n = 23
    task = make_task("retail", n_agents=2, season_amplitude=0.5, season_period=n, max_level=60)
    level = torch.arange(2.0 * n).reshape(n, 2)
    state = task.reset(n, task.draw_reset(n, torch.Generator().manual_seed(0)))
    nothing = torch.zeros(n, 2)
    state = state._replace(phase=torch.arange(n), stock=nothing, pipeline=nothing.unsqueeze(-1))
    action = StockPolicy(task, level).act(task.observe(state)["agents"])
    assert torch.allclose(action[..., 0] * 60, level)


def test_a_policy_requests_and_offers_by_its_thresholds():
    """On hand 4 + 2 asks for 3 units, 12 + 3 offers 4; the first has not fallen low enough to order."""
    task = make_task("retail", n_agents=3, transfer_mode="action", lead_time=2, max_level=40)
    state = state_with(task, [4, 12, 10], [[2, 9], [3, 0], [0, 0]])
    level, gap = torch.full((1, 3), 20.0), torch.tensor([6.0, 1.0, 1.0])
    below, above = torch.full((3,), 9.0), torch.full((3,), 11.0)
    policy = StockPolicy(task, level, gap, below, above)
    action = policy.act(task.observe(state)["agents"])[0]
    assert (action[:, 0] * 40).tolist() == pytest.approx([0, 20, 20])
    decision = task.decide(action)
    assert (decision.transfer * 10).tolist() == pytest.approx([-3, 4, 0])
    moved = task.step(state, {"agents": action.unsqueeze(0)}, noise_for(task, [0] * 3)).state.moved
    assert moved.tolist() == [[3, -3, 0]]


def test_base_stock_acts_alike_in_both_action_forms():
    """At a level that both forms can express."""
    generator = torch.Generator().manual_seed(0)
    level = torch.full((1, 5), 18.0)
    tasks = [make_task("retail", continuous=c, transfer_mode="action") for c in (True, False)]
    start = tasks[0].draw_reset(4, generator)
    flows = []
    for task in tasks:
        state = task.reset(4, start)
        action = StockPolicy(task, level).act(task.observe(state)["agents"])
        flows.append(
            task.flow(state, action, task.draw_step(4, torch.Generator().manual_seed(1)))[1]
        )
    assert same(*flows)


# ----------------------------------------------------------------------------------- the picture
def test_picture_and_series():
    env = make_env("retail", 2, n_agents=12)
    env.rollout(3)
    picture = env.render(index=1)
    assert picture.dtype.name == "uint8" and picture.shape == (44 + 2 * 250, 1280, 3)
    assert picture.std() > 10
    series = env.task.episode_series(env.state)
    assert {value.shape for value in series.values()} == {(2, 12)}
    lost = torch.zeros(2, 12)
    lost[1, 3] = 2.0
    picture = env.task.render(env.state._replace(lost=lost), 1)
    roofs = picture[44 + 75, 64 + 128 * torch.arange(10)]
    assert [tuple(roof) == (205, 50, 50) for roof in roofs] == [site == 3 for site in range(10)]


# ----------------------------------------------------------------------------------- bad settings
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_agents": 0}, "n_agents must be at least 1; got 0"),
        ({"lead_time": -1}, "lead_time must be at least 0; got -1"),
        ({"capacity": 0}, "capacity must be at least 1; got 0"),
        ({"max_level": 0}, "max_level must be at least 1, or None for the default; got 0"),
        ({"lost_cost": -1.0}, r"lost_cost must not be negative; got -1\.0"),
        ({"correlation": 1.0}, r"correlation must be in \[0, 1\); got 1\.0"),
        ({"season_period": 1}, "season_period must be at least 2; got 1"),
        ({"reward_scale": 0.0}, r"reward_scale must be positive; got 0\.0"),
        ({"transfer_mode": "later"}, "transfer_mode must be one of reactive, action; got 'later'"),
        ({"reward": "sum"}, "reward must be one of team, individual; got 'sum'"),
        ({"demand": "five"}, "demand must be a number or a list of 5 numbers; got 'five'"),
        ({"demand": [5.0, 5.0]}, "one rate per site: n_agents = 5, got 2 rates"),
        ({"demand": -5.0}, "demand rates must be positive"),
    ],
)
def test_a_bad_setting_is_named(params, message):
    with pytest.raises(ValueError, match=message):
        make_task("retail", **params)


def test_sites_that_want_nothing_change_no_share():
    """Also where they are so many that totals are added up another way."""
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randint(0, 40, (200, 5), generator=generator).float()
    moved = (wanted.sum(-1) * torch.rand(200, generator=generator)).floor()
    rounding = torch.rand(200, generator=generator)
    few = split(wanted, moved, rounding)
    many = split(torch.cat([wanted, torch.zeros(200, 20)], -1), moved, rounding)
    assert torch.equal(few, many[:, :5]) and not many[:, 5:].any()
    assert torch.equal(few.sum(-1), moved) and (few <= wanted).all()
