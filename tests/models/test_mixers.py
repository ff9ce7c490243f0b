"""Mixers as modules: TensorDicts and plain tensors, reference structure, state norm, messages."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.modules.models.multiagent import QMixer as TorchRLQMixer

from marl_td.losses.functional.action_values import one_hot_action
from marl_td.models.mixers import (
    CentralMixer,
    QattenMixer,
    QMixer,
    QplexMixer,
    ShapleyMixer,
    SumMixer,
)
from marl_td.models.mixers.duplex import Kernels
from marl_td.models.tables import ValueTable

N_AGENTS, D_STATE = 3, 5


N_ACTIONS, D_AGENT = 4, 2


def team(batch: tuple[int, ...], group: str = "agents") -> TensorDict:
    """Local values and a state."""
    agents = TensorDict(
        {"chosen_action_value": torch.randn(*batch, N_AGENTS, 1)}, [*batch, N_AGENTS]
    )
    agents["greedy_action_value"] = agents["chosen_action_value"] + torch.rand(*batch, N_AGENTS, 1)
    agents["agent_input"] = torch.randn(*batch, N_AGENTS, D_AGENT)
    agents["mask"] = torch.rand(*batch, N_AGENTS) < 0.7
    action = torch.randint(N_ACTIONS, (*batch, N_AGENTS))
    agents["joint_action"] = one_hot_action(action, N_ACTIONS)
    return TensorDict({group: agents, "state": torch.randn(*batch, D_STATE)}, batch)


ALIVE = {"alive_key": ("agents", "mask")}
MIXERS = {
    "sum": lambda: SumMixer(N_AGENTS),
    "qmix": lambda: QMixer(N_AGENTS, D_STATE),
    "central": lambda: CentralMixer(N_AGENTS, D_STATE, d_hidden=8),
    "qatten": lambda: QattenMixer(N_AGENTS, D_STATE, D_AGENT),
    "qatten, mortal": lambda: QattenMixer(N_AGENTS, D_STATE, D_AGENT, **ALIVE),
    "qplex": lambda: QplexMixer(N_AGENTS, N_ACTIONS, D_STATE),
    "shaq": lambda: ShapleyMixer(N_AGENTS, D_STATE),
    "shaq, mortal": lambda: ShapleyMixer(N_AGENTS, D_STATE, **ALIVE),
    "qplex, one layer": lambda: QplexMixer(N_AGENTS, N_ACTIONS, D_STATE, kernel_layers=1),
}


@pytest.mark.parametrize("make", MIXERS.values(), ids=MIXERS)
@pytest.mark.parametrize("batch", [(), (4,), (2, 6), (2, 3, 4)])
def test_tensordict_and_tensors_agree_for_any_batch(make, batch):
    mixer, data = make(), team(batch)
    value = mixer(data.clone())["global_value"]
    assert value.shape == (*batch, 1)
    entries = [data[key] for key in mixer.in_keys]
    values = [entry.squeeze(-1) for entry in entries[: mixer.n_values]]
    mixed = mixer.mix(*values, *entries[mixer.n_values :])
    torch.testing.assert_close(mixed, value.squeeze(-1))


@pytest.mark.parametrize("make", MIXERS.values(), ids=MIXERS)
def test_every_part_of_a_batch_is_mixed_by_itself_and_every_parameter_is_used(make):
    mixer, data = make(), team((4,))
    mixed = mixer(data.clone())["global_value"]
    torch.testing.assert_close(mixer(data[2:3].clone())["global_value"], mixed[2:3])
    if any(True for _ in mixer.parameters()):
        mixed.square().sum().backward()
    assert all(parameter.grad is not None for parameter in mixer.parameters())


# tensordict 0.11's own: a retired setting of torch, and its locks under the compiler.
@pytest.mark.filterwarnings("ignore:Using lock_:UserWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*inline_inbuilt_nn_modules:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function:DeprecationWarning")
@pytest.mark.parametrize("make", MIXERS.values(), ids=MIXERS)
def test_it_compiles_whole_and_equals_eager(make):
    torch._dynamo.reset()
    mixer, data = make(), team((5,))
    entries = [data[key] for key in mixer.in_keys]
    inputs = [entry.squeeze(-1) for entry in entries[: mixer.n_values]] + entries[mixer.n_values :]
    compiled = torch.compile(mixer.mix, fullgraph=True, backend="aot_eager")
    results = []
    for mix in (mixer.mix, compiled):
        local = inputs[0].clone().requires_grad_()
        value = mix(local, *inputs[1:])
        results.append((value, *torch.autograd.grad(value.sum(), local)))
    for eager, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, eager)
    fast = torch.compile(mixer, fullgraph=True, backend="eager")(data.clone())["global_value"]
    torch.testing.assert_close(fast, mixer(data.clone())["global_value"])


def test_one_layer_kernels_and_deep_ones_are_separate_networks():
    """Each kernel is its own network: changing one leaves the others' outputs alone."""
    for n_layers in (1, 3):
        kernels = Kernels(2, 5, 6, 3, n_layers)
        x = torch.randn(7, 5)
        before = kernels(x)
        assert before.shape == (7, 2, 3)
        with torch.no_grad():
            layer = kernels.others[-1] if n_layers > 1 else None
            if layer is None:
                kernels.first.weight[:3] += 1.0
            else:
                layer.weight[0] += 1.0
        after = kernels(x)
        assert torch.equal(after[:, 1], before[:, 1])
        assert not torch.equal(after[:, 0], before[:, 0])


def test_a_dead_agent_has_no_part_in_the_attention():
    mixer, data = MIXERS["qatten, mortal"](), team((6,))
    data["agents", "mask"] = torch.tensor([True, False, True]).expand(6, 3)
    data["agents", "chosen_action_value"][:, 1] = 0.0
    before = mixer(data.clone())["global_value"]
    data["agents", "agent_input"][:, 1] += 5.0
    torch.testing.assert_close(mixer(data)["global_value"], before)


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
        (lambda: CentralMixer(2, 3, n_hidden=0), "n_hidden must be at least 1; got 0"),
        (lambda: QattenMixer(2, 3, 0), "d_agent must be at least 1; got 0"),
        (lambda: QattenMixer(2, 3, 4, n_heads=0), "n_heads must be at least 1; got 0"),
        (lambda: QplexMixer(2, 0, 3), "n_actions must be at least 1; got 0"),
        (lambda: QplexMixer(2, 3, 3, kernel_layers=0), "kernel_layers must be at least 1; got 0"),
        (
            lambda: QplexMixer(2, 3, 1).importance(torch.zeros(4, 1), torch.zeros(4, 2, 2)),
            r"`joint_action` must be .* with trailing sizes \(2, 3\); got \(4, 2, 2\)",
        ),
        (
            lambda: QattenMixer(2, 3, 4).mix(
                torch.zeros(5, 2), torch.zeros(5, 3), torch.zeros(5, 2, 3)
            ),
            r"`agents` must be .* with trailing sizes \(2, 4\); got \(5, 2, 3\)",
        ),
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


def test_an_entry_that_is_not_there_is_named_and_keys_may_be_lists():
    mixer = QMixer(N_AGENTS, D_STATE, local_key=["hunters", "chosen_action_value"])
    assert mixer.in_keys[0] == ("hunters", "chosen_action_value")
    with pytest.raises(KeyError, match=r"QMixer reads \('hunters', 'chosen_action_value'\), which"):
        mixer(team((4,)))
    assert mixer(team((4,), "hunters"))["global_value"].shape == (4, 1)


@pytest.mark.parametrize("kind", ["qatten, mortal", "shaq, mortal"])
def test_data_where_nobody_dies_may_lack_who_is_alive(kind):
    data, mixer = team((4,)), MIXERS[kind]()
    data["agents", "mask"] = torch.ones(4, N_AGENTS, dtype=torch.bool)
    expected = mixer(data.clone())["global_value"]
    torch.testing.assert_close(mixer(data.exclude(("agents", "mask")))["global_value"], expected)
