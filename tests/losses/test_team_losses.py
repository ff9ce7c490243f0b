"""The loss of every algorithm with a team value: masks, padding, weights, graphs, compiling."""

import pytest
import torch
from small_qmix import N_ACTIONS, loss_of, make_batch, make_episodes

from marl_td.evaluation.games import game_algorithms
from marl_td.registry import algorithm_config

NAMES = game_algorithms()
REPLAYED = [name for name in NAMES if not algorithm_config(name).on_policy()]


def losses_in(loss, out) -> torch.Tensor:
    """The sum of the named losses."""
    return torch.stack([out[name] for name in loss.networks()]).sum()


def results(loss, batch) -> list[torch.Tensor]:
    """All outputs and gradients."""
    out = loss(batch.clone())
    live = [p for p in loss.parameters() if p.requires_grad]
    return [*out.values(), *torch.autograd.grad(losses_in(loss, out), live)]


@pytest.mark.parametrize("name", NAMES)
def test_named_losses_train_their_own_networks_and_nothing_else(name):
    """BenchMARL calls backward on each of them: no shared graph, no parameter twice, none left out."""
    loss, batch = loss_of(name), make_batch(masked=True, mortal=True)
    out = loss(batch)
    assert set(out.keys()) == set(loss.out_keys)
    assert [k for k in out.keys() if out[k].requires_grad] == list(loss.networks())
    trained = {}
    for key, networks in loss.networks().items():
        parameters = [p for network in networks for p in network.parameters()]
        before = {id(p) for p in loss.parameters() if p.grad is not None}
        out[key].backward()
        after = {id(p) for p in loss.parameters() if p.grad is not None}
        assert after - before == {id(p) for p in parameters}
        trained |= {id(p): p for p in parameters}
    assert set(trained) == {id(p) for p in loss.parameters() if p.requires_grad}
    assert batch["agents", "td_error"].shape == (16, 2, 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_dead_agent_changes_nothing(name):
    loss, batch = loss_of(name, share=False), make_batch()
    alive = torch.tensor([True, False]).expand(16, 2)
    batch["agents", "mask"] = batch["next", "agents", "mask"] = alive
    changed = batch.clone()
    changed["agents", "action"][:, 1] = (changed["agents", "action"][:, 1] + 1) % N_ACTIONS
    for data in (changed, changed["next"]):
        data["agents", "observation"][:, 1] += 1.0
    for before, after in zip(results(loss, batch), results(loss, changed), strict=True):
        torch.testing.assert_close(after, before)


@pytest.mark.parametrize("name", NAMES)
def test_an_unavailable_action_has_no_part_in_any_target(name):
    """What the network says of an action that nobody can take, now or next, changes nothing."""
    loss, batch = loss_of(name, share=False), make_batch()
    batch["agents", "action"].clamp_(max=1)
    for data in (batch, batch["next"]):
        mask = torch.ones(16, 2, N_ACTIONS, dtype=torch.bool)
        mask[..., 2] = False
        data["agents", "action_mask"] = mask
    before = loss(batch)
    with torch.no_grad():
        names = ("network", "target_network", "central_network", "target_central_network")
        for module in (getattr(loss, name) for name in names if hasattr(loss, name)):
            for parameter in module.parameters():
                if parameter.shape[-1] == N_ACTIONS and parameter.ndim == 2:
                    parameter[..., 2] += 100.0  # the output's bias
    after = loss(batch)
    for key in before.keys():
        torch.testing.assert_close(after[key], before[key])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lmbda": 0.6},
        {"lmbda": 0.6, "q_lambda": "watkins"},
        {"lmbda": 0.6, "q_lambda": "corrected"},
        {"n_steps": 3, "double_q": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", REPLAYED)
def test_padding_changes_nothing_and_an_episode_is_its_steps(name, options):
    loss = loss_of(name, sequences=True, **options)
    batch = make_episodes(masked=True, mortal=True)
    noisy, real = batch.clone(), batch["step_mask"]
    for key, value in batch.items(include_nested=True, leaves_only=True):
        mask = real.reshape(*real.shape[:2], *[1] * (value.ndim - 2))
        if value.is_floating_point():
            noisy.set(key, torch.where(mask, value, 50.0 * torch.randn_like(value)))
        elif key in (("next", "terminated"), ("next", "done")):
            noisy.set(key, torch.where(mask, value, ~value))
        elif key == ("next", "agents", "action_mask"):
            noisy.set(key, mask & value)
    for before, after in zip(results(loss, batch), results(loss, noisy), strict=True):
        torch.testing.assert_close(after, before)
    if not options:
        steps = loss_of(name)
        steps.load_state_dict(loss.state_dict())
        flat = batch[real.squeeze(-1)].exclude("step_mask", "is_init")
        for one, other in zip(results(steps, flat), results(loss, batch), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", REPLAYED)
def test_importance_weights_count_in_every_named_loss(name):
    loss, batch = loss_of(name), make_batch((4,))
    rows = [loss(batch[i : i + 1].clone()) for i in range(4)]
    batch["priority_weight"] = torch.tensor([1.0, 0.0, 0.5, 2.0])
    out = loss(batch)
    for key in loss.networks():
        expected = (rows[0][key] + 0.5 * rows[2][key] + 2.0 * rows[3][key]) / 4
        torch.testing.assert_close(out[key], expected, rtol=1e-4, atol=1e-5)
