"""The shield in a bundle: the same as in training, without torch; what it cannot keep is refused."""

import copy

import numpy as np
import pytest
import torch
from benchmarl_runs import IGNORED
from half_spaces import random_set
from hypothesis import given
from hypothesis import strategies as st
from served import CENTRE, JOINT, OWN, changed
from small_policies import DISCRETE, MLP, RETAIL, small_source

from marl_td.deploy import BundleError, InputError, load_bundle
from marl_td.deploy.export import export_policy
from marl_td.deploy.parts import NotExportable
from marl_td.deploy.projection import HalfSpaces
from marl_td.deploy.projection import SafeSet as NumpySet
from marl_td.deploy.safety_export import safety_entry
from marl_td.tasks.shield import Corrector, Shield
from marl_td.tasks.shield.projection import SafeSet

pytestmark = IGNORED
SAFETY = (
    "{linear: [{scope: own, weights: {agents: [1, 1]}, limit: 0.1}, "
    "{weights: {agents: [1, 0]}, limit: 0.2}]}"
)


@given(seed=st.integers(0, 2**32 - 1), n_blocks=st.integers(1, 3))
def test_without_torch_a_point_is_projected_as_with_it(seed, n_blocks):
    rng = np.random.default_rng(seed)
    low, high, blocks = random_set(rng, n_blocks)
    with_torch = SafeSet(low, high, blocks)
    spaces = []
    for block in blocks:
        length = np.linalg.norm(block.weights, axis=-1)
        weights = block.weights / length[:, None]
        spaces.append(HalfSpaces(block.columns, weights, block.limit / length))
    without = NumpySet(low, high, spaces, np.zeros(len(low)))
    points = rng.uniform(low - 0.2, high + 0.2, (6, len(low)))
    found = without.project(points)
    expected = with_torch.project(torch.tensor(points, dtype=torch.float32)).numpy()
    clipped = points.clip(low, high)
    distance = [np.linalg.norm(value - clipped, axis=-1) for value in (found, expected)]
    # Of several constraints the nearest point may be flat; then the distance is what counts.
    np.testing.assert_allclose(*distance, atol=1e-4, rtol=0 if n_blocks == 1 else 0.05)
    if n_blocks == 1:
        np.testing.assert_allclose(found, expected, atol=1e-4)
    for block in blocks:
        value = (block.weights * found[:, block.columns].astype(np.float64)).sum(-1)
        assert (value <= block.limit).all()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A policy whose run had a shield, and its bundle."""
    source = small_source("marl_td/iddpg", *MLP, f"task.safety={SAFETY}", task=RETAIL)
    folder = tmp_path_factory.mktemp("safety") / "bundle"
    export_policy(source, folder)
    return folder


def test_a_bundle_keeps_together_what_the_training_kept(exported):
    bundle = load_bundle(exported, verify=True)
    rng = np.random.default_rng(0)
    obs = {name: 3 * rng.normal(size=(50, 5)).astype(np.float32) for name in bundle.agents}
    found, _ = bundle.act(obs)
    wanted = {n: p.outputs(obs[n])["action"] for n, p in bundle.agents.items()}
    joint = torch.tensor(np.stack(list(wanted.values()), 1))
    linear = [
        {"scope": "own", "weights": {"agents": [1, 1]}, "limit": 0.1},
        {"weights": {"agents": [1, 0]}, "limit": 0.2},
    ]
    groups = small_groups(joint.shape[1])
    taken, sizes = Corrector(Shield.of({"linear": linear}), groups).correct(
        {}, {"agents": joint}, {}
    )
    np.testing.assert_allclose(np.stack(list(found.values()), 1), taken["agents"], atol=1e-3)
    assert bundle.corrected == int((sizes["agents"] > 0).sum()) > 0


def small_groups(n_agents):
    from marl_td.tasks.base import Box, GroupSpec

    return {"agents": GroupSpec(n_agents, 5, Box((0.0, -1.0), (1.0, 1.0)))}


def test_one_agent_alone_is_refused_where_a_constraint_is_joint(exported):
    bundle = load_bundle(exported)
    with pytest.raises(InputError, match="holds for all agents together; ask for all actions"):
        bundle.agents["agents_0"].act(np.zeros(5, np.float32))
    with pytest.raises(InputError, match="agents_1 missing"):
        bundle.act({"agents_0": np.zeros(5, np.float32)})
    with pytest.raises(InputError, match="has no agent 'nobody'; it has agents_0, agents_1"):
        bundle.act({"nobody": np.zeros(5, np.float32)})
    action, state = bundle.act(dict.fromkeys(bundle.agents, np.zeros(5, np.float32)))
    assert {name: value.shape for name, value in action.items()} == {
        "agents_0": (2,),
        "agents_1": (2,),
    }
    assert state == {"agents_0": None, "agents_1": None}


def test_forbidden_actions_are_never_taken(tmp_path):
    never = list(range(30))
    source = small_source(
        "marl_td/ippo", *MLP, *DISCRETE, f"task.safety={{forbidden: {{agents: {never}}}, "
        "fallback: {agents: 31}}", task=RETAIL
    )  # fmt: skip
    export_policy(source, tmp_path / "bundle")
    policy = load_bundle(tmp_path / "bundle").agents["agents_0"]
    rng = np.random.default_rng(0)
    mask = rng.random((100, 33)) < 0.5
    mask[0] = np.arange(33) < 5  # nothing of it is allowed
    mask[1:, 32] = True
    action, _ = policy.act(rng.normal(size=(100, 5)).astype(np.float32), mask=mask)
    assert action.dtype == np.int64 and action[0] == 31
    assert (action[1:] >= 30).all() and mask[np.arange(1, 100), action[1:]].all()


def test_functions_cannot_be_exported():
    source = small_source("marl_td/iddpg", *MLP, task=RETAIL)
    task = copy.copy(source.settings.task_config)
    task.config = {**task.config, "safety": Shield(override=lambda seen, action: action)}
    source.settings.task_config = task
    with pytest.raises(NotExportable, match="calls Python functions"):
        safety_entry(source)


GOOD = {"linear": [OWN], "centre": CENTRE}


@pytest.mark.parametrize(
    ("safety", "message"),
    [
        ({"cubic": 1}, r"has the unknown \['cubic'\]: this version of marl_td cannot keep it"),
        ({"linear": [{"weights": 1}]}, "needs scope, weights, limit"),
        ({"linear": [{**OWN, "scope": "team"}]}, "needs scope, weights, limit"),
        ({"linear": [OWN]}, "cannot be read: KeyError"),
        ({"linear": [{**OWN, "weights": {"agents": [[1.0], [1.0]]}}]}, "does not fit the action"),
        ({"linear": [{**OWN, "weights": {}}]}, "needs finite weights besides 0"),
        ({**GOOD, "centre": {"agents": [[0.9, 0.9]] * 2}}, "the centre given does not keep"),
        ({**GOOD, "linear": [JOINT], "centre": {"agents": [[0.0, 0.0]] * 2}}, "does not keep"),
        ({"forbidden": {"agents": [1]}}, "which does not fit its 0 actions"),
        ([], "cannot be read|has the unknown"),
        ("all", "has the unknown|cannot be read"),
    ],
)
def test_a_shield_that_cannot_be_read_is_refused(bundles, tmp_path, safety, message):
    folder = changed(bundles("plain"), tmp_path / "bundle", safety=safety)
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)
