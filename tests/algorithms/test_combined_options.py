"""Options of the value-based family together: what each does is tested by itself elsewhere."""

import pytest
from benchmarl_runs import IGNORED, STATEFUL, Metrics
from discrete_teams import teams_task

from marl_td.registry import algorithm_config

pytestmark = IGNORED

CASES = {
    "windows, dueling": (
        {"sequence": "window", "window_length": 3, "burn_in": 2, "dueling": True},
        {"model": STATEFUL},
    ),
    "n steps, Boltzmann, per agent": (
        {"n_steps": 3, "exploration": "boltzmann"},
        {"model": STATEFUL, "share_policy_params": False},
    ),
    "corrected lambda-returns by priority, told who and what": (
        {"lmbda": 0.5, "q_lambda": "corrected", "last_action": True, "agent_id": True},
        {"off_policy_use_prioritized_replay_buffer": True},
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["iql", "qmix", "ow_qmix", "qtran_alt", "shaq", "roma"])
def test_two_iterations(case, name, small_experiment):
    """Two groups, masks, deaths: every parameter moves, every metric is finite."""
    options, settings = CASES[case]
    metrics = Metrics()
    experiment = small_experiment(
        algorithm_config(name)(**options),
        teams_task(mortal=True, max_steps=7),
        callbacks=[metrics],
        lr=1e-3,
        **settings,
    )
    before = {
        group: {key: value.clone() for key, value in loss.named_parameters()}
        for group, loss in experiment.losses.items()
    }
    experiment.run()
    for group, loss in experiment.losses.items():
        trained = {id(p) for nets in loss.networks().values() for n in nets for p in n.parameters()}
        still = [
            key
            for key, value in loss.named_parameters()
            if id(value) in trained and bool((value == before[group][key]).all())
        ]
        # ROMA's dissimilarities are scaled to [0, 1]: their network's last layer may get no gradient.
        assert [key for key in still if not key.startswith("dissimilarity.out")] == []
    assert {group for group, _ in metrics.seen} == {"red", "blue"}
    for _, values in metrics.seen:
        assert all(value.isfinite().all() for value in values.values())
