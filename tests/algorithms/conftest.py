"""What the algorithms' tests share."""

from collections.abc import Callable
from functools import partial

import pytest
from benchmarl.experiment import Experiment
from benchmarl_runs import small_run


@pytest.fixture
def small_experiment(tmp_path) -> Callable[..., Experiment]:
    """``small_experiment(algorithm_config, task, model=..., callbacks=[...], **experiment_settings)``."""
    return partial(small_run, tmp_path)
