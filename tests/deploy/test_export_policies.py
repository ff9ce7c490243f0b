"""What a bundle does is what the training policy does: new inputs, batches of 1 and 7, every form."""

import io

import numpy as np
import pytest
import torch
from algorithm_cases import ALGORITHM_KINDS
from benchmarl_runs import IGNORED
from small_policies import DISCRETE, GRU, MLP, OWN, live_actions, small_run, small_source
from torchrl.envs.utils import ExplorationType, set_exploration_type

from marl_td.deploy import load_bundle
from marl_td.deploy.agents import agent_exports
from marl_td.deploy.export import export_policy
from marl_td.deploy.samples import of_agent, policy_outputs, random_inputs
from marl_td.registry import ALGORITHMS, action_kinds, algorithm_config

pytestmark = IGNORED
INPUTS_OF_THE_AGENT = ("last_action", "agent_id", "dueling")
THEIR_GRU = (
    "model=layers/gru",
    "model.hidden_size=6",
    "model.n_layers=2",
    "model.mlp_num_cells=[8]",
    "model.dropout=0.0",
)
OPTIONS = [f"algorithm.{name}=true" for name in INPUTS_OF_THE_AGENT]

CASES = {
    "shared MLP, discrete with mask": ("marl_td/mappo", *MLP, *DISCRETE),
    "own GRU, discrete with mask": ("marl_td/qmix", *GRU, *OWN, *OPTIONS),
    "own MLP, continuous, squashed": ("marl_td/mappo", *MLP, *OWN),
    "shared GRU, continuous, deterministic": ("marl_td/maddpg", *GRU),
}


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(" ", "_"))
def exported(request, tmp_path_factory):
    source, run = small_run(*CASES[request.param])
    before = {group: dict(p.state_dict()) for group, p in source.policies.items()}
    copies = {
        group: {k: v.clone() for k, v in state.items() if isinstance(v, torch.Tensor)}
        for group, state in before.items()
    }
    out = tmp_path_factory.mktemp("deploy") / "bundle"
    report = export_policy(source, out)
    return source, report, copies, run


def inputs_of(source, agents, batch, seed):
    """Random entries of all agents, hidden states included."""
    generator = torch.Generator().manual_seed(seed)
    inputs = random_inputs(source.specs, batch, generator)
    if "is_init" in inputs.keys():
        inputs.set("is_init", torch.zeros_like(inputs.get("is_init")))
    for agent in agents:
        group = agent.signature.group
        for entry in agent.signature.state:
            key = agent.actor.inputs[entry.name]
            if key not in source.specs and inputs.get(key, None) is None:
                shape = (batch, len(source.group_map[group]), *entry.shape)
                inputs.set(key, torch.randn(shape, generator=generator))
    return inputs


def given(agent, inputs):
    """Observation, state and mask of one agent as the runtime takes them."""
    signature, keys = agent.signature, agent.actor.inputs
    values = {name: inputs.get(key) for name, key in keys.items()}
    own = of_agent(values, keys, signature.group, signature.index)
    own = {name: value.numpy() for name, value in own.items()}
    state = {entry.name: own[entry.name] for entry in signature.state} or None
    mask = None if signature.mask is None else own[signature.mask.name]
    return {entry.name: own[entry.name] for entry in signature.observation}, state, mask


@pytest.mark.parametrize("batch", [1, 7])
def test_the_bundle_acts_as_the_training_policy(exported, batch):
    source, report, *_ = exported
    agents, bundle = agent_exports(source), load_bundle(report.folder)
    inputs = inputs_of(source, agents, batch, seed=100 + batch)
    live = live_actions(source, inputs)
    for agent in agents:
        obs, state, mask = given(agent, inputs)
        action, _ = bundle.agents[agent.name].act(obs, state, mask)
        expected = live[agent.signature.group][:, agent.signature.index]
        np.testing.assert_allclose(action, expected, atol=1e-5)
    every = np.concatenate([action.reshape(batch, -1) for action in live.values()], axis=-1)
    assert batch == 1 or len(np.unique(every.round(3), axis=0)) > 1  # they see different things


@pytest.mark.parametrize("batch", [1, 7])
def test_the_program_gives_what_the_training_policy_gives(exported, batch):
    source, report, *_ = exported
    agents = agent_exports(source)
    inputs = inputs_of(source, agents, batch, seed=200 + batch)
    for agent in agents:
        file = report.folder / "actors" / f"{agent.signature.actor}.pt2"
        module = torch.export.load(io.BytesIO(file.read_bytes())).module()
        obs, state, mask = given(agent, inputs)
        mask = {} if mask is None else {agent.signature.mask.name: mask}
        every = {name: torch.as_tensor(v) for name, v in {**obs, **(state or {}), **mask}.items()}
        found = module({name: every[name] for name in agent.actor.inputs})
        group = agent.signature.group
        expected = policy_outputs(source.policies[group], inputs, agent.actor.outputs, group)
        own = of_agent(expected, agent.actor.outputs, group, agent.signature.index)
        assert set(found) == set(own)
        for name, value in own.items():
            torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5)


def test_an_episode_goes_as_with_the_training_policy(exported):
    """Ten steps in the environment: memories and last actions are carried as the policy does it."""
    _, report, _, run = exported
    env = run.env
    env.set_seed(0)
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        live = env.rollout(10, run.policy, break_when_any_done=False)
    agents = load_bundle(report.folder).agents
    env.set_seed(0)
    data, states = env.reset(), dict.fromkeys(agents)
    for step in range(10):
        actions = []
        for index, (name, agent) in enumerate(agents.items()):
            seen = {key: value[0, index].numpy() for key, value in data["agents"].items()}
            seen = {e.name: seen[e.name] for e in agent.signature.inputs if e.name in seen}
            seen = {k: v for k, v in seen.items() if k not in ("last_action", "hidden_gru_0")}
            action, states[name] = agent.act(seen, states[name])
            actions.append(torch.as_tensor(action))
        data.set(("agents", "action"), torch.stack(actions).unsqueeze(0))
        expected = live[:, step]["agents", "action"]
        torch.testing.assert_close(data["agents", "action"], expected, atol=1e-4, rtol=1e-4)
        data, after = env.step_and_maybe_reset(data)
        reward = live[:, step]["next", "agents", "reward"]
        torch.testing.assert_close(data["next", "agents", "reward"], reward, atol=1e-3, rtol=1e-3)
        data = after


def test_every_form_was_compared(exported):
    _, report, *_ = exported
    for found in report.differences.values():
        values = [found.eager, found.program, found.onnx]
        assert max(values) <= 1e-5
        assert max(values) > 0.0  # nothing is compared with itself


def test_the_training_policy_is_as_it_was(exported):
    source, _, copies, _ = exported
    for group, policy in source.policies.items():
        state = policy.state_dict()
        for name, value in copies[group].items():
            assert torch.equal(state[name], value), name
        inputs = inputs_of(source, agent_exports(source), 3, seed=5)
        out = policy(inputs)
        value = out.get((group, "action_value"), None)
        value = (
            out.get((group, "parameter"), out.get((group, "logits"))) if value is None else value
        )
        value.sum().backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.parameters())


JOINT = ("mat",)
"""Algorithms whose policy is one of all agents together."""


def settings_of(name, kind, network, sharing):
    extra = [*(MLP if network == "mlp" else GRU)]
    extra += DISCRETE if kind == "discrete" else ["experiment.prefer_continuous_actions=true"]
    return (f"marl_td/{name}", *extra, *(OWN if sharing == "own" else ()))


def agree(source, batch):
    """The actors' outputs against the training policy's, in torch alone."""
    agents = agent_exports(source)
    inputs = inputs_of(source, agents, batch, seed=batch)
    for agent in agents:
        group, keys = agent.signature.group, agent.actor.inputs
        values = {name: inputs.get(key) for name, key in keys.items()}
        found = agent.actor(of_agent(values, keys, group, agent.signature.index))
        every = policy_outputs(source.policies[group], inputs, agent.actor.outputs, group)
        expected = of_agent(every, agent.actor.outputs, group, agent.signature.index)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name not in JOINT])
def test_actors_of_every_algorithm_agree(name):
    kind = action_kinds(algorithm_config(name))[0]
    network = "mlp" if len(name) % 2 else "gru"
    agree(small_source(*settings_of(name, kind, network, "own")), 3)


@pytest.mark.slow
@pytest.mark.parametrize("sharing", ["shared", "own"])
@pytest.mark.parametrize("network", ["mlp", "gru"])
@pytest.mark.parametrize(("name", "kind"), ALGORITHM_KINDS)
def test_the_whole_registry_is_exported(tmp_path, name, kind, network, sharing):
    source = small_source(*settings_of(name, kind, network, sharing))
    if name in JOINT:
        with pytest.raises(ValueError, match="cannot act decentralised"):
            export_policy(source, tmp_path / "bundle")
        return
    report = export_policy(source, tmp_path / "bundle")
    assert load_bundle(tmp_path / "bundle", verify=True).verify() <= 1e-5
    assert max(max(vars(found).values()) for found in report.differences.values()) <= 1e-5


@pytest.mark.parametrize(
    "settings",
    [
        ("marl_td/maddpg", "algorithm.ensemble_size=2"),
        ("marl_td/maddpg", "algorithm.ensemble_size=2", "algorithm.evaluation_sub_policy=1"),
        ("marl_td/roma", *GRU),
        ("marl_td/belief_ppo", "algorithm.belief_pooling=mean"),
        ("marl_td/mappo", "algorithm.use_tanh_normal=false"),
        ("marl_td/iql", *THEIR_GRU),
        ("marl_td/ippo", *THEIR_GRU, *OWN),
        ("marl_td/coma", "experiment.exploration_eps_end=0"),
        ("marl_td/vdn", *GRU, "algorithm.last_action=true"),
    ],
    ids=lambda settings: " ".join(settings[:1] + settings[-1:]),
)
def test_variants_agree(settings):
    name, *rest = settings
    model = [] if any(word.startswith("model") for word in rest) else MLP
    agree(small_source(name, *rest, *model), 3)
