"""What `tests/test_pretend_gpu.py` has `scripts/pretend_gpu` run: checks, and what each of them said.

Run as a command with a folder to write in: `checks.json` says what went wrong with each check ("" for
nothing), and the trained runs lie beside it. The check's name is the test's.
"""

import copy
import functools
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from benchmarl.experiment.callback import Callback
from short_runs import short_experiment
from task_variants import ALL, VARIANTS, Variant
from tensordict import TensorDictBase

from marl_td.tasks import make_env

GPU = torch.device("cuda", 0)
ON_GPU = (
    "experiment.compile=off",
    "experiment.sampling_device=cuda",
    "experiment.train_device=cuda",
)
PPO = ("algorithm=marl_td/mappo", "experiment.on_policy_collected_frames_per_batch=20")
PPO += ("experiment.on_policy_n_envs_per_worker=10", "experiment.on_policy_minibatch_size=10")
PPO += ("experiment.on_policy_n_minibatch_iters=2",)
RUNS = {
    "mappo": (*PPO, "task=marl_td/simple_spread", "task.max_steps=5"),
    "mappo_gru": (
        *PPO,
        "task=marl_td/recall",
        "model=layers/marl_td/gru",
        "algorithm.chunk_length=2",
    ),
    "qmix": ("algorithm=marl_td/qmix", "task=marl_td/matrix_game"),
}
"""Run to its settings, beside those of `short_runs.SHORT`."""


# ------------------------------------------------------------------------------------ the device itself
@contextmanager
def refused(message: str) -> Iterator[None]:
    """The body must fail with ``message``."""
    try:
        yield
    except (RuntimeError, TypeError) as error:
        assert message in str(error), error
    else:
        raise AssertionError(f"nothing was refused; expected: {message}")


def mixing_devices() -> None:
    """Tensors of both devices do not meet, single numbers and indices excepted."""
    here, there = torch.ones(3), torch.ones(3, device=GPU)
    two_devices = "Expected all tensors to be on the same device"
    with refused(two_devices):
        there + here
    with refused(two_devices):
        torch.cat([here, there])
    with refused(two_devices):
        here.add_(there)
    with refused(two_devices):
        torch.nn.Linear(3, 2).to(GPU)(here)
    with refused(two_devices):
        there.index_put_((torch.tensor([0], device=GPU),), here[:1])
    with refused("indices should be"):
        here[torch.tensor([0], device=GPU)]
    with refused("can't convert cuda:0"):
        there.numpy()
    with refused("invalid device ordinal"):
        torch.ones(3, device="cuda:1")
    assert (there + torch.tensor(2.0)).tolist() == [3.0, 3.0, 3.0]
    assert there[torch.tensor([1])].device == GPU


def random_numbers() -> None:
    """The device has a stream of its own, and takes neither the CPU's generators nor their states."""
    torch.manual_seed(3)
    first = torch.rand(2, device=GPU)
    torch.manual_seed(3)
    torch.rand(5)  # of the CPU: another stream
    assert torch.equal(torch.rand(2, device=GPU), first)
    with refused("generator"):
        torch.rand(2, device=GPU, generator=torch.Generator())
    with refused("self"):
        torch.rand(2, generator=torch.Generator(GPU))
    with refused("RNG state"):
        torch.cuda.set_rng_state(torch.get_rng_state())
    with refused("RNG state"):
        torch.set_rng_state(torch.cuda.get_rng_state())


def waiting() -> None:
    """Waiting for the device is an error when asked for."""
    x = torch.ones(3, device=GPU)
    mask = x > 0
    torch.cuda.set_sync_debug_mode("error")
    try:
        for wait in (x.sum().item, x.cpu, mask.nonzero, lambda: bool(mask.any()), lambda: x[mask]):
            with refused("synchronizing"):
                wait()
        x[mask] = 2.0
        torch.where(mask, x, 0.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def learning() -> None:
    """Gradients and steps are the CPU's, those of recurrent cells too; copies stay where they are."""
    here = torch.nn.ModuleDict({"cell": torch.nn.GRUCell(4, 3), "head": torch.nn.Linear(3, 2)})
    there = copy.deepcopy(here).to(GPU)
    x, state = torch.randn(5, 4), torch.randn(5, 3)
    for net, where in ((here, "cpu"), (there, GPU)):
        loss = net["head"](net["cell"](x.to(where), state.to(where))).tanh().square().mean()
        loss.backward()
        torch.optim.Adam(net.parameters(), lr=0.1, fused=True).step()
    for ours, theirs in zip(there.parameters(), here.parameters(), strict=True):
        assert ours.device == GPU
        torch.testing.assert_close(ours.grad.cpu(), theirs.grad)
        torch.testing.assert_close(ours.cpu(), theirs)
    assert all(parameter.device == GPU for parameter in copy.deepcopy(there).parameters())


def files(folder: Path) -> None:
    """A tensor is read where it was, or where it is asked for."""
    torch.save(torch.ones(3, device=GPU), folder / "x.pt")
    assert torch.load(folder / "x.pt", weights_only=True).device == GPU
    assert torch.load(folder / "x.pt", map_location="cpu", weights_only=True).device.type == "cpu"


# -------------------------------------------------------------------------------------------- marl_td
def all_there(data: TensorDictBase, what: str) -> None:
    """Every tensor of ``data`` must be on the device."""
    elsewhere = {key: value.device for key, value in data.items(True, True) if value.device != GPU}
    assert data.device == GPU and not elsewhere, f"{what}: {data.device}, {elsewhere}"


def task(variant: Variant) -> None:
    """It is made into an environment, and two steps stay on the device."""
    settings = VARIANTS.get(variant.task, {"": {}})[variant.settings]
    env = make_env(variant.task, 3, device="cuda", continuous=variant.continuous, **settings)
    all_there(env.rollout(2), "rollout")
    assert {part.device for part in env.state} == {GPU}
    specs = env.output_spec.values(True, True)
    assert {spec.device for spec in specs} == {GPU}


class Watch(Callback):
    """Looks where batches, replayed data and parameters are."""

    n_batches = n_updates = 0

    def on_batch_collected(self, batch: TensorDictBase) -> None:
        self.n_batches += 1
        all_there(batch, "batch")

    def on_train_step(self, batch: TensorDictBase, group: str) -> None:
        self.n_updates += 1
        all_there(batch, "minibatch")


def training(name: str, folder: Path) -> None:
    """A run is trained and evaluated there."""
    watch = Watch()
    left_out = ("model.num_cells",) if name.endswith("gru") else ()  # a setting that it lacks
    experiment = short_experiment(
        folder / name, *RUNS[name], *ON_GPU, callbacks=[watch], without=left_out
    )
    experiment.run()
    assert watch.n_batches == 3 and watch.n_updates > 0
    for loss in experiment.losses.values():
        assert {tensor.device for tensor in (*loss.parameters(), *loss.buffers())} == {GPU}
    for buffer in experiment.replay_buffers.values():
        all_there(buffer[:], "replay")
    assert experiment.test_env.device.type == "cuda"


def checks(folder: Path) -> dict[str, Callable[[], None]]:
    """Name to check. Those of the device itself are first: if one fails, so may all that follow."""
    itself = (mixing_devices, random_numbers, waiting, learning)
    return {
        **{check.__name__: check for check in itself},
        "files": functools.partial(files, folder),
        **{f"task {variant}": functools.partial(task, variant) for variant in ALL},
        **{f"training {name}": functools.partial(training, name, folder) for name in RUNS},
    }


def main(folder: Path) -> None:
    """Run all checks."""
    found = {}
    for name, check in checks(folder).items():
        try:
            check()
            found[name] = ""
        except Exception:
            found[name] = traceback.format_exc()
    (folder / "checks.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
