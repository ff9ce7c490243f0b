"""Buffers with fewer places than a collected batch has steps."""

import pytest
import torch
from benchmarl.experiment.callback import Callback
from short_runs import short_experiment


class Actions(Callback):
    """Keeps the actions of the batch."""

    def on_batch_collected(self, batch):
        self.actions = batch["agents", "action"].clone()


@pytest.mark.filterwarnings("ignore:.* is not exactly divisible:UserWarning")
@pytest.mark.filterwarnings("ignore:.*15 is less than the 20 steps that are collected:UserWarning")
@pytest.mark.parametrize(
    "settings",
    [
        ("experiment.off_policy_memory_size=15",),
        (
            "algorithm=ippo",  # BenchMARL's own, whose buffer has 15 places
            "experiment.on_policy_n_envs_per_worker=10",
            "experiment.on_policy_collected_frames_per_batch=15",
            "experiment.on_policy_minibatch_size=5",
        ),
    ],
    ids=["off_policy", "benchmarl"],
)
def test_a_batch_above_the_buffer_s_places(tmp_path, settings):
    """Its last steps are kept, whatever the number of threads: none is written over another."""
    seen = Actions()
    once = "experiment.max_n_frames=20"
    experiment = short_experiment(tmp_path / "run", once, *settings, callbacks=[seen])
    written = []
    storage = experiment.replay_buffers["agents"].storage
    set_rows = storage.set

    def recorded(cursor, *args, **kwargs):
        written.append(cursor.tolist())
        return set_rows(cursor, *args, **kwargs)

    storage.set = recorded
    experiment.run()
    assert written == [list(range(15))]
    assert torch.equal(
        storage["agents", "action"].reshape(15, -1), seen.actions.reshape(20, -1)[-15:]
    )
