"""Tasks and streams on a CUDA device."""

import pytest
import torch
from torchrl.envs.utils import check_env_specs
from toy_tasks import Hunt, HuntParams

from marl_td.tasks import VectorEnv, make_task
from marl_td.tasks.adapters.random_stream import RandomStream

pytestmark = pytest.mark.gpu


def test_the_vector_environment_lives_there():
    env = VectorEnv(Hunt(HuntParams(), device="cuda"), 4)
    check_env_specs(env)
    td = env.rollout(9, break_when_any_done=False)
    assert td.device.type == "cuda" and td["next", "done"].any()


def test_the_same_noise_gives_the_same_step_as_on_the_cpu():
    generator = torch.Generator().manual_seed(0)
    action = {
        "hunter": torch.randint(3, (4, 3), generator=generator),
        "prey": torch.rand((4, 1, 2), generator=generator),
    }
    cpu, cuda = Hunt(HuntParams()), Hunt(HuntParams(), device="cuda")
    start, noise = cpu.draw_reset(4, generator), cpu.draw_step(4, generator)
    expected = cpu.step(cpu.reset(4, start), action, noise)

    def there(tensors):
        return {key: value.cuda() for key, value in tensors.items()}

    found = cuda.step(cuda.reset(4, there(start)), there(action), there(noise))
    for a, b in zip(found.state, expected.state, strict=True):
        torch.testing.assert_close(a.cpu(), b)
    assert torch.equal(found.terminated.cpu(), expected.terminated)


def test_a_stream_keeps_the_device_s_generator_to_itself():
    torch.cuda.manual_seed(1)
    expected = torch.rand(3, device="cuda")
    torch.cuda.manual_seed(1)
    stream, again = RandomStream(5, "cuda"), RandomStream(5, "cuda")
    with stream:
        first = torch.rand(3, device="cuda")
    assert torch.equal(torch.rand(3, device="cuda"), expected)
    with again:
        assert torch.equal(torch.rand(3, device="cuda"), first)


def test_a_hunt_with_the_same_noise_is_that_of_the_cpu():
    generator = torch.Generator().manual_seed(0)
    cpu, cuda = make_task("pursuit"), make_task("pursuit", device="cuda")
    noise = cpu.draw_reset(64, generator)
    expected = cpu.reset(64, noise)
    found = cuda.reset(64, {key: value.cuda() for key, value in noise.items()})
    for _ in range(5):
        action = torch.randint(6, (64, 8), generator=generator)
        noise = cpu.draw_step(64, generator)
        expected = cpu.step(expected, {"agents": action}, noise).state
        there = {key: value.cuda() for key, value in noise.items()}
        found = cuda.step(found, {"agents": action.cuda()}, there).state
        assert all(torch.equal(a.cpu(), b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", ["market_making", "energy_grid"])
def test_markets_and_grids_with_the_same_noise_go_as_on_the_cpu(name):
    generator = torch.Generator().manual_seed(0)
    cpu, cuda = make_task(name), make_task(name, device="cuda")
    expected, found = cpu.reset(16, {}), cuda.reset(16, {})
    for _ in range(8):
        shape = cpu.groups["agents"].action.high
        action = torch.rand((16, cpu.params.n_agents, len(shape)), generator=generator)
        noise = cpu.draw_step(16, generator)
        expected = cpu.step(expected, {"agents": action}, noise).state
        there = {key: value.cuda() for key, value in noise.items()}
        found = cuda.step(found, {"agents": action.cuda()}, there).state
        seen = cuda.observe(found)["agents"].cpu()
        torch.testing.assert_close(seen, cpu.observe(expected)["agents"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "params"), [("mapf", {"mode": "restart"}), ("warehouse", {"n_agents": 100})]
)
def test_robots_with_the_same_noise_go_as_on_the_cpu(name, params):
    generator = torch.Generator().manual_seed(0)
    cpu, cuda = make_task(name, **params), make_task(name, device="cuda", **params)
    noise = cpu.draw_reset(16, generator)
    expected = cpu.reset(16, noise)
    found = cuda.reset(16, {key: value.cuda() for key, value in noise.items()})
    for _ in range(8):
        action = torch.randint(5, (16, cpu.params.n_agents), generator=generator)
        noise = cpu.draw_step(16, generator)
        expected = cpu.step(expected, {"agents": action}, noise).state
        there = {key: value.cuda() for key, value in noise.items()}
        found = cuda.step(found, {"agents": action.cuda()}, there).state
        assert all(torch.equal(a.cpu(), b) for a, b in zip(found, expected, strict=True))
        seen = cuda.observe(found)["agents"].cpu()
        torch.testing.assert_close(seen, cpu.observe(expected)["agents"])


@pytest.mark.parametrize(
    ("name", "params"), [("pricing", {"continuous": False, "shock": 0.2}), ("levers", {})]
)
def test_prices_and_levers_with_the_same_noise_go_as_on_the_cpu(name, params):
    generator = torch.Generator().manual_seed(0)
    cpu, cuda = make_task(name, **params), make_task(name, device="cuda", **params)
    noise = cpu.draw_reset(16, generator)
    action = torch.randint(5, (16, cpu.params.n_agents), generator=generator)
    noise_of_step = cpu.draw_step(16, generator)
    expected = cpu.step(cpu.reset(16, noise), {"agents": action}, noise_of_step)
    there, then = ({key: value.cuda() for key, value in n.items()} for n in (noise, noise_of_step))
    found = cuda.step(cuda.reset(16, there), {"agents": action.cuda()}, then)
    for a, b in zip(found.state, expected.state, strict=True):
        torch.testing.assert_close(a.cpu(), b)
    torch.testing.assert_close(found.reward["agents"].cpu(), expected.reward["agents"])
    seen = cuda.observe(found.state)["agents"].cpu()
    torch.testing.assert_close(seen, cpu.observe(expected.state)["agents"])


@pytest.mark.parametrize("name", ["traffic_junction", "intersection"])
def test_traffic_with_the_same_noise_goes_as_on_the_cpu(name):
    generator = torch.Generator().manual_seed(0)
    cpu, cuda = (make_task(name, continuous=False, device=device) for device in ("cpu", "cuda"))
    noise = cpu.draw_reset(16, generator)
    expected = cpu.reset(16, noise)
    found = cuda.reset(16, {key: value.cuda() for key, value in noise.items()})
    for _ in range(30):
        shape = (16, cpu.params.n_agents)
        action = torch.randint(cpu.groups["agents"].action.n, shape, generator=generator)
        noise = cpu.draw_step(16, generator)
        expected = cpu.step(expected, {"agents": action}, noise).state
        there = {key: value.cuda() for key, value in noise.items()}
        found = cuda.step(found, {"agents": action.cuda()}, there).state
        seen = cuda.observe(found)["agents"].cpu()
        torch.testing.assert_close(seen, cpu.observe(expected)["agents"], rtol=1e-4, atol=1e-4)
    ("name", "params"), [("pong", {"n_agents": 4}), ("drones", {"n_targets": 3, "mode": "patrol"})]
)
def test_a_step_from_the_same_state_is_that_of_the_cpu(name, params):
    """States are handed over at each step: rounding may tell a ball or a cell at an edge apart."""
    generator = torch.Generator().manual_seed(0)
    cpu = make_task(name, continuous=False, **params)
    cuda = make_task(name, continuous=False, device="cuda", **params)
    state = cpu.reset(64, cpu.draw_reset(64, generator))
    for _ in range(20):
        action = {
            group: torch.randint(spec.action.n, (64, spec.n_agents), generator=generator)
            for group, spec in cpu.groups.items()
        }
        noise = cpu.draw_step(64, generator)
        there = {key: value.cuda() for key, value in noise.items()}
        moves = {key: value.cuda() for key, value in action.items()}
        found = cuda.step(type(state)(*(part.cuda() for part in state)), moves, there).state
        state = cpu.step(state, action, noise).state
        for a, b in zip(found, state, strict=True):
            same = torch.isclose(a.cpu().double(), b.double(), atol=1e-4)
            assert same.float().mean() > 0.999
