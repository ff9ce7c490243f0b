"""Spaces of others in our terms: joint discrete actions, pictures, nested observations, groups."""

import gymnasium.spaces as spaces
import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torchrl.envs.utils import check_env_specs
from toy_parallel import Toy

from marl_td.tasks.adapters import from_pettingzoo
from marl_td.tasks.adapters.grouping import group_agents
from marl_td.tasks.adapters.parallel_copy import _warn_once
from marl_td.tasks.adapters.pictures import Pictures, is_picture
from marl_td.tasks.adapters.spaces import action_reader, observation_reader
from marl_td.tasks.base import Discrete


# --------------------------------------------------------------------------------------- actions
def test_a_multi_discrete_action_is_one_number_over_all_combinations():
    space = spaces.MultiDiscrete([2, 3], start=[0, 5])
    reader = action_reader(space, "a")
    assert reader.action == Discrete(6)
    members = [reader.convert(torch.tensor(i).numpy()) for i in range(6)]
    assert [m.tolist() for m in members] == [[0, 5], [0, 6], [0, 7], [1, 5], [1, 6], [1, 7]]
    assert all(space.contains(member) for member in members)
    square = spaces.MultiBinary((2, 2))
    reader = action_reader(square, "a")
    assert reader.action == Discrete(16)
    assert square.contains(reader.convert(6)) and reader.convert(6).tolist() == [[0, 1], [1, 0]]


def test_masks_of_multi_discrete_actions():
    read = action_reader(spaces.MultiDiscrete([2, 2]), "a").read_mask
    assert read((np.int8([1, 0]), np.int8([1, 1]))).tolist() == [True, True, False, False]
    assert read(np.int8([0, 1, 0, 1])).tolist() == [False, True, False, True]
    with pytest.raises(ValueError, match=r"mask of agent 'a' has shape \(2,\); it has 4 actions"):
        read(np.int8([1, 0]))


def test_too_many_combinations_are_refused_by_number():
    with pytest.raises(ValueError, match=r"'a' has .*which has 10000 combinations; at most 4096"):
        action_reader(spaces.MultiDiscrete([10] * 4), "a")


def test_multi_discrete_agents_in_an_environment():
    toy = Toy()
    toy.acts["mouse_0"] = spaces.MultiDiscrete([2, 3])
    env = from_pettingzoo(toy)
    check_env_specs(env)
    mouse = TensorDict({"action": torch.tensor([[4]])}, [1, 1])
    cat = TensorDict({"action": torch.tensor([[0, 1]])}, [1, 2])
    env.step(env.reset().update(TensorDict({"mouse": mouse, "cat": cat}, [1])))
    assert toy.received[-1]["mouse_0"].tolist() == [1, 1]


# ---------------------------------------------------------------------------------- observations
BYTES = {"low": 0, "high": 255, "dtype": np.uint8}


def picture(seed=0, shape=(7, 10, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_a_picture_is_averaged_block_by_block():
    pictures = Pictures((7, 10, 3), 3)
    assert pictures.shape == (3, 3, 3)
    given, small = picture(), pictures.read(picture())
    assert small.dtype == np.float32
    rows, columns = [0, 2, 4, 7], [0, 3, 6, 10]
    for i in range(3):
        for j in range(3):
            block = given[rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
            assert small[i, j] == pytest.approx(block.mean((0, 1)) / 255, rel=1e-5)
    assert (Pictures((7, 10, 3), 3).read(np.full((7, 10, 3), 255, np.uint8)) == 1).all()


def test_channels_come_last_and_small_pictures_keep_their_size():
    last = picture()
    first = Pictures((3, 7, 10), 4).read(np.moveaxis(last, -1, 0))
    assert (first == Pictures((7, 10, 3), 4).read(last)).all()
    assert Pictures((7, 10), 16).shape == (7, 10, 1)
    assert np.allclose(Pictures((7, 10), 16).read(last[..., 0])[..., 0], last[..., 0] / 255)


def test_what_counts_as_a_picture():
    assert is_picture(spaces.Box(shape=(5, 4, 3), **BYTES))
    assert not is_picture(spaces.Box(0, 1, (5, 4, 3), dtype=np.uint8))
    assert not is_picture(spaces.Box(0, 255, (5, 4, 3), dtype=np.float32))
    assert not is_picture(spaces.Box(shape=(5,), **BYTES))


def test_a_dict_is_one_vector_in_which_pictures_are_small():
    space = spaces.Dict(
        eye=spaces.Box(shape=(7, 10, 3), **BYTES),
        near=spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2, 2))]),
    )
    reader = observation_reader(space, "a", image_size=2)
    seen = {"eye": picture(), "near": (1, np.float32([[1, 2], [3, 4]]))}
    value = reader.read(seen)
    assert reader.shape == value.shape == (2 * 2 * 3 + 3 + 4,)
    assert value[-7:].tolist() == [0, 1, 0, 1, 2, 3, 4]
    assert (value[:12] == Pictures((7, 10, 3), 2).read(seen["eye"]).reshape(-1)).all()


@pytest.mark.parametrize("flatten", [True, False])
@pytest.mark.parametrize(
    ("space", "shape"),
    [
        (spaces.Box(-1, 1, (3, 2)), (3, 2)),
        (spaces.Box(-1, 1, ()), (1,)),
        (spaces.Box(shape=(7, 10, 3), **BYTES), (4, 4, 3)),
        (spaces.MultiDiscrete([2, 3]), (5,)),
    ],
)
def test_flatten_makes_vectors_and_otherwise_a_box_keeps_its_shape(space, shape, flatten):
    reader = observation_reader(space, "a", flatten=flatten, image_size=4)
    expected = (int(np.prod(shape)),) if flatten else shape
    assert reader.shape == reader.read(space.sample()).shape == expected


def test_an_observation_of_another_shape_is_named():
    for flatten in (True, False):
        reader = observation_reader(spaces.Box(-1, 1, (3, 2)), "a", flatten=flatten)
        with pytest.raises(ValueError, match=r"agent 'a' has shape \(6,\), but .* says \(3, 2\)"):
            reader.read(np.zeros(6, np.float32))


def test_pictures_in_an_environment_with_masks_and_a_picture_as_state():
    toy = Toy(mask="observation", state=True)
    toy.seen["mouse_0"] = spaces.Box(shape=(7, 10, 3), **BYTES)
    observe = toy.observe
    toy.observe = lambda agents: {
        a: picture(toy.count) if a == "mouse_0" else seen for a, seen in observe(agents).items()
    }
    toy.state = lambda: picture(toy.count, (40, 30, 3))
    env = from_pettingzoo(toy, flatten=True, image_size=2)
    check_env_specs(env)
    td = env.reset()
    assert td["mouse", "observation"].shape == (1, 1, 12)
    assert td["cat", "action_mask"].shape == (1, 2, 3)
    assert td["state"].shape == (1, 12) and td["state"].max() <= 1


# ---------------------------------------------------------------------------------------- groups
def test_agents_of_equal_spaces_share_a_group_named_after_them():
    agents = ["archer_0", "archer_1", "knight_0", "medic", "archer_2"]
    same = dict.fromkeys(agents, 1)
    assert group_agents(agents, "spaces", same) == {"archer_knight_medic": agents}
    kinds = {**same, "archer_2": 2, "medic": 3}
    assert group_agents(agents, "spaces", kinds) == {
        "archer_knight": ["archer_0", "archer_1", "knight_0"],
        "medic": ["medic"],
        "archer": ["archer_2"],
    }
    kinds = {**same, "knight_0": 2, "medic": 2, "archer_2": 3}
    assert list(group_agents(agents, "spaces", kinds)) == [
        "archer",
        "knight_medic",
        "archer_kind_2",
    ]
    many = [f"{letter}_0" for letter in "abcd"]
    assert group_agents(many, "spaces", dict.fromkeys(many, 1)) == {"agents": many}


def test_groups_by_spaces_need_the_spaces():
    with pytest.raises(ValueError, match="must be 'name', 'all', 'each' or a mapping; got 'spaces"):
        group_agents(["a_0"], "spaces")


def test_groups_by_spaces_in_an_environment():
    toy = Toy()
    toy.acts["cat_1"] = spaces.Discrete(5)
    env = from_pettingzoo(toy, groups="spaces")
    assert env.group_map == {"cat": ["cat_0"], "cat_kind_2": ["cat_1"], "mouse": ["mouse_0"]}
    check_env_specs(env)


# ----------------------------------------------------------------- environments that break rules
@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (
            lambda toy: toy.__dict__.update(reset=lambda seed=None: toy.observe(toy.seen)),
            r"reset\(\) must return \(observations, infos\), .*; got one dict",
        ),
        (
            lambda toy: toy.__dict__.update(step=lambda actions: ({}, {}, {}, {})),
            r"step\(\) must return \(observations, rewards, .*; got a tuple of 4",
        ),
        (
            lambda toy: toy.__dict__.update(possible_agents=[]),
            r"must list the names of all agents .* `possible_agents`, as strings; got \[\]",
        ),
        (
            lambda toy: toy.__dict__.update(possible_agents=[0, 1]),
            r"as strings; got \[0, 1\]",
        ),
        (
            lambda toy: toy.__dict__.update(possible_agents=["cat_0", "cat_1"], names=3),
            r"the agents \['mouse_0'\] are in the game but not among possible_agents",
        ),
        (
            lambda toy: toy.__dict__.update(observe=lambda agents: {"cat_0": np.zeros(2)}),
            r"the agents \['cat_1', 'mouse_0'\] are in the game but got no observation",
        ),
    ],
)
def test_an_environment_that_breaks_the_interface_gets_a_sentence(breaks, message):
    toy = Toy()
    toy.reset()
    everybody = toy.possible_agents
    breaks(toy)
    if "names" in vars(toy):
        reset = toy.reset
        toy.reset = lambda seed=None: (*reset(seed), setattr(toy, "agents", everybody))[:2]
    with pytest.raises(ValueError, match=message):
        env = from_pettingzoo(toy)
        env.step(env.rand_step(env.reset()))


def test_a_state_that_is_gone_after_the_end_stays_as_it_was():
    toy = Toy(state=True, limit=2)
    state = toy.state
    toy.state = lambda: state() if toy.agents else toy.nowhere
    env = from_pettingzoo(toy)
    _warn_once.cache_clear()
    with pytest.warns(UserWarning, match=r"no global state after an episode's end \(Att") as told:
        env.rollout(9)
        td = env.rollout(9)
    assert len(told) == 1
    assert td["next", "state"][0, :, 0].tolist() == [1, 1] and td["next", "truncated"][0, -1]
    toy.state = lambda: toy.nowhere if toy.count else state()
    with pytest.raises(
        ValueError, match=r"state\(\) failed while agents .*; leave it out with state="
    ):
        env.rollout(9)
