"""The shell and the streams on a CUDA device; every task there: `test_contract.py`."""

import pytest
import torch
from torchrl.envs.utils import check_env_specs
from toy_tasks import Hunt, HuntParams

from marl_td.tasks import VectorEnv
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
