"""Neighbours beside a search among all pairs, tours, and the bounds beside other ways to find them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marl_td.tasks.drones import DronesParams
from marl_td.tasks.drones.bounds import mean_age_bound, most_cells
from marl_td.tasks.drones.cover import greedy_cover, kmeans_cover, seen_share
from marl_td.tasks.drones.space import nearest
from marl_td.tasks.drones.tours import best_tours, lanes, mean_age, points_of, rectangles


def all_pairs(query, point, present, radius, k, among_themselves):
    """Distances of the nearest points in reach, and which they are, by looking at everything."""
    distance = torch.cdist(query, point)
    distance = torch.where(present.unsqueeze(1), distance, torch.inf)
    if among_themselves:
        distance = distance + torch.diag(torch.full((point.shape[1],), torch.inf))
    distance = torch.where(distance <= radius, distance, torch.inf)
    missing = max(0, k - point.shape[1])
    distance = torch.nn.functional.pad(distance, (0, missing), value=torch.inf)
    return distance.topk(k, largest=False)


@given(
    n=st.integers(1, 40),
    radius=st.sampled_from([0.7, 1.5, 3.4, 10.0]),
    k=st.integers(1, 6),
    themselves=st.booleans(),
    by_squares=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_neighbours_are_those_of_a_search_among_all(n, radius, k, themselves, by_squares, seed):
    generator = torch.Generator().manual_seed(seed)
    n_absent = 2 * max(n, k) + 1 if by_squares else 0  # with so many nobody looks at all of them
    point = 10.0 * torch.rand((3, n + n_absent, 2), generator=generator)
    point[0, 0] = 10.0  # the far corner belongs to the last square
    query = point if themselves else 10.0 * torch.rand((3, 7, 2), generator=generator)
    present = torch.rand((3, n + n_absent), generator=generator) < 0.8
    present[:, n:] = False
    near = nearest(
        query, point, present, side=10.0, radius=radius, k=k, crowd=n, among_themselves=themselves
    )
    distance, which = all_pairs(query, point, present, radius, k, themselves)
    assert torch.equal(near.found, distance.isfinite())
    length = near.offset.norm(dim=-1)
    torch.testing.assert_close(length[near.found], distance[near.found], atol=1e-4, rtol=1e-4)
    assert torch.equal(near.which[near.found], which[near.found])


def test_a_crowd_is_looked_at_in_part():
    """All in one square: with a crowd of 4 only the first four are candidates."""
    point = torch.rand((1, 20, 2), generator=torch.Generator().manual_seed(0))
    present = torch.ones((1, 20), dtype=torch.bool)
    near = nearest(
        point, point, present, side=10.0, radius=2.0, k=3, crowd=4, among_themselves=True
    )
    assert near.found.all() and near.which.max() <= 3


def test_neighbours_need_no_table_of_all_pairs():
    """500 points: nothing larger than points x crowd x 3 strips x 2 is made."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for part in out if isinstance(out, tuple) else (out,):
                largest = max(largest, part.numel() if isinstance(part, torch.Tensor) else 0)
            return out

    point, present = 100.0 * torch.rand(1, 500, 2), torch.ones(1, 500, dtype=torch.bool)
    with Watch():
        nearest(point, point, present, side=100.0, radius=5.0, k=4, crowd=12, among_themselves=True)
    assert largest <= 500 * 12 * 3 * 2 < 500 * 500


# -------------------------------------------------------------------------------------- bounds
@pytest.mark.parametrize(
    ("side", "n_cells", "radius"), [(100.0, 50, 5.0), (20.0, 20, 1.0), (30.0, 10, 7.0)]
)
def test_no_disc_holds_more_cells_than_the_most(side, n_cells, radius):
    """Discs at the points of a fine raster over one cell hold as many at best, and never more."""
    params = DronesParams(side=side, n_cells=n_cells, sensing_radius=radius)
    shift = (np.arange(200) + 0.5) / 200 * params.cell
    way = np.arange(-8, 9) * params.cell
    dx = (way - shift[:, None]) ** 2  # [shifts, cells]
    inside = dx[:, None, :, None] + dx[None, :, None, :] <= radius**2 + 1e-9
    best = inside.sum((-1, -2)).max()
    assert best <= most_cells(params) <= best + 1


def test_the_bound_of_the_mean_age_by_counting_cells():
    """As code: at each step cells are as young as they can be when as many as possible were seen lately."""
    params = DronesParams(max_steps=60, n_agents=3)
    p = params
    radius = p.sensing_radius + p.cell / math.sqrt(2.0)
    total = 0.0
    for step in range(1, p.max_steps + 1):
        ages, so_far = [], 0
        for back in range(step):
            way = p.max_speed * p.step_time * back
            area = (math.pi * radius**2 + 2.0 * radius * way) / p.cell**2
            seen = min(p.n_agents * min(math.floor(area), most_cells(p) * (back + 1)), p.n_cells**2)
            ages += [back * p.step_time] * (seen - so_far)
            so_far = seen
        ages += [step * p.step_time] * (p.n_cells**2 - so_far)
        total += sum(ages) / p.n_cells**2
    assert mean_age_bound(p) == pytest.approx(total / p.max_steps)


def test_the_bound_of_the_mean_age_tends_to_half_the_sweep_time():
    """For long episodes, small cells and a sight that is small beside the way between drones."""
    params = DronesParams(
        side=1000.0, n_cells=2000, sensing_radius=5.0, n_agents=2, max_steps=100_000
    )
    assert 0.85 < mean_age_bound(params) / (params.sweep_time / 2.0) < 1.0


def test_static_cover_is_bounded_and_exact_where_discs_do_not_touch():
    frame = (4, 100.0, 50, 5.0)
    most = most_cells(DronesParams(n_agents=4))
    assert greedy_cover(*frame) == pytest.approx(4 * most / 2500)
    for n in (10, 60, 150):
        frame = (n, 100.0, 50, 5.0)
        bound = min(1.0, n * most / 2500)
        assert kmeans_cover(*frame) <= bound and 0.6 * bound < greedy_cover(*frame) <= bound
    places = np.array([[10.0, 10.0], [50.0, 50.0]])
    assert seen_share(places, 100.0, 50, 1.5) == pytest.approx(8 / 2500)


# --------------------------------------------------------------------------------------- tours
@pytest.mark.parametrize("n", [1, 7, 10, 12])
def test_rectangles_fill_the_area(n):
    left, bottom, right, top = rectangles(n, 60.0).T
    assert ((right - left) * (top - bottom)).sum() == pytest.approx(3600.0)
    assert left.min() == bottom.min() == 0.0 and right.max() == pytest.approx(60.0)
    assert len({*zip(left.tolist(), bottom.tolist(), strict=True)}) == n


def test_lanes_make_a_closed_tour_of_steps_along_the_sides():
    for n_lanes in (2, 4, 6):
        corners = lanes(20.0, 30.0, 2.0, n_lanes)
        way = np.roll(corners, -1, 0) - corners
        assert (np.abs(way).min(1) == 0.0).all() and len(corners) == 2 * n_lanes
        assert corners.min() == 2.0 and corners[:, 0].max() == 18.0 and corners[:, 1].max() == 28.0
        points = points_of(corners)
        hops = np.hypot(*(np.roll(points, -1, 0) - points).T)
        assert hops.max() < 0.6 and hops.min() > 0.4


def test_the_mean_age_on_a_tour_by_flying_it():
    """A drone that goes once around all points, and again; the ages of all spots after every point."""
    tour = points_of(lanes(12.0, 16.0, 3.0, 2))
    x, y = np.arange(12) + 0.5, np.arange(16) + 0.5
    spot = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    age, total = np.zeros(len(spot)), 0.0
    for turn in range(3):
        for point in tour:
            age = np.where(np.hypot(*(spot - point).T) <= 4.3, 0.0, age + 0.5)
            total += age.mean() / len(tour) if turn == 2 else 0.0
    assert mean_age(tour, 12.0, 16.0, 4.3, 1e9) == pytest.approx(total)
    assert mean_age(tour, 12.0, 16.0, 1.0, 50.0) > 10.0  # spots that it never sees count 50


def test_planned_tours_see_everything():
    tours = best_tours(10, 100.0, 5.0, 500.0)
    middle = np.arange(50) * 2.0 + 1.0
    spot = np.stack(np.meshgrid(middle, middle), -1).reshape(-1, 1, 2)
    least = np.min([np.hypot(*(spot - tour).transpose(2, 0, 1)).min(1) for tour in tours], 0)
    assert (least <= 5.0).mean() > 0.98
    assert tours.min() >= 0.0 and tours.max() <= 100.0
