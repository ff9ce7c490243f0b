"""The prioritised sampler: probabilities, weights, new items, annealing, saving, messages."""

import copy
import io

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, ReplayBuffer, TensorDictReplayBuffer
from torchrl.data.replay_buffers import TensorDictMaxValueWriter
from torchrl.data.replay_buffers.scheduler import LinearScheduler

from marl_td.collect.prioritised import ProportionalSampler

PRIORITIES = torch.tensor([0.0, 0.1, 0.5, 1.0, 2.0, 4.0, 0.3, 0.02])
N = len(PRIORITIES)
EPS = 1e-2


def items(n: int, start: int = 0) -> TensorDict:
    return TensorDict({"x": torch.arange(start, start + n)}, [n])


def filled(alpha=0.6, beta=0.4, size=N, batch_size=64, **options) -> TensorDictReplayBuffer:
    """A buffer of 8 items with the priorities above."""
    replay = TensorDictReplayBuffer(
        storage=LazyTensorStorage(size),
        sampler=ProportionalSampler(size, alpha, beta, EPS, **options),
        batch_size=batch_size,
        priority_key="priority",
    )
    replay.extend(items(N))
    replay.update_priority(torch.arange(N), PRIORITIES)
    return replay


def probabilities(alpha: float) -> torch.Tensor:
    mass = (PRIORITIES.double() + EPS) ** alpha
    return mass / mass.sum()


@pytest.mark.parametrize("stratified", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_items_are_drawn_with_their_probabilities(alpha, stratified):
    """Chi-square at 0.1 %; of stratified batches the deviations are smaller still."""
    torch.manual_seed(0)
    replay = filled(alpha, stratified=stratified)
    drawn = torch.cat([replay.sample()["x"] for _ in range(800)])
    expected = probabilities(alpha) * len(drawn)
    found = drawn.bincount(minlength=N)
    assert float(((found - expected) ** 2 / expected).sum()) < 24.3  # 7 degrees of freedom
    torch.testing.assert_close(
        replay.sampler.priorities() / replay.sampler.priorities().sum(), probabilities(alpha)
    )


def test_a_stratified_batch_has_one_item_of_each_part():
    replay = filled(alpha=1.0, batch_size=50)
    edges = torch.cat([torch.zeros(1), probabilities(1.0).cumsum(0)])
    for _ in range(20):
        index = replay.sample()["index"]
        part = torch.arange(50)
        assert (edges[index] * 50 < part + 1).all()
        assert (edges[index + 1] * 50 >= part - 1e-9).all()


def test_alpha_0_and_beta_1_are_uniform_replay():
    torch.manual_seed(1)
    replay = filled(alpha=0.0, beta=1.0, stratified=False)
    batches = [replay.sample() for _ in range(400)]
    assert all((batch["priority_weight"] == 1.0).all() for batch in batches)
    # Independent draws: pairs of neighbours in a batch are uniform, too.
    pairs = torch.cat([batch["x"].view(-1, 2) for batch in batches])
    counts = (pairs[:, 0] * N + pairs[:, 1]).bincount(minlength=N * N)
    expected = len(pairs) / N**2
    assert float(((counts - expected) ** 2 / expected).sum()) < 103.4  # 63 degrees of freedom


def test_weights_are_the_formula_relative_to_the_batch():
    replay = filled(alpha=0.7, beta=0.5)
    for _ in range(5):
        batch = replay.sample()
        weight = (N * probabilities(0.7)[batch["index"]]) ** -0.5
        torch.testing.assert_close(batch["priority_weight"], (weight / weight.max()).float())


def test_full_weights_undo_the_bias():
    """With beta 1 a weighted mean over draws is the mean over the buffer, up to the batch's scale."""
    torch.manual_seed(2)
    replay = filled(alpha=0.6, beta=1.0, batch_size=4000)
    batch = replay.sample()
    weight = batch["priority_weight"].double()
    mean = (weight * batch["x"]).sum() / weight.sum()
    assert abs(mean - (N - 1) / 2) < 0.05
    assert abs(batch["x"].double().mean() - (N - 1) / 2) > 0.3


def test_new_items_get_the_largest_priority_ever_given():
    replay = filled(alpha=1.0, size=16)
    replay.extend(items(2, start=N))
    assert replay.sampler.priorities()[N : N + 2].tolist() == pytest.approx([4.0 + EPS] * 2)
    replay.update_priority(torch.arange(N + 2), torch.full((N + 2,), 0.5))
    replay.extend(items(1, start=N + 2))
    assert float(replay.sampler.priorities()[N + 2]) == pytest.approx(4.0 + EPS)
    fresh = ProportionalSampler(4, 1.0, 0.4, EPS)
    fresh.mark_update(torch.tensor([0, 2]))
    assert fresh.priorities().tolist() == pytest.approx([1.0 + EPS, 0.0, 1.0 + EPS, 0.0])


def test_items_that_overwrite_others_are_new():
    replay = filled(alpha=1.0)
    replay.update_priority(torch.arange(N), torch.full((N,), 0.25))
    replay.extend(items(3, start=100))
    expected = [4.0 + EPS] * 3 + [0.25 + EPS] * 5
    assert replay.sampler.priorities().tolist() == pytest.approx(expected)
    assert replay[:]["x"].tolist() == [100, 101, 102, 3, 4, 5, 6, 7]
    replay.extend(items(2 * N, start=200))
    assert replay.sampler.priorities().tolist() == pytest.approx([4.0 + EPS] * N)


def test_nothing_is_drawn_that_is_not_stored():
    replay = TensorDictReplayBuffer(
        storage=LazyTensorStorage(100), sampler=ProportionalSampler(100, 0.6, 0.4), batch_size=500
    )
    replay.extend(items(3))
    assert set(replay.sample()["index"].tolist()) == {0, 1, 2}
    replay.empty()
    with pytest.raises(RuntimeError, match="the replay buffer is empty: extend it before"):
        replay.sample()
    replay.extend(items(1))
    assert replay.sampler.beta == 0.4
    assert (replay.sample()["index"] == 0).all()


def test_beta_rises_linearly_with_the_batches_drawn():
    replay = filled(beta=0.4, beta_end=1.0, n_anneal=4)
    betas = []
    for _ in range(6):
        betas.append(replay.sampler.beta)
        batch = replay.sample()
        weight = (N * probabilities(0.6)[batch["index"]]) ** -betas[-1]
        torch.testing.assert_close(batch["priority_weight"], (weight / weight.max()).float())
    assert betas == pytest.approx([0.4, 0.55, 0.7, 0.85, 1.0, 1.0])


def test_beta_can_be_set_by_hand_and_by_torchrls_schedulers():
    replay = filled(beta=0.4, n_anneal=4)
    scheduler = LinearScheduler(replay, "beta", final_value=1.0, num_steps=2)
    found = []
    for _ in range(3):
        replay.sample()
        scheduler.step()
        found.append(replay.sampler.beta)
    assert found == pytest.approx([0.7, 1.0, 1.0])


@pytest.mark.parametrize("way", ["state_dict", "dumps"])
def test_saved_and_loaded_it_goes_on_identically(way, tmp_path):
    torch.manual_seed(3)
    replay, other = (filled(size=2 * N, n_anneal=20) for _ in range(2))
    for _ in range(5):
        batch = replay.sample()
        replay.update_priority(batch["index"], torch.rand(64))
    if way == "dumps":
        replay.dumps(tmp_path)
        other.loads(tmp_path)
    else:
        file = io.BytesIO()
        torch.save(replay.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
    runs = []
    for each in (replay, other):
        torch.manual_seed(4)
        seen = []
        for round_ in range(5):
            batch = each.sample()
            seen += [batch["index"], batch["priority_weight"]]
            each.update_priority(batch["index"], torch.rand(64))
            each.extend(items(2, start=50 + round_))
        runs.append([*seen, each.sampler.priorities(), torch.tensor(each.sampler.beta)])
    assert all(torch.equal(mine, loaded) for mine, loaded in zip(*runs, strict=True))


def test_a_generator_of_the_buffers_own_is_used():
    drawn = []
    for _ in range(2):
        replay = filled()
        replay.set_rng(torch.Generator().manual_seed(5))
        drawn.append(replay.sample()["index"])
        torch.rand(3)
    assert torch.equal(*drawn)


def test_storages_of_several_dimensions_and_other_buffers():
    storage = LazyTensorStorage(100, ndim=2)
    replay = ReplayBuffer(storage=storage, sampler=ProportionalSampler(100, 1.0, 0.4), batch_size=9)
    replay.extend(TensorDict({"x": torch.arange(20).view(4, 5)}, [4, 5]))
    replay.update_priority(torch.tensor([[1, 2], [4, 0]]), torch.tensor([1e9, 1e9]))
    data, info = replay.sample(return_info=True)
    assert set(data["x"].tolist()) == {11, 4}  # TorchRL stores [T, n_envs]
    assert set(zip(*(index.tolist() for index in info["index"]), strict=True)) == {(1, 2), (4, 0)}
    with pytest.raises(RuntimeError, match="several dimensions: give `storage`"):
        replay.sampler.update_priority(torch.tensor([[1, 2]]), 1.0)


def test_what_a_writer_did_not_store_is_ignored():
    replay = TensorDictReplayBuffer(
        storage=LazyTensorStorage(2),
        sampler=ProportionalSampler(2, 1.0, 0.4, EPS),
        writer=TensorDictMaxValueWriter(rank_key="rank"),
        batch_size=8,
    )
    replay.extend(TensorDict({"rank": torch.tensor([3.0, 2.0, 1.0])}, [3]))
    replay.update_priority(torch.tensor([0, -1, 1]), torch.tensor([1.0, 9.0, 2.0]))
    assert replay.sampler.priorities().tolist() == pytest.approx([1.0 + EPS, 2.0 + EPS])
    assert replay.sampler.default_priority == 2.0
    assert replay.sample().shape == (8,)


def test_where_an_item_comes_twice_the_largest_priority_counts():
    replay = filled(alpha=1.0)
    replay.update_priority(torch.tensor([3, 3, 3]), torch.tensor([0.5, 0.75, 0.25]))
    assert float(replay.sampler.priorities()[3]) == pytest.approx(0.75 + EPS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_bad_priorities_are_refused_and_change_nothing(value):
    replay = filled()
    before = copy.deepcopy(replay.sampler.state_dict())
    with pytest.raises(
        ValueError,
        match=r"priority of item 5 is .*finite and at least 0; .*lower the learning rate",
    ):
        replay.update_priority(torch.tensor([2, 5]), torch.tensor([1.0, value]))
    assert torch.equal(before["_tree"], replay.sampler.state_dict()["_tree"])


def test_other_bad_input_is_named():
    replay = filled()
    with pytest.raises(IndexError, match="item 9 is beyond the sampler's capacity of 8"):
        replay.sampler.update_priority(torch.tensor([1, 9]), 1.0)
    with pytest.raises(
        RuntimeError, match=r"one priority, or one per item: got \(3,\) for 2 items"
    ):
        replay.sampler.update_priority(torch.tensor([1, 2]), torch.ones(3))
    with pytest.raises(ValueError, match="holds 8 items, this one 9; make it with the same"):
        ProportionalSampler(9, 0.6, 0.4).load_state_dict(replay.sampler.state_dict())
    untold = TensorDictReplayBuffer(storage=LazyTensorStorage(8), batch_size=2)
    untold.extend(items(N))
    untold.set_sampler(ProportionalSampler(8, 0.6, 0.4))
    with pytest.raises(RuntimeError, match="holds 8 items whose priorities the sampler was never"):
        untold.sample()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": -0.1}, "alpha must be at least 0; got -0.1"),
        ({"beta": 1.1}, r"beta must lie in \[0, 1\]; got 1.1"),
        ({"beta_end": -1.0}, r"beta_end must lie in \[0, 1\]; got -1.0"),
        ({"eps": 0.0}, "eps must be above 0, or items without an error are never seen again"),
        ({"n_anneal": -1}, "n_anneal must be at least 0 batches; got -1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProportionalSampler(**{"max_capacity": 4, "alpha": 0.6, "beta": 0.4, **arguments})


@pytest.mark.gpu
def test_on_a_gpu_nothing_waits_and_a_bad_priority_is_told_at_the_next_write():
    storage = LazyTensorStorage(N, device="cuda")
    sampler = ProportionalSampler(N, 0.6, 0.4, device="cuda")
    replay = TensorDictReplayBuffer(storage=storage, sampler=sampler, batch_size=64)
    replay.extend(items(N).to("cuda"))
    index, priority = torch.arange(N, device="cuda"), PRIORITIES.to("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            sampler.update_priority(index, priority, storage=storage)
            sampler.sample(storage, 64)
        sampler.update_priority(index, priority.log(), storage=storage)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    with pytest.raises(ValueError, match="since the last write to the buffer"):
        replay.extend(items(1).to("cuda"))
