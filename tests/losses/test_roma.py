"""ROMA's loss: without its terms it is QMIX with a hypernetwork head; who learns from which term; noise."""

import copy

import pytest
import torch
from small_qmix import D_OBS, D_ROLE, N_ACTIONS, loss_of, make_batch, make_episodes
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn

from marl_td.losses.q_mixing import QMixingLoss
from marl_td.losses.roma import RomaLoss
from marl_td.losses.targets import TargetUpdater, target_copy
from marl_td.models.mixers import QMixer
from marl_td.models.roles import Dissimilarity, RoleEncoder, RoleHead, RolePosterior

OFF = {"kl_coef": 0.0, "dis_coef": 0.0}
SMALLEST_VAR = 1e-6


class HypernetAgent(nn.Module):
    """An agent whose last layer is made by plain layers from what it sees, written without roles."""

    def __init__(self, features: nn.Module, encoder: RoleEncoder, head: RoleHead) -> None:
        super().__init__()
        self.features = features
        to_mean = self.layer(encoder.distribution.hidden), self.layer(encoder.distribution.out)
        self.role = nn.Sequential(to_mean[0], nn.LeakyReLU(), to_mean[1])
        self.hidden = nn.Sequential(self.layer(head.hidden), nn.LeakyReLU())
        self.weight, self.bias = self.layer(head.weight), self.layer(head.bias)

    @staticmethod
    def layer(grouped) -> nn.Linear:
        """A plain layer with a copy of the parameters."""
        found = nn.Linear(grouped.weight.shape[-1], grouped.weight.shape[-2])
        found.load_state_dict({"weight": grouped.weight[0], "bias": grouped.bias[0]})
        return found

    def forward(self, observation):
        hidden = self.hidden(self.role(observation)[..., :D_ROLE])
        weight = self.weight(hidden).unflatten(-1, (-1, N_ACTIONS))
        return torch.einsum(
            "...t,...ta->...a", self.features(observation).tanh(), weight
        ) + self.bias(hidden)


@torch.no_grad()
def both() -> tuple[RomaLoss, QMixingLoss]:
    """ROMA with certain roles and weights of 0, and QMIX with the same parameters."""
    roma = loss_of("roma", role_var_floor=SMALLEST_VAR, **OFF)
    for network in (roma.network, roma.target_network):
        out = network[1][1].distribution.out
        out.weight[0, D_ROLE:], out.bias[0, D_ROLE:] = 0.0, -1e4
    live, target = (
        HypernetAgent(copy.deepcopy(n[0].module), n[1][1], n[2])
        for n in (roma.network, roma.target_network)
    )
    wrap = [
        TensorDictModule(net, [("agents", "observation")], [("agents", "action_value")])
        for net in (live, target)
    ]
    qmix = QMixingLoss(wrap[0], target_copy(roma.mixer).requires_grad_(True))
    qmix.target_network.load_state_dict(wrap[1].state_dict())
    qmix.target_mixer.load_state_dict(roma.target_mixer.state_dict())
    return roma, qmix


def test_without_its_terms_and_with_certain_roles_it_is_qmix_with_a_hypernetwork_head():
    """Loss and parameters, over six optimiser steps with moving targets."""
    roma, qmix = both()
    batch = make_batch(masked=True, mortal=True)
    assert torch.allclose(roma.network(batch.copy())["agents", "role_std"], torch.tensor(1e-3))
    for data in (batch, batch["next"]):
        data["agents", "role_noise"] = torch.zeros(16, 2, D_ROLE)
    losses = (roma, qmix)
    optimisers = [
        torch.optim.SGD([p for p in x.parameters() if p.requires_grad], 2e-4) for x in losses
    ]
    updaters = [TargetUpdater(loss.target_pairs(), tau=0.2) for loss in losses]
    seen = []
    for _ in range(6):
        values = [loss(batch.clone())["loss_value"] for loss in losses]
        torch.testing.assert_close(*values, rtol=1e-5, atol=1e-6)
        for value, optimiser, updater in zip(values, optimisers, updaters, strict=True):
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            updater.step()
        seen.append(values[0].item())
        live, head = qmix.network.module, roma.network[2]
        torch.testing.assert_close(head.weight.weight[0], live.weight.weight)
        torch.testing.assert_close(head.hidden.bias[0], live.hidden[0].bias)
        out = roma.network[1][1].distribution.out.weight[0, :D_ROLE]
        torch.testing.assert_close(out, live.role[2].weight[:D_ROLE])
    assert seen[-1] < 0.9 * seen[0]


def test_at_the_floor_of_the_variance_drawn_roles_change_next_to_nothing():
    roma, _ = both()
    batch = make_batch()
    mean = batch.clone()
    for data in (mean, mean["next"]):
        data["agents", "role_noise"] = torch.zeros(16, 2, D_ROLE)
    drawn, certain = roma(batch)["loss_value"], roma(mean)["loss_value"]
    assert drawn != certain
    torch.testing.assert_close(drawn, certain, rtol=1e-2, atol=0.0)


# -------------------------------------------------------------- the two terms
def gradient_norms(loss: RomaLoss, batch) -> dict[str, float]:
    """Norm of the gradient in each part."""
    loss.zero_grad()
    loss(batch.clone())["loss_value"].backward()
    encoder, head = loss.network[1], loss.network[2]
    parts = {"features": loss.network[0], "encoder": encoder, "head": head, "mixer": loss.mixer}
    parts |= {"posterior": loss.posterior, "dissimilarity": loss.dissimilarity}
    return {
        name: sum(p.grad.abs().sum().item() for p in part.parameters())
        for name, part in parts.items()
    }


@pytest.mark.parametrize("scale_pairs", [True, False])
def test_which_networks_learn_from_which_term(scale_pairs):
    batch = make_batch(n_agents=3)
    td = {"features", "encoder", "head", "mixer"}

    def trained(**coefs):
        loss = loss_of("roma", n_agents=3, scale_pairs=scale_pairs, **{**OFF, **coefs})
        return {name for name, norm in gradient_norms(loss, batch).items() if norm > 0.0}

    assert trained() == td
    assert trained(kl_coef=1.0) == td | {"posterior"}
    assert trained(dis_coef=1.0) == td | {"posterior", "dissimilarity"}


def test_the_trajectory_is_a_constant_in_the_terms():
    """So features, head and mixer have the same gradient whatever the weights are."""
    batch = make_batch(n_agents=3)
    torch.manual_seed(1)
    plain = loss_of("roma", n_agents=3, gamma=0.0, **OFF)
    torch.manual_seed(1)
    heavy = loss_of("roma", n_agents=3, gamma=0.0, kl_coef=10.0, dis_coef=10.0)
    found, expected = gradient_norms(heavy, batch), gradient_norms(plain, batch)
    for name in ("features", "head", "mixer"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5)
    assert found["encoder"] != pytest.approx(expected["encoder"], rel=1e-2)


def test_identifiability_moves_the_posterior_to_the_encoder():
    loss, batch = loss_of("roma", kl_coef=1.0, dis_coef=0.0), make_batch()
    optimiser = torch.optim.Adam(loss.posterior.parameters(), 1e-2)
    seen = []
    for _ in range(100):
        out = loss(batch.clone())
        optimiser.zero_grad()
        out["loss_value"].backward()
        optimiser.step()
        seen.append(out["identifiability"].item())
    assert seen[-1] < 0.05 * seen[0]
    now = loss.network(batch.copy())
    found = loss.posterior(now.copy())["agents", "posterior_mean"]
    off = (found - now["agents", "role_mean"]).abs().mean()
    assert off < 0.5 * now["agents", "role_mean"].abs().mean()


def test_the_terms_add_up():
    batch = make_batch(n_agents=3, mortal=True)
    out = {}
    for name, coefs in {
        "none": {},
        "kl": {"kl_coef": 0.5},
        "dis": {"dis_coef": 2.0},
        "entropy": {"entropy_coef": 0.25},
    }.items():
        torch.manual_seed(3)
        loss = loss_of("roma", n_agents=3, gamma=0.0, **{**OFF, **coefs})
        out[name] = loss(batch.clone())
    base, metrics = out["none"]["loss_value"], out["none"]
    for name, coef, term in [
        ("kl", 0.5, "identifiability"),
        ("dis", 2.0, "specialisation"),
        ("entropy", 0.25, "role_entropy"),
    ]:
        assert metrics[term] != 0.0
        added = out[name]["loss_value"] - base
        torch.testing.assert_close(added, coef * metrics[term], rtol=1e-3, atol=1e-5)


def test_importance_weights_count_in_the_terms_too():
    batch = make_batch((4,))
    batch["next", "reward"] = torch.zeros(4, 1)
    loss = loss_of("roma", gamma=0.0, kl_coef=100.0, dis_coef=100.0)
    rows = [loss(batch[i : i + 1].clone())["loss_value"] for i in range(4)]
    batch["priority_weight"] = torch.tensor([1.0, 0.0, 0.5, 2.0])
    expected = (rows[0] + 0.5 * rows[2] + 2.0 * rows[3]) / 4
    torch.testing.assert_close(loss(batch)["loss_value"], expected, rtol=1e-4, atol=1e-5)


def test_agents_of_one_network_may_be_reordered():
    """A sum would not care; the mixer's first layer has rows of agents, which move with them."""
    loss, batch = loss_of("roma", n_agents=3), make_batch(n_agents=3, masked=True, mortal=True)
    order = torch.tensor([2, 0, 1])
    moved = batch.clone()
    for data in (moved, moved["next"]):
        data["agents"] = data["agents"][:, order]
    roles = loss.network(batch.copy())["agents", "role"]
    torch.testing.assert_close(loss.network(moved.copy())["agents", "role"], roles[:, order])
    before, after = loss(batch), loss(moved)
    for name in ("identifiability", "specialisation", "role_entropy", "role_std"):
        torch.testing.assert_close(after[name], before[name])
    for mixer in (loss.mixer, loss.target_mixer):
        last = mixer.weight_1[-1]
        for parameter in (last.weight, last.bias):
            rows = parameter.data.unflatten(0, (3, mixer.d_embed))
            parameter.data.copy_(rows[order].flatten(0, 1))
    torch.testing.assert_close(loss(moved)["loss_value"], before["loss_value"])


# ----------------------------------------------------------------------- noise
def test_roles_are_drawn_anew_unless_the_noise_is_given():
    loss, batch = loss_of("roma"), make_batch()
    assert torch.equal(loss(batch.clone())["loss_value"], loss(batch.clone())["loss_value"])
    for data in (batch, batch["next"]):
        del data["agents", "role_noise"]
    keys = set(batch.keys(True))
    first, second = loss(batch)["loss_value"], loss(batch)["loss_value"]
    assert first != second
    assert set(batch.keys(True)) - keys == {("agents", "td_error"), ("agents", "priority")}
    torch.manual_seed(5)
    again = loss(batch)["loss_value"]
    torch.manual_seed(5)
    assert torch.equal(loss(batch)["loss_value"], again)


def test_live_and_target_network_draw_with_the_same_noise():
    """Equal networks then have equal next values: the greedy value is the target's largest."""
    loss = loss_of("roma")
    loss.target_network.load_state_dict(loss.network.state_dict())
    batch = make_batch()
    double = loss(batch.clone())["target_value"]
    loss.double_q = False
    torch.testing.assert_close(loss(batch.clone())["target_value"], double)


@pytest.mark.filterwarnings("ignore:Using lock_:UserWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*inline_inbuilt_nn_modules:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function:DeprecationWarning")
@pytest.mark.parametrize("sequences", [pytest.param(False, marks=pytest.mark.slow), True])
def test_drawing_compiles_whole_and_equals_eager(sequences):
    torch._dynamo.reset()
    loss = loss_of("roma", share=False, sequences=sequences)
    make = make_episodes if sequences else make_batch
    batch = make(masked=True, mortal=True)
    for data in (batch, batch["next"]):
        del data["agents", "role_noise"]
    compiled = torch.compile(loss.compute, fullgraph=True, backend="eager")
    torch.manual_seed(2)
    found = compiled(batch)
    torch.manual_seed(2)
    for key, value in loss.compute(batch).items():
        torch.testing.assert_close(found[key], value)


# -------------------------------------------------------------------- messages
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl_coeff": -1.0}, "`kl_coeff` must be at least 0; got -1.0"),
        ({"dis_coeff": -1.0}, "`dis_coeff` must be at least 0; got -1.0"),
        ({"entropy_coeff": -0.5}, "`entropy_coeff` must be at least 0; got -0.5"),
        ({"d_role": 0}, "`d_role` must be at least 1; got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    encoder, head = RoleEncoder(D_OBS), RoleHead(8, N_ACTIONS)
    parts = (RolePosterior(8, D_OBS), Dissimilarity(8))
    with pytest.raises(ValueError, match=message):
        RomaLoss(TensorDictSequential(encoder, head), QMixer(2, 5), *parts, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl_coef": -1.0}, "kl_coef must be at least 0; got -1"),
        ({"bound": -1.0}, "bound must be at least 0"),
        ({"role_dim": 0}, "role_dim must be at least 1; got 0"),
        ({"role_var_floor": 0.0}, "role_var_floor must be at least 1e-06; got 0"),
        ({"trajectory_dim": 0}, "trajectory_dim must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        loss_of("roma", **options)
