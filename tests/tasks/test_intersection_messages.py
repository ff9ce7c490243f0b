"""Requests at the intersection: others see them one step later, and nothing else changes."""

import pytest
import torch

from marl_td.tasks import make_env, make_task
from marl_td.tasks.intersection.sensing import read_state

BUSY = {"n_agents": 6, "arrival_rate": 3.0}


def junction(n_envs=6, seed=0, continuous=False, **params):
    task = make_task("intersection", continuous=continuous, **BUSY, **params)
    generator = torch.Generator().manual_seed(seed)
    return task, task.reset(n_envs, task.draw_reset(n_envs, generator)), generator


def with_bit(action, bit, continuous):
    """The action with a request where ``bit`` is true."""
    if continuous:
        return {"agents": torch.cat([action, bit.float().unsqueeze(-1)], -1)}
    return {"agents": action + 3 * bit}


def drawn(shape, generator, continuous):
    if continuous:
        return 5 * torch.rand((*shape, 1), generator=generator) - 3
    return torch.randint(3, shape, generator=generator)


@pytest.mark.parametrize("shield", [True, False])
@pytest.mark.parametrize("continuous", [True, False])
def test_a_request_changes_nothing_but_what_is_seen(continuous, shield):
    plain, state, generator = junction(continuous=continuous, shield=shield)
    saying, other, _ = junction(continuous=continuous, shield=shield, messages=True)
    own, each = 12, 11
    for _ in range(40):
        action = drawn((6, 6), generator, continuous)
        bit = torch.rand((6, 6), generator=generator) < 0.5
        noise = plain.draw_step(6, generator)
        step = plain.step(state, {"agents": action}, noise)
        again = saying.step(other, with_bit(action, bit, continuous), noise)
        assert torch.equal(again.reward["agents"], step.reward["agents"])
        assert torch.equal(again.terminated, step.terminated)
        was, state, other = state, step.state, again.state
        for name, value in state._asdict().items():
            if name != "request":
                assert torch.equal(value, getattr(other, name)), name
        assert not state.request.any()
        assert torch.equal(other.request, bit & was.active & ~state.done)
        seen, more = plain.observe(state)["agents"], saying.observe(other)["agents"]
        assert torch.equal(more[..., :own], seen[..., :own])
        assert torch.equal(more[..., own], other.request.float())
        rows = more[..., own + 1 :].unflatten(-1, (8, each + 1))
        assert torch.equal(rows[..., :each], seen[..., own:].unflatten(-1, (8, each)))
        vehicles = saying.team_state(other)[:, 1:].unflatten(-1, (6, -1))
        plain_vehicles = plain.team_state(state)[:, 1:].unflatten(-1, (6, -1))
        assert torch.equal(vehicles[..., :-1], plain_vehicles)
        assert torch.equal(vehicles[..., -1], other.request.float())
        assert torch.equal(
            read_state(saying.params, saying.team_state(other)).request, other.request
        )
    assert state.done.any()


def test_others_see_who_said_it_in_the_next_step_and_only_then():
    """Four vehicles from the left, the right and opposite; the second one asks."""
    task, state, generator = junction(1, messages=True)
    for _ in range(15):  # until there are some
        noise = task.draw_step(1, generator)
        state = task.step(state, {"agents": torch.ones(1, 6, dtype=torch.long)}, noise).state
    conflict = task.paths.conflict[state.movement[0]][:, state.movement[0]]
    conflict = conflict & state.active[0] & state.active[0].unsqueeze(-1)
    assert conflict.any()
    asks = int(conflict.any(0).long().argmax())
    action = torch.ones(1, 6, dtype=torch.long)
    silent = task.step(state, {"agents": action}, task.draw_step(1, generator)).state
    action[0, asks] += 3
    step = task.step(state, {"agents": action}, task.draw_step(1, generator)).state
    seen = task.observe(step)["agents"][0, :, 13:].unflatten(-1, (8, 12))[..., -1].sum(-1)
    assert seen.tolist() == conflict[:, asks].float().tolist()
    assert not task.observe(silent)["agents"][0, :, 13:].unflatten(-1, (8, 12))[..., -1].any()
    action[0, asks] -= 3
    later = task.step(step, {"agents": action}, task.draw_step(1, generator)).state
    assert not later.request.any()


def test_a_lost_message_and_a_dead_agent_say_nothing():
    task, state, generator = junction(messages=True, message_dropout=1.0, dead_agents=0.5)
    for _ in range(12):
        everybody = torch.full((6, 6), 4)
        state = task.step(state, {"agents": everybody}, task.draw_step(6, generator)).state
    assert torch.equal(state.request, state.active & state.works & state.request)
    assert state.request.any() and (state.active & ~state.works).any()
    seen = task.observe(state)["agents"]
    assert torch.equal(seen[..., 12], state.request.float()) and not seen[..., 13:].any()


def test_actions_and_masks():
    task, state, _ = junction(messages=True)
    spec = task.groups["agents"].action
    assert spec.names[:3] == ("brake, yield", "keep, yield", "accelerate, yield")
    assert spec.names[5] == "accelerate, request"
    mask = task.action_mask(state)["agents"]
    on = state.active.unsqueeze(-1)
    assert torch.equal(mask[..., 3:], mask[..., :3] & on) and mask.shape[-1] == 6
    assert (~on).any() and not mask[~state.active][:, 1:].any() and mask[..., 0].all()
    box = make_task("intersection", messages=True).groups["agents"].action
    assert (box.low, box.high) == ((-3.0, 0.0), (2.0, 1.0)) and box.names[1] == "request"
    asked = torch.tensor([[[1.0, 0.5], [-9.0, 0.51]]])
    pair = make_task("intersection", messages=True, n_agents=2)
    here = pair.reset(1, pair.draw_reset(1, torch.Generator().manual_seed(0)))
    here = here._replace(active=torch.ones(1, 2, dtype=torch.bool))
    assert pair.requested(here, {"agents": asked}).tolist() == [[False, True]]
    assert pair.wanted(here, {"agents": asked}).tolist() == [[1.0, -3.0]]


@pytest.mark.parametrize("continuous", [True, False])
def test_rules_drive_as_without_them(continuous):
    found = []
    for messages in (False, True):
        env = make_env("intersection", 4, continuous=continuous, seed=3, messages=messages, **BUSY)
        policy, td, total = env.task.baselines()["first_there_first"], env.reset(), 0.0
        for _ in range(60):
            td = env.step(policy(td))["next"]
            total = total + td["agents", "reward"].sum((1, 2))
        found.append(total)
        assert not env.state.request.any()
    assert torch.equal(found[0], found[1])
    with_messages = make_task("intersection", messages=True).optimum()
    assert with_messages == make_task("intersection").optimum()
