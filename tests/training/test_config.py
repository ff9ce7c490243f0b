"""Settings of our experiment from Python: its own defaults, and the checks that the command line has."""

from dataclasses import dataclass

import pytest
from short_runs import short_experiment

from marl_td.training import extras
from marl_td.training.compose import compose
from marl_td.training.config import RunConfig
from marl_td.training.experiment import Experiment
from marl_td.training.trained import load_run


def test_defaults_are_those_of_the_command_line():
    chosen = ["algorithm=marl_td/mappo", "task=marl_td/matrix_game"]
    assert RunConfig.get_from_yaml() == compose(chosen).experiment_config


def test_a_file_changes_what_it_names_and_no_more(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("lr: 0.1\ncompile: 'off'\nmax_n_frames: 300\n")
    config = RunConfig.get_from_yaml(str(path))
    assert (config.lr, config.compile, config.max_n_frames) == (0.1, "off", 300)
    config.lr, config.compile, config.max_n_frames = 0.0005, "auto", 600_000
    assert config == RunConfig.get_from_yaml()


@dataclass
class WarmConfig(RunConfig):
    warm_up: int = 3


def test_a_class_that_extends_it_is_what_is_made(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("warm_up: 5\n")
    assert WarmConfig.get_from_yaml(str(path)) == WarmConfig(
        **vars(RunConfig.get_from_yaml()), warm_up=5
    )
    assert type(WarmConfig.get_from_yaml()) is WarmConfig


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: 1e-4", "lr must be a number; got '1e-4'. In a YAML file that is text: write 1.0e-4."),
        ("lrr: 0.1", "own.yaml' sets 'lrr', which RunConfig does not have. Did you mean 'lr'"),
        ("lr: fast", "own.yaml': lr must be a number; got 'fast'"),
        ("lr_end: 2", "experiment.lr_end must lie in [0, 1]; got 2"),
    ],
)
def test_a_file_that_cannot_be(text, message, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        RunConfig.get_from_yaml(str(path))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": "fast"}, r"experiment\.lr must be a number; got 'fast'"),
        ({"max_n_frames": 1e5}, r"experiment\.max_n_frames must be a whole number.*got 100000\.0"),
        ({"loggers": ["tensrboard"]}, "no logger 'tensrboard'.*Did you mean 'tensorboard'"),
    ],
)
def test_what_cannot_be_is_refused_from_python_and_writes_nothing(change, message, tmp_path):
    settings = compose(["algorithm=marl_td/mappo", "task=marl_td/matrix_game"])
    for name, value in change.items():
        setattr(settings.experiment_config, name, value)
    settings.experiment_config.save_folder = str(tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        Experiment(**settings.arguments())
    assert not (tmp_path / "run").exists()


def test_a_mapping_that_there_is_not_is_refused_from_python(tmp_path):
    settings = compose(["algorithm=marl_td/mappo", "task=marl_td/banking"])
    settings.algorithm_config.scale_mapping = "foo"
    settings.experiment_config.save_folder = str(tmp_path / "run")
    with pytest.raises(ValueError, match=r"algorithm\.scale_mapping: there is no mapping 'foo'"):
        Experiment(**settings.arguments())
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_made_shorter_from_python(tmp_path):
    folder = tmp_path / "run"
    short_experiment(folder, "experiment.max_n_frames=40").run()
    before = sorted(folder.rglob("*"))
    with pytest.raises(ValueError, match=f"'{folder}' already has 40 frames, more than .*=20"):
        Experiment.resume(folder, {"max_n_frames": 20})
    assert sorted(folder.rglob("*")) == before
    assert Experiment.resume(folder, {"max_n_frames": 40}).total_frames == 40


def test_a_run_is_read_without_the_tracker_that_it_was_trained_with(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    short_experiment(folder, "experiment.max_n_frames=20").run()
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("loggers: []", "loggers: [wandb]"))
    installed = extras.is_installed
    monkeypatch.setattr(extras, "is_installed", lambda name: name != "wandb" and installed(name))
    assert load_run(folder, 2).settings.experiment_config.loggers == ["wandb"]
    with pytest.raises(ImportError, match=r"'wandb' needs the package .* 'marl-td\[track\]'"):
        Experiment.resume(folder)
    assert Experiment.resume(folder, {"loggers": []}).total_frames == 20
