"""Central inputs and state values: who is seen, in which shape, by whose parameters."""

import pytest
import torch
from benchmarl_runs import small_run
from discrete_teams import teams_task

from marl_td import critics
from marl_td.algorithms.mappo import MappoConfig

SIZES = {"red": 2, "blue": 3}


@pytest.fixture
def teams(tmp_path):
    """``teams(has_state=..., mortal=...)``: a MAPPO algorithm on two teams, and a batch ``[4, 6]``."""

    def build(**params):
        config = MappoConfig(agent_specific_state=params.pop("agent_specific_state", False))
        experiment = small_run(tmp_path, config, teams_task(**params), max_n_iters=1)
        batch = next(iter(experiment.collector))
        for callback in experiment.callbacks:
            callback.on_batch_collected(batch)
        return experiment.algorithm, batch

    return build


def influence(critic, batch, group: str) -> dict:
    """For every entry the critic reads: the gradient of the first agent's value, by key."""
    inputs = {}
    data = batch.clone()
    for key in critic.in_keys:
        if torch.is_tensor(data.get(key)) and data.get(key).is_floating_point():
            inputs[key] = data.get(key).clone().requires_grad_()
            data.set(key, inputs[key])
    value = critic(data)[group, "state_value"][..., 0, 0].sum()
    gradients = torch.autograd.grad(value, list(inputs.values()))
    return dict(zip(inputs, gradients, strict=True))


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("specific", [True, False])
@pytest.mark.parametrize("scope", critics.SCOPES)
@pytest.mark.parametrize("has_state", [True, False])
def test_shapes_and_parameters(has_state, scope, specific, share, teams):
    """One value per agent; with separate networks it depends on the agent's row of each parameter only."""
    algorithm, batch = teams(has_state=has_state)
    critic = critics.state_value(
        algorithm, "blue", scope=scope, share_params=share, agent_specific=specific
    )
    value = critic(batch.clone())["blue", "state_value"]
    assert value.shape == (4, 6, 3, 1)
    parameters = list(critic.parameters())
    assert all((p.shape[0] == 3 and p.ndim > 1) != share for p in parameters if p.ndim == 3)
    if not share:
        for gradient in torch.autograd.grad(value[..., 1, :].sum(), parameters):
            assert gradient[[0, 2]].abs().max() == 0.0
            assert gradient[1].abs().max() > 0.0
    if share and not specific and scope != "agent":
        assert torch.equal(value, value[..., :1, :].expand_as(value))


def test_the_environment_is_seen_whole(teams):
    """Without a global state a critic of scope "environment" depends on every agent of every group."""
    algorithm, batch = teams(has_state=False)
    seen = influence(critics.state_value(algorithm, "red", scope="environment"), batch, "red")
    assert set(seen) == {("joint", group, "observation") for group in SIZES}
    for group, n in SIZES.items():
        gradient = seen["joint", group, "observation"]
        assert gradient.shape[-2] == n
        assert (gradient.abs().amax((0, 1)) > 0).all()


def test_a_group_scope_stops_at_the_group(teams):
    algorithm, batch = teams(has_state=False)
    seen = influence(critics.state_value(algorithm, "red", scope="group"), batch, "red")
    assert set(seen) == {("red", "observation")}
    assert (seen["red", "observation"].abs().amax((0, 1)) > 0).all()


def test_an_agent_scope_stops_at_the_agent(teams):
    algorithm, batch = teams()
    seen = influence(critics.state_value(algorithm, "red", scope="agent"), batch, "red")
    assert set(seen) == {("red", "observation")}
    assert seen["red", "observation"][..., 0, :].abs().max() > 0
    assert seen["red", "observation"][..., 1, :].abs().max() == 0


@pytest.mark.parametrize("scope", ["group", "environment"])
def test_a_global_state_stands_for_the_joint_observation(scope, teams):
    algorithm, batch = teams(has_state=True)
    seen = influence(critics.state_value(algorithm, "red", scope=scope), batch, "red")
    assert set(seen) == {"state"}
    specific = critics.state_value(algorithm, "red", scope=scope, agent_specific=True)
    seen = influence(specific, batch, "red")
    assert set(seen) == {"state", ("red", "observation")}
    assert seen["red", "observation"][..., 0, :].abs().max() > 0
    assert seen["red", "observation"][..., 1, :].abs().max() == 0


def rows(algorithm, batch, group: str, **options) -> torch.Tensor:
    """What the value network is given, ``[*B, n_agents, D]``."""
    critic = critics.state_value(algorithm, group, **options)
    return critic(batch.clone())[group, "critic_input"]


def test_agent_specific_rows_by_hand(teams):
    """The state, the own observation, the index."""
    algorithm, batch = teams(has_state=True)
    out = rows(algorithm, batch, "blue", agent_specific=True)
    state = batch["state"].unsqueeze(-2).expand(4, 6, 3, 2)
    index = torch.eye(3).expand(4, 6, 3, 3)
    expected = torch.cat([state, batch["blue", "observation"], index], -1)
    assert torch.equal(out, expected)


def test_of_the_dead_only_the_index_is_left(teams):
    """Recommendation 2 of the MAPPO paper; agent 0 of each team dies in its second step here."""
    algorithm, batch = teams(has_state=True, mortal=True)
    assert algorithm.is_mortal("blue")
    alive = batch["blue", "mask"]
    assert not alive[..., 0].all()
    assert alive[..., 1:].all()
    out = rows(algorithm, batch, "blue", agent_specific=True)
    dead = out[~alive]
    assert torch.equal(dead, torch.tensor([0.0] * 6 + [1.0, 0.0, 0.0]).expand_as(dead))
    immortal, _ = teams(has_state=True)
    assert not immortal.is_mortal("blue")
    whole = rows(immortal, batch, "blue", agent_specific=True)
    assert torch.equal(out[alive], whole[alive])
    assert not torch.equal(whole[~alive], dead)


def test_an_unknown_scope_is_refused(teams):
    algorithm, _ = teams()
    with pytest.raises(
        ValueError, match=r"critic scope must be one of agent, group, environment; got 'all'"
    ):
        critics.state_value(algorithm, "red", scope="all")
