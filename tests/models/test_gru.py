"""Layers shared or per agent, and the recurrent model that keeps its state with the data."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.data import Composite, Unbounded

from marl_td import register
from marl_td.models.grouped import GroupedGRU, GroupedLayerNorm, GroupedLinear
from marl_td.models.gru import StatefulGru, StatefulGruConfig

N_AGENTS, D_OBS, D_OUT = 3, 4, 2
HIDDEN = ("agents", "hidden_gru_0")
OUT = ("agents", "logits")


def model(config: StatefulGruConfig | None = None, *, share: bool = True) -> StatefulGru:
    """An actor network of three agents."""

    def group(**entries: Unbounded) -> Composite:
        return Composite({"agents": Composite(entries, shape=(N_AGENTS,))})

    config = config or StatefulGruConfig(hidden_size=5, encoder_cells=[6], n_layers=2)
    return config.get_model(
        input_spec=group(observation=Unbounded((N_AGENTS, D_OBS))),
        output_spec=group(logits=Unbounded((N_AGENTS, D_OUT))),
        agent_group="agents",
        input_has_agent_dim=True,
        n_agents=N_AGENTS,
        centralised=False,
        share_params=share,
        device="cpu",
        action_spec=None,
    )


def rows(n_envs: int = 4, n_steps: int = 7, starts: float = 0.3) -> TensorDict:
    """Random observations, with episodes starting anywhere in the rows."""
    is_init = torch.rand(n_envs, n_steps, 1) < starts
    observation = torch.randn(n_envs, n_steps, N_AGENTS, D_OBS)
    return TensorDict(
        {"agents": {"observation": observation}, "is_init": is_init}, is_init.shape[:2]
    )


# ------------------------------------------------------------------ layers
def test_shared_linear_is_torchs():
    layer, theirs = GroupedLinear(1, 4, 3), nn.Linear(4, 3)
    theirs.load_state_dict({"weight": layer.weight[0], "bias": layer.bias[0]})
    x = torch.randn(5, 2, 6, 4)
    torch.testing.assert_close(layer(x), theirs(x))


def test_each_agent_has_its_own_linear():
    layer = GroupedLinear(3, 4, 2)
    x = torch.randn(5, 3, 4)
    for agent in range(3):
        expected = nn.functional.linear(x[:, agent], layer.weight[agent], layer.bias[agent])
        torch.testing.assert_close(layer(x)[:, agent], expected)


def test_layer_norm_is_torchs_for_all_agents_or_each():
    x = 3.0 * torch.randn(2, 4, 3, 5) + 1.0
    for n_groups in (1, 3):
        layer = GroupedLayerNorm(n_groups, 5)
        with torch.no_grad():
            layer.weight.normal_()
            layer.bias.normal_()
        out = layer(x)
        for agent in range(3):
            group = min(agent, n_groups - 1)
            expected = nn.functional.layer_norm(
                x[..., agent, :], (5,), layer.weight[group], layer.bias[group]
            )
            torch.testing.assert_close(out[..., agent, :], expected)


@pytest.mark.parametrize("share", [True, False])
def test_what_is_normalised_has_no_scale(share):
    """Encoder without bias: inputs ten times as large change nothing; without layer norm they do."""
    for layer_norm in (True, False):
        config = StatefulGruConfig(hidden_size=6, encoder_cells=[8], layer_norm=layer_norm)
        net = model(config, share=share)
        with torch.no_grad():
            net.encoder[0].bias.zero_()
            net.encoder[0].weight.mul_(100.0)  # epsilon plays no part
            data, large = rows(), rows()
            key = net.input_keys[0]
            large.set(key, 10.0 * data.get(key))
            for name in data.keys(True, True):
                if name != key:
                    large.set(name, data.get(name))
            same = torch.allclose(net(large)[net.out_key], net(data)[net.out_key], atol=1e-3)
        assert same is layer_norm


def torch_gru(layers: GroupedGRU, group: int, n_layers: int) -> nn.GRU:
    """PyTorch's GRU with one group's parameters."""
    gru = nn.GRU(4, 5, n_layers, batch_first=True)
    for i in range(n_layers):
        for name, part in (("ih", layers.inputs[i]), ("hh", layers.states[i])):
            getattr(gru, f"weight_{name}_l{i}").data = part.weight[group].data
            getattr(gru, f"bias_{name}_l{i}").data = part.bias[group].data
    return gru


@pytest.mark.parametrize("n_groups", [1, 3])
def test_the_recurrence_is_torchs_for_every_agent(n_groups):
    gru = GroupedGRU(n_groups, 4, 5, n_layers=2)
    x, state = torch.randn(6, 7, 3, 4), torch.randn(6, 3, 2, 5)
    out, after = gru(x, state, torch.zeros(6, 7, dtype=torch.bool))
    for agent in range(3):
        theirs = torch_gru(gru, agent if n_groups > 1 else 0, 2)
        start = state[:, agent].transpose(0, 1).contiguous()
        expected, last = theirs(x[:, :, agent], start)
        torch.testing.assert_close(out[:, :, agent], expected)
        torch.testing.assert_close(after[:, -1, agent], last.transpose(0, 1))


def test_a_reset_is_a_fresh_start():
    gru = GroupedGRU(1, 4, 5, n_layers=1)
    x, state = torch.randn(1, 6, 3, 4), torch.randn(1, 3, 1, 5)
    reset = torch.zeros(1, 6, dtype=torch.bool)
    reset[0, 4] = True
    out, _ = gru(x, state, reset)
    first, _ = gru(x[:, :4], state, reset[:, :4])
    second, _ = gru(x[:, 4:], torch.zeros_like(state), torch.zeros(1, 2, dtype=torch.bool))
    torch.testing.assert_close(out, torch.cat([first, second], 1))


# ------------------------------------------------------------------- model
@pytest.mark.parametrize("share", [True, False])
def test_a_sequence_is_the_same_as_its_steps_one_by_one(share):
    """With the state handed on as a collector does; so are chunks that start from the stored state."""
    net = model(share=share)
    data = rows()
    state = torch.zeros(4, N_AGENTS, 2, 5)
    states, outs = [state], []
    for t in range(7):
        step = net(data[:, t].clone().set(HIDDEN, states[-1]))
        states.append(step[("next", *HIDDEN)])
        outs.append(step[OUT])
    expected = torch.stack(outs, 1)
    sequence = net(data.clone())
    torch.testing.assert_close(sequence[OUT], expected)
    torch.testing.assert_close(sequence[("next", *HIDDEN)], torch.stack(states[1:], 1))
    chunk = data[:, 3:].clone().set(HIDDEN, torch.stack(states[:-1], 1)[:, 3:])
    torch.testing.assert_close(net(chunk)[OUT], expected[:, 3:])
    without = net(data[:, 3:].clone())
    assert not torch.allclose(without[OUT], expected[:, 3:])


def test_a_single_environment_has_no_batch_dimension():
    net = model()
    data = rows(1, 1)
    expected = net(data.clone())[OUT][0, 0]
    torch.testing.assert_close(net(data[0, 0].clone())[OUT], expected)


def test_shared_parameters_make_it_equivariant_and_separate_ones_do_not():
    order = torch.tensor([1, 2, 0])
    for share in (True, False):
        net, data = model(share=share), rows()
        permuted = data.clone()
        permuted["agents", "observation"] = data["agents", "observation"][:, :, order]
        same = torch.allclose(net(permuted)[OUT], net(data)[OUT][:, :, order], atol=1e-6)
        assert same == share


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("has_rows", [True, False])
def test_central_critics(share, has_rows):
    """One value for the team with shared parameters, one per agent with separate ones; state at the root."""
    if has_rows:
        leaf = {"observation": Unbounded((N_AGENTS, D_OBS))}
        spec = Composite({"agents": Composite(leaf, shape=(N_AGENTS,))})
    else:
        spec = Composite({"state": Unbounded((9,))})
    leaf = {"value": Unbounded((N_AGENTS, 1))}
    per_agent = Composite({"agents": Composite(leaf, shape=(N_AGENTS,))})
    config = StatefulGruConfig(hidden_size=5)
    config.is_critic = True
    net = config.get_model(
        input_spec=spec,
        output_spec=Composite({"value": Unbounded((1,))}) if share else per_agent,
        agent_group="agents",
        input_has_agent_dim=has_rows,
        n_agents=N_AGENTS,
        centralised=True,
        share_params=share,
        device="cpu",
        action_spec=None,
    )
    data = rows()
    data["state"] = torch.randn(4, 7, 9)
    out = net(data.clone())
    assert out["value" if share else ("agents", "value")].shape == (
        (4, 7, 1) if share else (4, 7, 3, 1)
    )
    assert out["next", "agents_critic_gru_0"].shape == (4, 7, 1 if share else 3, 1, 5)
    # Every value depends on what every agent saw.
    x = data["agents", "observation"] if has_rows else data["state"]
    x.requires_grad_()
    net(data)
    value = data["value"] if share else data["agents", "value"][..., 0, :]
    (gradient,) = torch.autograd.grad(value[:, -1].sum(), x)
    assert (gradient[:, -1].abs() > 0).all()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.:DeprecationWarning")
@pytest.mark.parametrize("share", [True, False])
def test_it_compiles_in_one_graph(share):
    net, data = model(share=share), rows(n_steps=3)
    compiled = torch.compile(lambda td: net(td)[OUT], fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(data.clone()), net(data.clone())[OUT])


# ------------------------------------------------------------ registration
def test_hydra_composes_it_as_model_and_critic():
    from benchmarl.hydra_config import load_model_config_from_hydra
    from hydra import compose, initialize_config_module

    register()
    overrides = ["algorithm=marl_td/mappo", "task=marl_td/matrix_game"]
    overrides += ["model=layers/marl_td/gru", "model.hidden_size=8"]
    overrides += ["model@critic_model=layers/marl_td/gru", "critic_model.encoder_cells=[4,4]"]
    with initialize_config_module("benchmarl.conf", version_base=None):
        config = compose("config", overrides=overrides)
        with pytest.raises(Exception, match=r"hiden_size"):
            compose("config", overrides=[*overrides, "model.hiden_size=8"])
        with pytest.raises(Exception, match=r"model\.hidden_size"):
            compose("config", overrides=[*overrides, "model.hidden_size=wide"])
    assert load_model_config_from_hydra(config.model) == StatefulGruConfig(hidden_size=8)
    critic = load_model_config_from_hydra(config.critic_model)
    assert critic == StatefulGruConfig(encoder_cells=[4, 4])


def test_settings_from_a_file(tmp_path):
    (tmp_path / "gru.yaml").write_text("name: marl_td/gru\nhidden_size: 12\n")
    assert StatefulGruConfig.get_from_yaml() == StatefulGruConfig()
    read = StatefulGruConfig.get_from_yaml(str(tmp_path / "gru.yaml"))
    assert read == StatefulGruConfig(hidden_size=12)


def test_messages():
    with pytest.raises(
        ValueError, match=r"hidden_size, n_layers and encoder_cells must be at least 1"
    ):
        StatefulGruConfig(hidden_size=0)
    with pytest.raises(ValueError, match=r"got 64, 1 and \[64, 0\]"):
        StatefulGruConfig(encoder_cells=[64, 0])
    with pytest.raises(ValueError, match=r"activation must be one of tanh, relu; got 'gelu'"):
        StatefulGruConfig(activation="gelu")
    image = Composite({"agents": Composite(image=Unbounded((3, 8, 8)), shape=(3,))})
    with pytest.raises(
        ValueError, match=r"the GRU reads vectors; the entry .*image.* shape \[3, 8, 8\]"
    ):
        StatefulGruConfig().get_model(
            input_spec=image,
            output_spec=Composite({"agents": Composite(logits=Unbounded((3, 2)), shape=(3,))}),
            agent_group="agents",
            input_has_agent_dim=True,
            n_agents=3,
            centralised=False,
            share_params=True,
            device="cpu",
            action_spec=None,
        )
