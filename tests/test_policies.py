"""Stochastic actors: distributions, masks, bounds, initial outputs, parameters, messages."""

import pytest
import torch
from benchmarl_runs import STATEFUL, THEIR_GRU, small_run
from discrete_teams import teams_task
from tensordict.nn import TensorDictSequential
from torch import nn
from torch.distributions import Categorical
from torchrl.data import Unbounded
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import MaskedCategorical, TanhNormal
from toy_games import meet_task

from marl_td import policies
from marl_td.algorithms.mappo import MappoConfig
from marl_td.models.heads import FiniteCategorical, FiniteMaskedCategorical

pytestmark = pytest.mark.filterwarnings(
    "ignore:The default behavior of TransformedEnv:FutureWarning"
)


@pytest.fixture
def built(tmp_path):
    """``built(task, **settings)``: a MAPPO algorithm and a reset of 10 environments."""

    def build(task, **settings):
        experiment = small_run(tmp_path, MappoConfig(), task, evaluation_episodes=10, **settings)
        return experiment.algorithm, experiment.test_env.reset()

    return build


def test_masked_actions_are_never_taken_and_scored_over_what_is_available(built):
    algorithm, data = built(teams_task(blue=0))
    actor = policies.stochastic(algorithm, "red")
    mask = torch.tensor([[True, False, True], [False, True, False]]).expand(10, 2, 3)
    data["red", "action_mask"] = mask
    for kind in (ExplorationType.RANDOM, ExplorationType.DETERMINISTIC):
        with set_exploration_type(kind):
            out = actor(data.clone())
        assert mask.gather(-1, out["red", "action"].unsqueeze(-1)).all()
    torch.testing.assert_close(out["red", "log_prob"][:, 1], torch.zeros(10))
    logits = out["red", "logits"].masked_fill(~mask, float("-inf")).log_softmax(-1)
    expected = logits.gather(-1, out["red", "action"].unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(out["red", "log_prob"], expected)


def sampled(actor, data) -> torch.Tensor:
    """Fifty random actions in each environment."""
    with set_exploration_type(ExplorationType.RANDOM):
        return torch.stack([actor(data.clone())["agents", "action"] for _ in range(50)])


def test_continuous_actions_stay_inside_their_bounds(built):
    algorithm, data = built(meet_task())
    algorithm.action_spec["agents", "action"].space.low.fill_(-0.25)
    actor = policies.stochastic(algorithm, "agents")
    actions = sampled(actor, data)
    assert actions.min() >= -0.25
    assert actions.max() <= 1.0
    assert actions.min() < -0.2


def test_a_plain_normal_is_not_squashed(built):
    algorithm, data = built(meet_task())
    actor = policies.stochastic(algorithm, "agents", squash=False)
    actions = sampled(actor, data)
    assert actions.abs().max() > 1.0
    assert actor.get_dist(data.clone()).entropy().shape == (10, 2)


@pytest.mark.parametrize("share", [True, False])
def test_parameters_are_shared_or_not_as_the_experiment_says(share, built):
    algorithm, data = built(teams_task(blue=0), share_policy_params=share)
    actor = policies.stochastic(algorithm, "red")
    logits = actor(data)["red", "logits"]
    for gradient in torch.autograd.grad(logits[:, 1].sum(), list(actor.parameters())):
        assert gradient.abs().max() > 0.0
        if not share:
            assert gradient[0].abs().max() == 0.0


MODELS = {"mlp": None, "stateful": STATEFUL, "gru": THEIR_GRU}


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("model", MODELS)
def test_a_small_gain_prefers_no_action(model, share, built):
    """Logits are 100 times smaller than the network's own, and without offset, for every kind of network."""
    settings = {"model": MODELS[model], "share_policy_params": share}
    algorithm, data = built(teams_task(blue=0, masked=False), **settings)
    data = data.apply(lambda x: torch.randn_like(x) if x.is_floating_point() else x)
    largest = {}
    for gain in (1.0, 0.01):
        torch.manual_seed(0)
        actor = policies.stochastic(algorithm, "red", output_gain=gain)
        largest[gain] = actor(data.clone())["red", "logits"].abs().max()
    assert largest[1.0] > 0.1
    assert largest[0.01] < 0.02 * largest[1.0]


def test_a_network_without_a_last_linear_layer_keeps_its_own():
    net = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    before = [p.clone() for p in net.parameters()]
    policies.scale_output(net, 0.01)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    ends = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    weight = ends[2].weight.clone()
    policies.scale_output(ends, 0.5)
    assert torch.equal(ends[2].weight, 0.5 * weight)
    assert ends[2].bias.abs().max() == 0.0
    assert ends[0].bias.abs().max() > 0.0


def test_finite_distributions_are_the_plain_ones_on_numbers():
    logits = torch.randn(5, 3)
    mask = torch.tensor([True, False, True]).expand(5, 3)
    action = torch.tensor([0, 2, 0, 2, 0])
    pairs = [
        (FiniteCategorical(logits), Categorical(logits=logits)),
        (
            FiniteMaskedCategorical(logits, mask),
            MaskedCategorical(logits=logits, mask=mask, use_cross_entropy=False),
        ),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
        torch.testing.assert_close(ours.entropy(), theirs.entropy())
        torch.testing.assert_close(ours.deterministic_sample, theirs.mode)


def test_finite_distributions_draw_what_the_plain_ones_draw():
    logits = torch.randn(50, 3)
    mask = torch.tensor([True, False, True]).expand(50, 3)
    for ours, theirs in [
        (FiniteCategorical(logits), Categorical(logits=logits)),
        (FiniteMaskedCategorical(logits, mask), MaskedCategorical(logits=logits, mask=mask)),
    ]:
        torch.manual_seed(0)
        drawn = ours.sample()
        torch.manual_seed(0)
        assert torch.equal(drawn, theirs.sample())
        share = torch.nn.functional.one_hot(ours.sample((20_000,)), 3).float().mean(0)
        torch.testing.assert_close(share, theirs.probs, atol=0.02, rtol=0.0)


def test_finite_distributions_sample_where_logits_are_not_numbers():
    logits = torch.full((4, 3), float("nan"))
    mask = torch.tensor([True, False, True]).expand(4, 3)
    assert FiniteCategorical(logits).sample().shape == (4,)
    assert (FiniteMaskedCategorical(logits, mask).sample() != 1).all()


def test_the_actor_of_a_group_is_one_module_with_its_distribution(built):
    algorithm, data = built(meet_task())
    actor = policies.stochastic(algorithm, "agents")
    assert isinstance(actor, TensorDictSequential)
    assert isinstance(actor.get_dist(data.clone()), TanhNormal)


def test_unbounded_actions_cannot_be_squashed(built):
    algorithm, _ = built(meet_task())
    algorithm.action_spec["agents", "action"] = Unbounded((2, 1))
    with pytest.raises(
        ValueError, match=r"actions of group 'agents' are unbounded.*use_tanh_normal=False"
    ):
        policies.stochastic(algorithm, "agents")
    with pytest.raises(ValueError, match=r"a deterministic policy needs finite action bounds"):
        policies.deterministic(
            algorithm, "agents", policies.network(algorithm, "agents", "parameter", 1)
        )
