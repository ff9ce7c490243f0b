"""PettingZoo environments whose dictionaries, masks or observations are not what PettingZoo asks."""

import gymnasium.spaces as spaces
import numpy as np
import pytest
from pettingzoo.utils import parallel_to_aec
from toy_parallel import Toy, play

from marl_td.tasks.adapters import from_pettingzoo
from marl_td.tasks.adapters.spaces import observation_reader

DICTS = ("observations", "rewards", "terminations", "truncations", "infos")


def reporting(change, **options):
    """A Toy whose step's results ``change(results, acted)`` changes, by name."""
    toy = Toy(**options)
    step = toy.step

    def changed(actions):
        acted = list(toy.agents)
        results = dict(zip(DICTS, step(actions), strict=True))
        change(results, acted)
        return tuple(results.values())

    toy.step = changed
    return toy


# ------------------------------------------------------------------------------------ dictionaries
@pytest.mark.parametrize("name", ["rewards", "terminations", "truncations"])
def test_an_agent_that_is_missing_is_named(name):
    toy = reporting(lambda results, acted: results[name].pop("cat_1"))
    message = (
        rf"{name} of step\(\) lack the agents \['cat_1'\]: PettingZoo asks for everybody who acted, "
        "those that leave in this step among them"
    )
    with pytest.raises(ValueError, match=message):
        play(from_pettingzoo(toy), 1)


@pytest.mark.parametrize("name", ["rewards", "terminations", "truncations"])
def test_a_name_that_is_not_known_is_told(name):
    toy = reporting(lambda results, acted: results[name].update(robot_0=0))
    message = rf"{name} of step\(\) name the agents \['robot_0'\], .* not among possible_agents"
    with pytest.raises(ValueError, match=message):
        play(from_pettingzoo(toy), 1)


@pytest.mark.parametrize("name", ["rewards", "terminations", "truncations"])
def test_an_agent_is_still_named_in_the_step_in_which_it_leaves(name):
    def forget(results, acted):
        if "cat_1" in acted and results["terminations"]["cat_1"]:
            results[name].pop("cat_1")

    toy = reporting(forget, ends={"cat_1": (2, "terminated")})
    env = from_pettingzoo(toy)
    play(env, 1)
    with pytest.raises(ValueError, match=rf"{name} of step\(\) lack the agents \['cat_1'\]"):
        play(env, 2)


@pytest.mark.parametrize("kept", [True, False])
def test_who_left_earlier_may_be_in_the_dictionaries_or_not(kept):
    def keep(results, acted):
        if kept:
            for name, value in zip(DICTS[1:4], (0.0, True, False), strict=True):
                for agent in ("cat_0", "cat_1", "mouse_0"):
                    results[name].setdefault(agent, value)

    toy = reporting(keep, ends={"cat_1": (1, "terminated")})
    last = play(from_pettingzoo(toy), 4)[-1]
    assert last["truncated"].all() and last["cat", "mask"].tolist() == [[True, False]]
    assert last["cat", "reward"].flatten().tolist() == [41.0, 0.0]


@pytest.mark.parametrize("name", ["observations", "rewards", "infos"])
def test_what_is_no_dictionary_is_named(name):
    toy = reporting(lambda results, acted: results.update({name: [1.0, 2.0, 3.0]}))
    with pytest.raises(
        ValueError, match=rf"{name} of step\(\) must be a dict.* by agent; got a li"
    ):
        play(from_pettingzoo(toy), 1)


def test_converted_environments_name_everybody():
    aec = parallel_to_aec(Toy(ends={"cat_0": (2, "terminated")}))
    aec.metadata = {"name": "toy", "is_parallelizable": True}
    last = play(from_pettingzoo(aec), 4)[-1]
    assert last["truncated"].all() and last["cat", "mask"].tolist() == [[False, True]]


@pytest.mark.parametrize("reward", [[1.0, 100.0], "much", np.zeros((2, 1)), None])
def test_a_reward_that_is_not_one_number_is_named(reward):
    toy = reporting(lambda results, acted: results["rewards"].update(cat_1=reward))
    with pytest.raises(ValueError, match="the reward of agent 'cat_1' must be one number; got "):
        play(from_pettingzoo(toy), 1)


@pytest.mark.parametrize("reward", [2, True, np.float32(2), np.array([2.0]), np.array([[2]])])
def test_one_number_in_any_clothes_is_a_reward(reward):
    toy = reporting(lambda results, acted: results["rewards"].update(cat_1=reward))
    (step,) = play(from_pettingzoo(toy), 1)
    assert step["cat", "reward"][0, 1].item() == float(np.asarray(reward).item())


# ------------------------------------------------------------------------------------------ masks
NOTHING = r"action mask of agent 'cat_0' allows no action.*at least one"


@pytest.mark.parametrize("where", ["observation", "info"])
def test_a_living_agent_without_an_available_action_is_named(where):
    toy = Toy(mask=where)
    legal = toy.legal
    toy.legal = lambda: legal() * (toy.count != 2)
    env = from_pettingzoo(toy)
    play(env, 1)
    with pytest.raises(ValueError, match=NOTHING):
        play(env, 2)
    toy.legal = lambda: np.zeros(3, np.int8)
    with pytest.raises(ValueError, match=NOTHING):
        env.reset()


@pytest.mark.parametrize("kind", ["terminated", "truncated"])
def test_who_does_not_act_again_needs_no_available_action(kind):
    toy = Toy(mask="info", ends=dict.fromkeys(("cat_0", "cat_1", "mouse_0"), (2, kind)))
    legal = toy.legal
    toy.legal = lambda: legal() * (toy.count < 2)
    last = play(from_pettingzoo(toy), 2)[-1]
    assert last["cat", "action_mask"][0, 0].tolist() == [True, False, False]


def test_a_mask_that_the_space_promises_is_missed():
    toy = Toy(mask="observation")
    observe = toy.observe

    def misspelt(agents):
        seen = observe(agents)
        if "cat_1" in seen and toy.count == 1:
            seen["cat_1"]["actionmask"] = seen["cat_1"].pop("action_mask")
        return seen

    toy.observe = misspelt
    message = (
        r"agent 'cat_1' has no 'action_mask', which its space says; it has \['observation', 'act"
    )
    with pytest.raises(ValueError, match=message):
        play(from_pettingzoo(toy), 1)


# ----------------------------------------------------------------------------------- observations
DEEP = spaces.Dict(kind=spaces.Discrete(3), near=spaces.Tuple([spaces.Box(-1, 1, (2,))]))
GOOD = {"kind": 1, "near": (np.zeros(2),)}


@pytest.mark.parametrize(
    ("space", "value", "message"),
    [
        (
            DEEP,
            {"kynd": 1, "near": GOOD["near"]},
            r"of agent 'a' has no 'kind', .*; it has \['kynd', 'near'\]",
        ),
        (
            DEEP,
            {**GOOD, "near": ()},
            r"of agent 'a' has no 'near\.0', which its space says; it has",
        ),
        (DEEP, np.zeros(5), r"of agent 'a' has no 'kind', .*; it is a ndarray"),
        (
            DEEP,
            {**GOOD, "kind": 7},
            r"of agent 'a' at 'kind' is 7, but its space says Discrete\(3\)",
        ),
        (DEEP, {**GOOD, "kind": -1}, r"of agent 'a' at 'kind' is -1, but its space says Disc"),
        (DEEP, {**GOOD, "kind": "b"}, r"of agent 'a' at 'kind' is 'b', but its space says Disc"),
        (
            DEEP,
            {**GOOD, "near": (np.zeros(3),)},
            r"of agent 'a' at 'near\.0' has shape \(3,\), but its space says \(2,\)",
        ),
        (spaces.Discrete(3, start=1), 0, r"of agent 'a' is 0, but its space says Discrete\(3, st"),
        (
            spaces.MultiDiscrete([2, 3]),
            [2, 0],
            r"of agent 'a' is \[2, 0\], but its space says Multi",
        ),
        (
            spaces.MultiBinary(3),
            [1, 0],
            r"of agent 'a' is \[1, 0\], but its space says MultiBinary",
        ),
        (spaces.MultiBinary(2), [1, 5], r"of agent 'a' is \[1, 5\], but its space says MultiBi"),
        (
            spaces.Dict(observation=DEEP, action_mask=spaces.Box(0, 1, (3,), np.int8)),
            {"observation": {**GOOD, "kind": 7}, "action_mask": np.ones(3)},
            r"of agent 'a' at 'observation\.kind' is 7",
        ),
        (
            spaces.Dict(observation=DEEP, action_mask=spaces.Box(0, 1, (3,), np.int8)),
            {"seen": GOOD, "action_mask": np.ones(3)},
            r"of agent 'a' has no 'observation', .*; it has \['seen', 'action_mask'\]",
        ),
    ],
)
def test_an_observation_that_does_not_fit_is_named(space, value, message):
    with pytest.raises(ValueError, match=f"observation {message}"):
        observation_reader(space, "a").read(value)


@pytest.mark.parametrize("value", [1, np.int64(1), np.array(1), np.array([1])])
def test_a_discrete_observation_in_any_clothes_is_read(value):
    assert observation_reader(spaces.Discrete(3), "a").read(value).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=-1),
        spaces.MultiDiscrete([2, 3], start=[1, -1]),
        spaces.MultiDiscrete([[2, 3], [4, 5]]),
        spaces.MultiBinary((2, 2)),
        DEEP,
    ],
)
def test_members_are_read_as_gymnasium_flattens_them(space):
    space.seed(3)
    reader = observation_reader(space, "a")
    for _ in range(20):
        member = space.sample()
        assert (reader.read(member) == spaces.flatten(space, member)).all()
