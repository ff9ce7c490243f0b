"""Where replayed data is kept."""

from types import SimpleNamespace

import pytest
import torch
from short_runs import short_experiment

from marl_td.tasks import make_env
from marl_td.training.buffer_place import buffer_device, row_bytes

N_ROWS = 1000


def config(device: str, place: str = "auto") -> SimpleNamespace:
    return SimpleNamespace(
        buffer_device=place, train_device=device, replay_buffer_memory_size=lambda on_policy: N_ROWS
    )


def test_a_row_is_counted_with_what_follows_it():
    env = make_env("matrix_game", n_envs=7)
    leaves = env.rollout(1).values(include_nested=True, leaves_only=True)
    assert row_bytes(env) == sum(leaf[0, 0].numel() * leaf.element_size() for leaf in leaves)
    assert row_bytes(make_env("matrix_game", n_envs=1)) == row_bytes(env)


@pytest.mark.parametrize(("spare", "expected"), [(0, "cuda:0"), (-1, "cpu")])
def test_auto_is_the_training_device_while_it_takes_half_of_what_is_free(
    monkeypatch, spare, expected
):
    env = make_env("matrix_game", n_envs=2)
    free = 2 * 3 * N_ROWS * row_bytes(env) + spare
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    assert buffer_device(config("cuda:0"), env, 3, on_policy=False) == expected


def test_on_a_cpu_auto_is_the_cpu_and_other_settings_stay():
    env = make_env("matrix_game", n_envs=2)
    assert buffer_device(config("cpu"), env, 1, on_policy=False) == "cpu"
    assert buffer_device(config("cuda", "disk"), env, 1, on_policy=False) == "disk"


def test_a_run_settles_it_and_its_file_still_says_auto(tmp_path):
    experiment = short_experiment(tmp_path / "run")
    assert experiment.replay_buffers["agents"].storage.device == torch.device("cpu")
    assert "buffer_device: auto" in (tmp_path / "run" / "config.yaml").read_text()
    experiment.close()
