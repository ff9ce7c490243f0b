"""Settings of our experiment from Python: its own defaults, and the checks that the command line has."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarl.models.common import SequenceModelConfig
from benchmarl.models.mlp import MlpConfig
from short_runs import short_experiment

from marl_td.algorithms.ensemble import EnsembleConfig
from marl_td.algorithms.mappo import MappoConfig
from marl_td.training import extras
from marl_td.training.check import check_algorithm, check_model, check_settings
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


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("experiment_config", "lr", "0.1", r"experiment\.lr must be a number; got '0\.1'"),
        ("experiment_config", "render", "no", r"experiment\.render must be true or false; got 'no'"),
        ("experiment_config", "loggers", "csv", r"experiment\.loggers must be a list of texts; got 'c"),
        ("experiment_config", "keep_checkpoints_num", "3", r"experiment\.keep_checkpoints_num must be"),
        ("model_config", "num_cells", "64", r"model\.num_cells must be a list of sizes .*; got '64'\."),
        ("model_config", "activation_kwargs", 3, r"model\.activation_kwargs must be a mapping or nul"),
        ("critic_model_config", "num_cells", ["64"], r"critic_model\.num_cells must be a list of sizes"),
        ("critic_model_config", "num_feature_dims", "1", r"critic_model\.num_feature_dims must be a wh"),
        ("algorithm_config", "chunk_length", "5", r"algorithm\.chunk_length must be a whole number; g"),
    ],
)  # fmt: skip
def test_types_of_what_was_assigned_from_python(part, field, value, message, tmp_path):
    settings = compose(["algorithm=marl_td/mappo", "task=marl_td/matrix_game"])
    setattr(getattr(settings, part), field, value)
    settings.experiment_config.save_folder = str(tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        Experiment(**settings.arguments())
    assert not (tmp_path / "run").exists()


@dataclass
class LooseModel(MlpConfig):
    width: int = None  # what an author leaves at a default of another type is not ours to refuse


def test_what_is_of_no_type_of_files_but_usual_in_python_may_be_assigned():
    settings = compose(["algorithm=marl_td/mappo", "task=marl_td/matrix_game"])
    config = settings.experiment_config
    config.save_folder, config.train_device = Path("run"), torch.device("cpu")
    config.lr, config.max_n_frames, config.loggers = np.float32(0.5), np.int64(60), ("csv",)
    settings.model_config = LooseModel(**vars(settings.model_config))
    settings.model_config.num_cells = (8, 8)
    check_settings(settings)
    settings.model_config.width = "8"
    with pytest.raises(ValueError, match=r"^model\.width must be a whole number; got '8'"):
        check_settings(settings)


def test_layers_and_the_algorithms_of_an_ensemble_are_checked_too():
    layer = MlpConfig.get_from_yaml()
    layer.num_cells = "64"
    sequence = SequenceModelConfig(model_configs=[layer], intermediate_sizes=[])
    with pytest.raises(ValueError, match=r"^model\.layers\.l1\.num_cells must be a list"):
        check_model("model", sequence)
    layer.num_cells, sequence.intermediate_sizes = [64], "4"
    with pytest.raises(ValueError, match=r"^model\.intermediate_sizes must be a list of whole"):
        check_model("model", sequence)
    config = MappoConfig()
    config.clip_epsilon = "0.2"
    with pytest.raises(ValueError, match=r"^algorithm\.red\.clip_epsilon must be a number"):
        check_algorithm(EnsembleConfig({"red": config, "blue": MappoConfig()}))


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
