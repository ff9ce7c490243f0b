"""Recurrent critics beside agents without a memory, with replay: their rows tell where episodes begin."""

import copy

import pytest
import torch
from benchmarl_runs import IGNORED, STATEFUL, THEIR_GRU
from toy_games import recall_task

from marl_td.algorithms.facmac import FacmacConfig
from marl_td.algorithms.hasac import HasacConfig
from marl_td.algorithms.iddpg import IddpgConfig
from marl_td.algorithms.isac import IsacConfig
from marl_td.algorithms.maddpg import MaddpgConfig
from marl_td.algorithms.masac import MasacConfig
from marl_td.algorithms.matd3 import Matd3Config

pytestmark = IGNORED


CRITIC_ALGORITHMS = [
    FacmacConfig,
    HasacConfig,
    IddpgConfig,
    IsacConfig,
    MaddpgConfig,
    MasacConfig,
    Matd3Config,
]


@pytest.mark.parametrize("config", CRITIC_ALGORITHMS)
@pytest.mark.parametrize("model", [STATEFUL, THEIR_GRU], ids=["ours", "theirs"])
def test_rows_tell_where_episodes_begin(config, model, small_experiment):
    experiment = small_experiment(config(), recall_task(), critic_model=copy.deepcopy(model))
    experiment.run()
    rows = experiment.replay_buffers["agents"][:]
    assert rows.ndim == 2
    begins, done = rows["is_init"], rows["next", "done"]
    assert done[:, :-1].any()  # episodes end inside of rows
    assert torch.equal(begins[:, 1:], done[:, :-1])


def test_a_row_goes_on_where_the_last_one_ended(small_experiment):
    experiment = small_experiment(MaddpgConfig(), recall_task(), critic_model=STATEFUL)
    batch = next(iter(experiment.collector))
    group = "agents"
    first = experiment.algorithm.process_batch(group, batch.clone())
    assert first["is_init"][:, 0].all()
    batch["next", "done"][:, -1] = False
    batch["next", "done"][0, -1] = True
    experiment.algorithm.process_batch(group, batch.clone())
    second = experiment.algorithm.process_batch(group, batch.clone())
    assert second["is_init"][:, 0].squeeze(-1).tolist() == [True] + [False] * (len(batch) - 1)
    experiment.close()
