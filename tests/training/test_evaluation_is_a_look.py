"""The same run with and without evaluation, rendering, logging and checkpoints has identical parameters."""

import pytest
import torch
from benchmarl.experiment.callback import Callback
from survival import BALANCE, GRU, VMAS, case, experiment_of

from marl_td.training.snapshot import named_tensors

pytestmark = [
    pytest.mark.filterwarnings("ignore:The default behavior of TransformedEnv:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:vmas"),
]


class Look(Callback):
    """Looks at whole rollouts, so that evaluation keeps them, and draws random numbers as it likes."""

    def on_evaluation_end(self, rollouts):
        assert len(rollouts) == 2


BARE = {"experiment.evaluation": "false", "experiment.checkpoint_interval": "0"}
BARE |= {"experiment.create_json": "false", "experiment.checkpoint_at_end": "false"}
OFTEN = {"experiment.evaluation_interval": "18", "experiment.loggers": "[csv]"}
WAYS = {
    "evaluated": (OFTEN, ()),
    "static": ({**OFTEN, "experiment.evaluation_static": "true"}, ()),
    "rendered": ({**OFTEN, "experiment.render": "true"}, (Look,)),
}


def learned(overrides, folder, callbacks=()):
    experiment = experiment_of(overrides, folder, [callback() for callback in callbacks])
    experiment.run()
    return {name: tensor.clone() for name, tensor in named_tensors(experiment).items()}


@pytest.mark.filterwarnings("ignore:experiment.render=true has no effect in training")
@pytest.mark.parametrize(
    ("algorithm", "changes", "ways"),
    [
        ("qmix", {}, ["evaluated", "rendered"]),
        ("maddpg", BALANCE, ["evaluated"]),
        pytest.param("masac", VMAS, list(WAYS), marks=pytest.mark.slow),
        pytest.param("mappo", GRU, list(WAYS), marks=pytest.mark.slow),
    ],
    ids=["our task", "benchmarl's vmas", "vmas", "recurrent"],
)
def test_nobody_can_tell_from_the_parameters(tmp_path, algorithm, changes, ways):
    bare = learned(case(algorithm, x={**changes, **BARE}), tmp_path / "bare")
    for name in ways:
        settings, callbacks = WAYS[name]
        overrides = case(algorithm, x={**changes, **settings})
        found = learned(overrides, tmp_path / name, callbacks)
        assert found.keys() == bare.keys()
        assert all(torch.equal(found[key], bare[key]) for key in bare), name
