"""What several files of commands need."""

import pytest
from short_runs import SHORT

from marl_td.cli import main


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a finished run with checkpoints; for reading, or to copy."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    settings = [*SHORT, "experiment.checkpoint_interval=20"]
    assert main(["train", "--out", str(folder), "--no-report", "--no-progress", *settings]) == 0
    return folder
