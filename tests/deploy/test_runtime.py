"""Acting with a bundle: results, states, batches, and what is said about wrong inputs."""

import re
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundle import agent_signature, write_bundle

from marl_td.deploy import BundleError, InputError, load, load_bundle
from marl_td.deploy.signature import Entry

OBS = np.array([0.5, 2.0, -1.0])
ALL = np.array([True, True, True])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle") / "b")


@pytest.fixture(scope="module")
def policy(folder):
    return load(folder)


def test_one_observation(policy):
    action, state = policy.act(OBS, mask=ALL)
    assert action == 1 and action.dtype == np.int64 and action.shape == ()
    assert state["steps"].tolist() == [3.0]  # starts from 2


def test_the_state_goes_on(policy):
    state = None
    for step in range(4):
        _, state = policy.act(OBS, state, ALL)
        assert state["steps"].tolist() == [3.0 + step]
    assert policy.initial_state()["steps"].tolist() == [2.0]
    assert policy.initial_state(5)["steps"].tolist() == [[2.0]] * 5


def test_the_mask_decides(policy):
    assert policy.act(OBS, mask=[True, False, True])[0] == 0
    assert policy.act(OBS, mask=[0, 0, 1])[0] == 2
    both = {"observation": OBS, "action_mask": [False, False, True]}
    assert policy.act(both)[0] == 2


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_a_batch_is_its_rows(policy, n, seed):
    rng = np.random.default_rng(seed)
    obs, mask = rng.normal(size=(n, 3)), rng.random((n, 3)) > 0.5
    mask[:, 0] |= ~mask.any(-1)
    state = {"steps": rng.normal(size=(n, 1))}
    action, after = policy.act(obs, state, mask)
    assert action.shape == (n,) and after["steps"].shape == (n, 1)
    for row in range(n):
        own = {"steps": state["steps"][row]}
        one, next_state = policy.act(obs[row], own, mask[row])
        assert one == action[row] and mask[row, one]
        np.testing.assert_array_equal(next_state["steps"], after["steps"][row])


def test_outputs_have_the_scores(policy):
    out = policy.outputs(OBS, mask=[True, False, True])
    assert out["scores"][0, [0, 2]].tolist() == [0.5, -1.0]
    assert out["scores"][0, 1] == np.finfo(np.float32).min


WRONG = [
    ({"obs": OBS[:2]}, r"agent 'a': 'observation' must have the shape \[3\], or \[B, 3\] .* \[2\]"),
    ({"obs": OBS[None, None]}, r"must have the shape \[3\].*got \[1, 1, 3\]"),
    ({"obs": np.zeros((0, 3))}, r"got \[0, 3\]"),
    ({"obs": ["a", "b", "c"]}, "must hold numbers that fit float32; got an array of <U1"),
    ({"obs": [1j, 0, 0]}, "fit float32; got an array of complex128"),
    ({"obs": [[1, 2], [3]]}, "'observation' cannot be made an array"),
    ({"obs": [0, np.nan, 0]}, r"'observation' is not finite at \[1\]: nan"),
    ({"obs": [0, 1e300, 0]}, r"'observation' is not finite at \[1\]: inf"),
    ({"obs": [0, 0, 10.5]}, r"'observation' at \[2\] is 10.5, above its upper bound 10"),
    ({"obs": [-11, 0, 0]}, r"'observation' at \[0\] is -11.0, below its lower bound -10"),
    (
        {"obs": {"seen": OBS}},
        "observation lacks 'observation' and has the unknown 'seen'; its entries",
    ),
    ({"mask": None}, "this agent needs a mask: which of its 3 actions are available"),
    (
        {"mask": [0.0, 1.0, 1.0]},
        r"the mask must hold booleans \(or 0 and 1\); got an array of float64",
    ),
    ({"mask": [0, 2, 1]}, "the mask must hold booleans"),
    ({"mask": [True, True]}, r"'action_mask' must have the shape \[3\]"),
    ({"mask": [False] * 3}, "the mask allows no action; at least one must be available"),
    ({"mask": [ALL, ~ALL], "obs": [OBS, OBS]}, "the mask allows no action in row 1"),
    ({"mask": [ALL, ALL]}, "'action_mask' is a batch of 2, what came before it one observation"),
    ({"obs": [OBS, OBS]}, "'action_mask' is one observation, what came before it a batch of 2"),
    ({"state": {"step": [1.0]}}, "the state lacks 'steps' and has the unknown 'step'"),
    (
        {"state": [1.0]},
        r"the state must be the dict that the last act\(\) returned, or None; got list",
    ),
    ({"state": {"steps": [[1.0]]}}, "'steps' is a batch of 1, what came before it one observation"),
    ({"state": {"steps": [np.inf]}}, "'steps' is not finite"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[m[:40] for _, m in WRONG])
def test_wrong_inputs_are_named(policy, change, message):
    with pytest.raises(InputError, match=message):
        policy.act(**{"obs": OBS, "mask": ALL, **change})


def test_bounds_hold_up_to_rounding_and_can_be_left_out(folder, policy):
    policy.act([10.00005, 0, 0], mask=ALL)
    assert load(folder, check_bounds=False).act([99.0, 0, 0], mask=ALL)[0] == 0


def test_what_an_agent_does_not_have_is_refused(tmp_path):
    fields = {"mask": None, "state": (), "outputs": ("action",)}
    signature = agent_signature(**fields)
    from marl_td.deploy.validate import actor_inputs

    with pytest.raises(InputError, match="has no action mask"):
        actor_inputs(signature, OBS, None, ALL)
    with pytest.raises(InputError, match="has no memory: its state is None"):
        actor_inputs(signature, OBS, {"steps": [1.0]}, None)
    two = agent_signature(
        **fields, observation=(Entry("x", "float32", (1,)), Entry("y", "int64", ()))
    )
    with pytest.raises(InputError, match="has the entries 'x', 'y': give a dict"):
        actor_inputs(two, OBS, None, None)
    with pytest.raises(InputError, match="'y' must hold numbers that fit int64"):
        actor_inputs(two, {"x": [1.0], "y": 1.5}, None, None)
    inputs, batched = actor_inputs(two, {"x": [1], "y": 3}, None, None)
    assert not batched and inputs["x"].dtype == np.float32 and inputs["y"].tolist() == [3]


def test_several_agents(tmp_path):
    same = {"a": agent_signature(), "b": agent_signature(index=1)}
    folder = write_bundle(tmp_path / "same", same)
    assert load(folder).agent == "a" and load(folder, "b").agent == "b"
    with pytest.raises(BundleError, match="has no agent 'c'; it has a, b"):
        load(folder, "c")
    assert list(load_bundle(folder).agents) == ["a", "b"]


def test_different_networks_must_be_named(tmp_path):
    from tiny_bundle import actor_bytes

    agents = {"a": agent_signature(), "b": agent_signature(index=1, actor="other")}
    folder = write_bundle(tmp_path / "b", agents, {"agents": actor_bytes(), "other": actor_bytes()})
    with pytest.raises(BundleError, match="different networks: name one of a, b"):
        load(folder)
    assert load(folder, agent="b").act(OBS, mask=ALL)[0] == 1


def golden(**changes):
    obs = np.array([[1, 2, 3], [3, 2, 1]], dtype=np.float32)
    lowest = np.finfo(np.float32).min
    values = {
        "a/in/observation": obs,
        "a/in/action_mask": np.array([[True, True, False], [True] * 3]),
        "a/in/steps": np.ones((2, 1), np.float32),
        "a/out/action": np.array([1, 0]),
        "a/out/scores": np.array([[1, 2, lowest], [3, 2, 1]], np.float32),
        "a/out/next_steps": np.full((2, 1), 2.0, np.float32),
    }
    return {key: value for key, value in {**values, **changes}.items() if value is not None}


def test_stored_inputs_are_replayed(tmp_path):
    folder = write_bundle(tmp_path / "b", golden=golden())
    assert load_bundle(folder, verify=True).verify() == 0.0
    assert load(folder, verify=True).agent == "a"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"a/out/next_steps": np.full((2, 1), 2.0001, np.float32)},
            r"agent 'a' differs by 4.99e-05",
        ),
        ({"a/out/action": np.array([0, 0])}, "agent 'a' differs by 1 "),
        ({"a/out/action": np.array([1, 0, 0])}, "differs by inf"),
        ({"a/out/action": np.array([1, 9])}, "differs by inf"),
        ({"a/out/next_steps": np.full((2, 1), np.nan, np.float32)}, "differs by inf"),
        ({"a/in/steps": None, "a/out/scores": None}, "golden.npz has no a/in/steps, a/out/scores"),
        (
            {"a/in/steps": np.ones((2, 2), np.float32)},
            "the inputs of agent 'a' in golden.npz do not fit",
        ),
    ],
)
def test_a_difference_to_the_stored_outputs_is_found(tmp_path, changes, message):
    folder = write_bundle(tmp_path / "b", golden=golden(**changes))
    load_bundle(folder)
    with pytest.raises(BundleError, match=message):
        load_bundle(folder, verify=True)


def test_equal_scores_excuse_another_action(tmp_path):
    obs = np.array([[2, 2, 1], [3, 2, 1]], np.float32)
    changes = {
        "a/in/observation": obs,
        "a/in/action_mask": np.ones((2, 3), bool),
        "a/out/scores": obs,
        "a/out/action": np.array([1, 0]),
    }
    folder = write_bundle(tmp_path / "b", golden=golden(**changes))
    assert load_bundle(folder).verify() == 0.0


def test_several_threads_may_act(policy):
    found = []

    def work(number):
        obs = np.roll([5.0, 0, 0], number)
        found.extend(int(policy.act(obs, mask=ALL)[0]) == number for _ in range(50))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 150 and all(found)


def test_messages_are_one_sentence_each(policy):
    with pytest.raises(InputError) as error:
        policy.act(OBS[:2], mask=ALL)
    assert not re.search(r"\n", str(error.value))
