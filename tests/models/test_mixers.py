"""Mixers as modules: TensorDicts and plain tensors, reference structure, state norm, messages."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.modules.models.multiagent import QMixer as TorchRLQMixer

from marl_td.models.mixers import QMixer, SumMixer
from marl_td.models.tables import ValueTable

N_AGENTS, D_STATE = 3, 5


def team(batch: tuple[int, ...], group: str = "agents") -> TensorDict:
    """Local values and a state."""
    agents = TensorDict(
        {"chosen_action_value": torch.randn(*batch, N_AGENTS, 1)}, [*batch, N_AGENTS]
    )
    return TensorDict({group: agents, "state": torch.randn(*batch, D_STATE)}, batch)


@pytest.mark.parametrize("make", [lambda: QMixer(N_AGENTS, D_STATE), lambda: SumMixer(N_AGENTS)])
@pytest.mark.parametrize("batch", [(), (4,), (2, 6), (2, 3, 4)])
def test_tensordict_and_tensors_agree_for_any_batch(make, batch):
    mixer, data = make(), team(batch)
    value = mixer(data.clone())["global_value"]
    assert value.shape == (*batch, 1)
    local = data["agents", "chosen_action_value"].squeeze(-1)
    torch.testing.assert_close(mixer.mix(local, data["state"]), value.squeeze(-1))


def test_keys_may_be_chosen():
    options = {"local_key": ("red", "value"), "out_key": ("red", "team_value")}
    data = team((4,), "red").rename_key_(("red", "chosen_action_value"), ("red", "value"))
    mixer = QMixer(N_AGENTS, D_STATE, state_key="seen", **options)
    assert mixer.in_keys == [("red", "value"), "seen"]
    data["seen"] = data.pop("state")
    data["red"].batch_size = [4]
    assert mixer(data)["red", "team_value"].shape == (4, 1)
    assert SumMixer(N_AGENTS, **options).in_keys == [("red", "value")]


def test_one_layer_hypernetworks_are_torchrls_mixer():
    theirs = TorchRLQMixer((D_STATE,), 7, N_AGENTS, "cpu")
    ours = QMixer(N_AGENTS, D_STATE, d_embed=7, hypernet_layers=1)
    pairs = {"weight_1": "hyper_w_1", "weight_2": "hyper_w_final", "bias_1": "hyper_b_1"}
    for mine, other in {**pairs, "bias_2": "V"}.items():
        getattr(ours, mine).load_state_dict(getattr(theirs, other).state_dict())
    data = team((6,))
    expected = theirs(data["agents", "chosen_action_value"], data["state"])
    torch.testing.assert_close(ours(data)["global_value"], expected)


def test_two_layers_have_the_reference_sizes():
    """PyMARL: weights by linear-ReLU-linear of width 64, b1 linear, b2 linear-ReLU-linear of width 32."""
    shapes = {name: tuple(p.shape) for name, p in QMixer(N_AGENTS, D_STATE).named_parameters()}
    weights = {name: shape for name, shape in shapes.items() if name.endswith("weight")}
    assert weights == {
        "weight_1.0.weight": (64, D_STATE),
        "weight_1.2.weight": (32 * N_AGENTS, 64),
        "bias_1.weight": (32, D_STATE),
        "weight_2.0.weight": (64, D_STATE),
        "weight_2.2.weight": (32, 64),
        "bias_2.0.weight": (32, D_STATE),
        "bias_2.2.weight": (1, 32),
    }


def test_agents_and_entries_of_the_state_may_be_reordered_with_their_weights():
    mixer, data, order = QMixer(N_AGENTS, N_AGENTS, d_embed=4), team((8,)), [2, 0, 1]
    state = torch.randn(8, N_AGENTS)  # one entry per agent
    local = data["agents", "chosen_action_value"].squeeze(-1)
    moved = QMixer(N_AGENTS, N_AGENTS, d_embed=4)
    moved.load_state_dict(mixer.state_dict())
    with torch.no_grad():
        last = moved.weight_1[2]
        last.weight.copy_(last.weight.unflatten(0, (N_AGENTS, 4))[order].flatten(0, 1))
        last.bias.copy_(last.bias.unflatten(0, (N_AGENTS, 4))[order].flatten(0, 1))
        for first in (moved.weight_1[0], moved.weight_2[0], moved.bias_1, moved.bias_2[0]):
            first.weight.copy_(first.weight[:, order])
    torch.testing.assert_close(moved.mix(local[:, order], state[:, order]), mixer.mix(local, state))


def test_every_agents_value_raises_the_teams_whatever_the_state():
    mixer = QMixer(N_AGENTS, D_STATE)
    local = torch.randn(50, N_AGENTS, requires_grad=True)
    mixer.mix(local, 10.0 * torch.randn(50, D_STATE)).sum().backward()
    assert (local.grad >= 0).all()
    assert (local.grad > 0).any()


def test_layer_norm_takes_scale_and_offset_out_of_the_state():
    local, state = torch.randn(6, N_AGENTS), torch.randn(6, D_STATE)
    scaled = 1e4 * state + 3e5
    normed = QMixer(N_AGENTS, D_STATE, state_norm="layer")
    torch.testing.assert_close(
        normed.mix(local, scaled), normed.mix(local, state), rtol=1e-2, atol=1e-2
    )
    plain = QMixer(N_AGENTS, D_STATE)
    assert plain.mix(local, scaled).abs().max() > 1e3
    assert normed.mix(local, scaled).abs().max() < 1e2


def test_mixers_work_inside_torchrls_modules():
    """As a plain part of a larger TensorDict module."""
    table = ValueTable(D_STATE, N_AGENTS, 4)
    values = table(team((2,)))["agents", "action_value"]
    assert values.shape == (2, N_AGENTS, 4)
    best = TensorDictModule(
        lambda value: value.amax(-1, keepdim=True),
        [("agents", "action_value")],
        [("agents", "chosen_action_value")],
    )
    data = QMixer(N_AGENTS, D_STATE)(best(table(team((2,)))))
    assert data["global_value"].shape == (2, 1)


def test_a_value_table_reads_the_row_of_its_state():
    table = ValueTable(3, 2, 4)
    one_hot = torch.eye(3)[[2, 0]]
    torch.testing.assert_close(table.values(one_hot), table.table[[2, 0]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SumMixer(0), "a mixer needs at least 1 agent; got n_agents=0"),
        (lambda: QMixer(2, 0), "d_state must be at least 1; got 0"),
        (lambda: QMixer(2, 3, d_embed=0), "d_embed must be at least 1; got 0"),
        (lambda: QMixer(2, 3, d_hypernet=0), "d_hypernet must be at least 1; got 0"),
        (lambda: QMixer(2, 3, hypernet_layers=3), "hypernet_layers must be 1 or 2; got 3"),
        (lambda: QMixer(2, 3, state_norm="batch"), "one of none, layer; got 'batch'"),
        (lambda: QMixer(2, 1, state_norm="layer"), "turns a state of width 1 into 0"),
        (
            lambda: QMixer(2, 3).mix(torch.zeros(4, 2), torch.zeros(4, 2)),
            r"`state` must be \[\*B, d_state\] with trailing sizes \(3\); got \(4, 2\)",
        ),
        (
            lambda: QMixer(4, D_STATE)(team((2,))),
            r"`local_value` must be \[\*B, n_agents, 1\] with trailing sizes \(4, 1\); got \(2, 3, 1\)",
        ),
    ],
)
def test_wrong_sizes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
