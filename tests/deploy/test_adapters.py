"""Policies on environments of others are exported too: VMAS, PettingZoo with several groups."""

import numpy as np
import pytest
import torch
from benchmarl_runs import IGNORED
from small_policies import GRU, MLP, OWN, live_actions, small_source

from marl_td.deploy import load_bundle
from marl_td.deploy.agents import agent_exports
from marl_td.deploy.compare import example_inputs, expected_outputs, group_inputs
from marl_td.deploy.export import export_policy
from marl_td.deploy.samples import random_inputs

TOY = ("task=marl_td/pettingzoo", "task.env=toy_parallel:Toy", "task.options.mask=observation")
pytestmark = [
    *IGNORED,
    pytest.mark.filterwarnings("ignore:Importing from timm:FutureWarning"),
]


def test_groups_of_a_pettingzoo_environment(tmp_path):
    source = small_source("marl_td/mappo", *GRU, task=TOY)
    export_policy(source, tmp_path / "b")
    bundle = load_bundle(tmp_path / "b", verify=True)
    assert list(bundle.agents) == ["cat_0", "cat_1", "mouse_0"]
    kinds = {name: policy.signature.kind for name, policy in bundle.agents.items()}
    assert kinds == {"cat_0": "discrete", "cat_1": "discrete", "mouse_0": "continuous"}
    assert bundle.signature["task_says"]["observation"] == "the task gives no names or units"
    cat = bundle.agents["cat_0"]
    seen = {"observation": np.zeros(2), "action_mask": np.array([0, 0, 1], np.int8)}
    action, state = cat.act(seen)
    assert action == 2 and cat.act(seen, state)[0] == 2
    mouse = bundle.agents["mouse_0"]
    action, _ = mouse.act(np.full(3, 1e3))
    assert action.shape == (2,) and (action >= -1).all() and (action <= 2).all()


@pytest.mark.parametrize("sharing", [(), OWN], ids=["shared", "own"])
def test_pictures(tmp_path, sharing):
    task = ("task=marl_td/pettingzoo", "task.env=toy_pictures:Pictures", "task.flatten=false")
    cnn = ("model=layers/cnn", "model.cnn_num_cells=[4]", "model.mlp_num_cells=[8]")
    source = small_source("marl_td/mappo", *cnn, *sharing, task=task)
    agent = agent_exports(source)[1]
    (seen,) = agent.signature.observation
    assert seen.shape == (9, 8, 3)
    inputs = group_inputs(source, agent, 3)
    found = agent.actor(example_inputs(source, agent, inputs))
    expected = expected_outputs(source, agent, inputs)
    torch.testing.assert_close(found["scores"], expected["scores"], atol=1e-5, rtol=1e-5)
    if not sharing:
        export_policy(source, tmp_path / "b")
        action, _ = (
            load_bundle(tmp_path / "b", verify=True).agents["left"].act(np.zeros(seen.shape))
        )
        assert action in range(3)


def test_a_vmas_scenario(tmp_path):
    pytest.importorskip("vmas")
    source = small_source("marl_td/mappo", *MLP, task=("task=vmas/balance", "task.n_agents=2"))
    export_policy(source, tmp_path / "b")
    bundle = load_bundle(tmp_path / "b", verify=True)
    inputs = random_inputs(source.specs, 4, torch.Generator().manual_seed(0))
    live = live_actions(source, inputs)["agents"]
    for index, policy in enumerate(bundle.agents.values()):
        seen = inputs["agents", "observation"][:, index].numpy()
        np.testing.assert_allclose(policy.act(seen)[0], live[:, index], atol=1e-5)
