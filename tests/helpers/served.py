"""Bundles for tests of the server: of policies that were hardly trained, which is all the same to it."""

from pathlib import Path

from short_runs import short_experiment

from marl_td.deploy.export import export_run

OWN = "{scope: own, weights: {agents: [1, 1]}, limit: 0.3}"
JOINT = "{scope: joint, weights: {agents: [1, 0]}, limit: 0.5}"
CONTINUOUS = ("algorithm=marl_td/iddpg", "task=marl_td/retail", "task.max_steps=5")
DISCRETE = ("algorithm=marl_td/ippo", "task=marl_td/levers", "task.max_steps=3")
RECURRENT = (
    "algorithm=marl_td/iql",
    "task=marl_td/recall",
    "model=layers/marl_td/gru",
    "model.hidden_size=8",
    "experiment.off_policy_train_batch_size=4",
)


def bundle_of(folder: Path, *overrides: str, without=()) -> Path:
    """Train for an iteration or two, and export."""
    experiment = short_experiment(
        folder / "run",
        "experiment.compile=off",
        "experiment.evaluation=false",
        "experiment.max_n_frames=20",
        *overrides,
        without=without,
    )
    experiment.run()
    export_run(folder / "run", folder / "bundle")
    return folder / "bundle"
