"""PettingZoo environments as TorchRL environments."""

import gymnasium.spaces as spaces
import numpy as np
import pytest
import torch
from pettingzoo.utils import parallel_to_aec
from torchrl.data import Bounded, Categorical, Unbounded
from torchrl.envs.utils import check_env_specs
from toy_parallel import Toy, act

from marl_td.tasks.adapters import from_pettingzoo


# ------------------------------------------------------------------------------ specs and layout
@pytest.mark.parametrize(
    "make",
    [
        Toy,
        lambda: Toy(mask="observation", state=True),
        lambda: Toy(mask="info", start=5),
        lambda: Toy(ends={"cat_0": (2, "terminated"), "mouse_0": (1, "truncated")}),
    ],
)
@pytest.mark.parametrize("n_envs", [1, 3])
def test_specs_hold(make, n_envs):
    env = from_pettingzoo(make, n_envs=n_envs)
    check_env_specs(env)
    assert env.rollout(9, break_when_any_done=False).shape == (n_envs, 9)


def test_keys_and_shapes():
    env = from_pettingzoo(lambda: Toy(mask="info", state=True), n_envs=2, info_keys=["cost"])
    td = env.rollout(1)["next"]
    assert {key: tuple(td[key].shape) for key in td.keys(True, True)} == {
        ("cat", "observation"): (2, 1, 2, 2),
        ("cat", "action_mask"): (2, 1, 2, 3),
        ("cat", "mask"): (2, 1, 2),
        ("cat", "reward"): (2, 1, 2, 1),
        ("mouse", "observation"): (2, 1, 1, 3),
        ("mouse", "mask"): (2, 1, 1),
        ("mouse", "reward"): (2, 1, 1, 1),
        ("info", "cost"): (2, 1, 1),
        "state": (2, 1, 4),
        "done": (2, 1, 1),
        "terminated": (2, 1, 1),
        "truncated": (2, 1, 1),
        **{("cat", end): (2, 1, 2, 1) for end in ("done", "terminated", "truncated")},
        **{("mouse", end): (2, 1, 1, 1) for end in ("done", "terminated", "truncated")},
    }
    assert (td["info", "cost"] == 1.0).all()  # the mean of 0, 1 and 2
    assert (td["state"] == 1.0).all()


def test_discrete_actions_are_integers_and_boxes_are_bounded():
    spec = from_pettingzoo(Toy).full_action_spec
    assert isinstance(spec["cat", "action"], Categorical) and spec["cat", "action"].space.n == 3
    assert spec["cat", "action"].shape == (1, 2) and spec["cat", "action"].dtype == torch.int64
    assert isinstance(spec["mouse", "action"], Bounded)
    assert spec["mouse", "action"].space.low.unique().tolist() == [-1.0]
    assert spec["mouse", "action"].space.high.unique().tolist() == [2.0]


def test_a_box_without_bounds_is_unbounded():
    toy = Toy()
    toy.acts["mouse_0"] = spaces.Box(-np.inf, np.inf, (2,), dtype=np.float32)
    assert isinstance(from_pettingzoo(toy).full_action_spec["mouse", "action"], Unbounded)


def test_actions_arrive_as_members_of_their_spaces():
    toy = Toy(start=5)
    env = from_pettingzoo(toy)
    env.step(env.reset().update(act(env, cat=2)))
    assert toy.received[0]["cat_0"] == 7 and isinstance(toy.received[0]["cat_0"], int)
    assert toy.received[0]["mouse_0"].tolist() == [0.5, 0.5]
    assert all(toy.acts[agent].contains(action) for agent, action in toy.received[0].items())


def test_a_box_of_another_shape_and_type_gets_its_own():
    toy = Toy()
    toy.acts["mouse_0"] = spaces.Box(-1.0, 1.0, (2, 1), dtype=np.float64)
    env = from_pettingzoo(toy)
    env.step(env.reset().update(act(env)))
    assert toy.acts["mouse_0"].contains(toy.received[0]["mouse_0"])


def test_observations_and_rewards_are_the_environment_s():
    env, twin = from_pettingzoo(Toy(), seed=3), Toy()
    first = env.reset()
    seen, _ = twin.reset(seed=env.copies[0].env.seeds[-1])
    for agent, group, seat in [("cat_0", "cat", 0), ("cat_1", "cat", 1), ("mouse_0", "mouse", 0)]:
        assert first[group, "observation"][0, seat].tolist() == seen[agent].tolist()
    step = env.step(first.update(act(env)))["next"]
    assert step["cat", "reward"].flatten().tolist() == [11.0, 11.0]
    assert step["mouse", "reward"].item() == 11.0


def test_other_observation_spaces_are_flattened():
    toy = Toy()
    toy.seen["mouse_0"] = spaces.Discrete(4)
    toy.observe = lambda agents: {
        a: 2 if a == "mouse_0" else np.zeros(2, np.float32) for a in agents
    }
    assert from_pettingzoo(toy).reset()["mouse", "observation"].tolist() == [[[0, 0, 1, 0]]]


# ---------------------------------------------------------------------------------------- groups
def same_spaces():
    toy = Toy()
    toy.seen["mouse_0"], toy.acts["mouse_0"] = toy.seen["cat_0"], toy.acts["cat_0"]
    return toy


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("name", {"cat": ["cat_0", "cat_1"], "mouse": ["mouse_0"]}),
        ("spaces", {"cat_mouse": ["cat_0", "cat_1", "mouse_0"]}),
        ("all", {"agents": ["cat_0", "cat_1", "mouse_0"]}),
        ("each", {"cat_0": ["cat_0"], "cat_1": ["cat_1"], "mouse_0": ["mouse_0"]}),
        ({"a": ["mouse_0", "cat_1"], "b": ["cat_0"]}, None),
    ],
)
def test_groups(groups, expected):
    env = from_pettingzoo(same_spaces(), groups=groups)
    assert env.group_map == (expected or groups)
    check_env_specs(env)


def test_differing_observations_in_a_group_name_agents_spaces_and_remedy():
    message = (
        r"'cat_0' and 'mouse_0' are both in group 'agents' but their observation spaces differ: "
        r"Box\(.*\(2,\).*\) and Box\(.*\(3,\).*\)\. Put them in separate groups.*or pad"
    )
    with pytest.raises(ValueError, match=message):
        from_pettingzoo(Toy(), groups="all")


def test_differing_actions_in_a_group_are_named():
    toy = same_spaces()
    toy.acts["mouse_0"] = spaces.Discrete(4)
    with pytest.raises(ValueError, match=r"action spaces differ: Discrete\(3\) and Discrete\(4\)"):
        from_pettingzoo(toy, groups="all")


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": ["cat_0", "cat_1"]}, r"every agent exactly once.*'mouse_0'\], groups name \['cat_0"),
        ({"a": ["cat_0", "cat_1", "mouse_0"], "b": ["cat_0"]}, "every agent exactly once"),
        ("some", "groups must be 'name', 'spaces', 'all', 'each' or a mapping; got 'some'"),
        ({"state": ["cat_0", "cat_1"], "m": ["mouse_0"]}, r"must not be named \['state'\]"),
    ],
)
def test_bad_groups_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        from_pettingzoo(Toy(), groups=groups)


# ----------------------------------------------------------------------------------------- seeds
def test_copies_get_distinct_seeds_that_one_seed_determines():
    env = from_pettingzoo(Toy, n_envs=6, seed=1)
    first = env.reset()
    seeds = [copy.env.seeds[-1] for copy in env.copies]
    assert len(set(seeds)) == 6 and None not in seeds
    assert len({tuple(row) for row in first["cat", "observation"][:, 0].tolist()}) == 6
    again, other = from_pettingzoo(Toy, n_envs=6, seed=1), from_pettingzoo(Toy, n_envs=6, seed=2)
    assert (again.reset() == first).all() and not (other.reset() == first).all()


def test_later_resets_go_on_and_set_seed_starts_again():
    env = from_pettingzoo(Toy, n_envs=2, seed=1)
    first, second = env.reset(), env.reset()
    assert env.copies[0].env.seeds[-1] is None and not (first == second).all()
    env.set_seed(1)
    assert (env.reset() == first).all() and (env.reset() == second).all()


def test_seed_none_leaves_the_environment_to_itself():
    env = from_pettingzoo(Toy(), seed=None)
    env.reset()
    assert set(env.copies[0].env.seeds) == {None}


def test_the_global_generators_are_left_alone():
    env = from_pettingzoo(Toy, n_envs=2)
    torch_state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    env.reset()
    env.step(env.reset().update(act(env)))
    env.set_seed(3)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


# -------------------------------------------------------------------------------- refused objects
def turn_based(parallelizable):
    env = parallel_to_aec(Toy())
    env.metadata = {"name": "toy", "is_parallelizable": parallelizable}
    return env


@pytest.mark.parametrize("source", [turn_based(True), lambda: turn_based(True)])
def test_a_turn_based_environment_is_made_parallel(source):
    env = from_pettingzoo(source)
    assert env.rollout(9).shape == (1, 4)
    assert env.group_map == from_pettingzoo(Toy).group_map


def test_a_game_in_which_one_moves_at_a_time_is_refused_with_the_reason():
    message = r"toy is a turn-based AECEnv whose agents cannot all act at once .*parallel_env"
    with pytest.raises(ValueError, match=message):
        from_pettingzoo(turn_based(False))


@pytest.mark.parametrize("wrong", [3, "simple_spread_v3", dict])
def test_something_else_is_named(wrong):
    with pytest.raises(
        TypeError, match=r"a function that returns one; got builtins\.(int|str|dict)"
    ):
        from_pettingzoo(wrong)


def test_copies_of_one_object_are_refused():
    with pytest.raises(ValueError, match="n_envs=2 copies need a function that builds"):
        from_pettingzoo(Toy(), n_envs=2)
    one = Toy()
    with pytest.raises(ValueError, match="it returned the same one twice"):
        from_pettingzoo(lambda: one, n_envs=2)
    with pytest.raises(ValueError, match="n_envs must be at least 1; got 0"):
        from_pettingzoo(Toy, n_envs=0)


def test_copies_that_differ_are_refused():
    kinds = iter([None, "info"])
    with pytest.raises(ValueError, match="all copies must have the same agents and spaces"):
        from_pettingzoo(lambda: Toy(mask=next(kinds)), n_envs=2)


def test_an_action_space_that_no_policy_here_serves_is_named():
    toy = Toy()
    toy.acts["mouse_0"] = spaces.Tuple([spaces.Discrete(2), spaces.Discrete(3)])
    with pytest.raises(ValueError, match=r"'mouse_0' has the action space Tuple.*Wrap"):
        from_pettingzoo(toy)


def test_an_observation_space_without_a_size_is_named():
    toy = Toy()
    toy.seen["mouse_0"] = spaces.Sequence(spaces.Discrete(2))
    with pytest.raises(ValueError, match=r"'mouse_0' has the observation space Sequence.*Box"):
        from_pettingzoo(toy)
