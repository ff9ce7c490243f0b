"""Drawn actions follow the policy's distribution; unavailable ones are never drawn."""

import numpy as np
import pytest
import torch
from benchmarl_runs import IGNORED
from small_policies import DISCRETE, MLP, small_source
from tiny_bundle import agent_signature, write_bundle
from torchrl.modules import TanhNormal

from marl_td.deploy import load
from marl_td.deploy.export import export_policy
from marl_td.deploy.sampling import draw_action, draw_index
from marl_td.deploy.signature import Entry

pytestmark = IGNORED
LOWEST = np.finfo(np.float32).min


def test_frequencies_are_the_softmax():
    logits = np.array([1.0, 0.0, -1.0, LOWEST], np.float32)
    drawn = draw_index(np.tile(logits, (40_000, 1)), np.random.default_rng(0))
    share = np.bincount(drawn, minlength=4) / len(drawn)
    weights = np.exp([1.0, 0.0, -1.0])
    np.testing.assert_allclose(share[:3], weights / weights.sum(), atol=0.01)
    assert share[3] == 0.0


def test_the_only_available_action_is_drawn_however_small_its_logit():
    logits = np.full((1000, 3), LOWEST, np.float32)
    logits[:, 1] = -1e30
    assert (draw_index(logits, np.random.default_rng(0)) == 1).all()


def test_continuous_actions_follow_the_squashed_normal():
    low, high = np.array([-1.0, 0.0]), np.array([1.0, 10.0])
    action = Entry("action", "float32", (2,), low, high)
    agent = agent_signature(
        action=action, kind="continuous", n_actions=0, mode="sampled", distribution="tanh_normal"
    )
    n = 20_000
    loc, scale = np.array([0.3, -0.5], np.float32), np.array([0.7, 0.2], np.float32)
    outputs = {"loc": np.tile(loc, (n, 1)), "scale": np.tile(scale, (n, 1))}
    drawn = draw_action(agent, outputs, np.random.default_rng(0))
    torch.manual_seed(0)
    bounds = {"low": torch.tensor(low).float(), "high": torch.tensor(high).float()}
    live = TanhNormal(torch.tensor(loc), torch.tensor(scale), **bounds).sample((n,)).numpy()
    assert drawn.dtype == np.float32 and (drawn >= low).all() and (drawn <= high).all()
    for q in (0.05, 0.25, 0.5, 0.75, 0.95):
        width = (high - low) * 0.02
        assert (np.abs(np.quantile(drawn, q, 0) - np.quantile(live, q, 0)) < width).all()


def test_a_plain_normal_is_not_squashed():
    agent = agent_signature(
        action=Entry("action", "float32", (1,)),
        kind="continuous",
        n_actions=0,
        mode="sampled",
        distribution="normal",
    )
    outputs = {"loc": np.full((9999, 1), 5.0), "scale": np.full((9999, 1), 2.0)}
    drawn = draw_action(agent, outputs, np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(5.0, abs=0.1) and drawn.std() == pytest.approx(
        2.0, abs=0.1
    )


def test_a_seed_repeats_the_actions(tmp_path):
    signature = agent_signature(mode="sampled", distribution="categorical")
    folder = write_bundle(tmp_path / "b", {"a": signature})
    policy, other = load(folder, seed=3), load(folder, seed=4)

    def play(policy):
        return [int(policy.act(np.zeros(3), mask=[1, 0, 1])[0]) for _ in range(60)]

    first = play(policy)
    assert set(first) == {0, 2}
    assert play(policy) != first != play(other)
    policy.seed(3)
    assert play(policy) == first


@pytest.mark.parametrize(
    "settings",
    [("marl_td/mappo", *MLP, *DISCRETE), ("marl_td/isac", *MLP)],
    ids=["discrete", "continuous"],
)
def test_sampled_bundles_hold_what_actions_are_drawn_from(tmp_path, settings):
    source = small_source(*settings)
    report = export_policy(source, tmp_path / "b", mode="sampled")
    assert report.mode == "sampled"
    policy = load(tmp_path / "b", agent="agents_0", verify=True, seed=0)
    obs = np.zeros(policy.signature.observation[0].shape)
    mask = None if policy.signature.mask is None else np.ones(33, bool)
    drawn = [policy.act(obs, policy.initial_state(), mask)[0] for _ in range(30)]
    assert len(np.unique(np.stack(drawn), axis=0)) > 1


def test_a_greedy_policy_has_nothing_to_draw_from(tmp_path):
    source = small_source("marl_td/vdn", *MLP)
    with pytest.raises(ValueError, match=r"has no distribution to draw actions from.*--sample"):
        export_policy(source, tmp_path / "b", mode="sampled")
    assert not (tmp_path / "b").exists()
