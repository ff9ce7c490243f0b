"""Settings to YAML and back, without running what the file says."""

import re
import sys
import types
import warnings
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from benchmarl.experiment import Experiment as BenchmarlExperiment
from benchmarl.models.common import SequenceModelConfig
from benchmarl.models.mlp import MlpConfig
from own_names import forgotten
from short_runs import SHORT
from torch import nn

from marl_td.algorithms.qmix import QmixConfig
from marl_td.extend import register_algorithm, register_model
from marl_td.models.gru import StatefulGruConfig
from marl_td.training.check import check_experiment, check_model
from marl_td.training.compose import compose
from marl_td.training.config import RunConfig
from marl_td.training.experiment import Experiment
from marl_td.training.settings import RunSettings
from marl_td.training.settings_file import layer_class


@pytest.fixture(scope="module")
def settings():
    return compose([*SHORT, "experiment.lr=0.125", "task.repeats=2"])


def test_a_round_trip_changes_nothing(settings, tmp_path):
    settings.experiment_config.save_folder = str(tmp_path)
    settings.save(tmp_path / "one.yaml")
    loaded = RunSettings.load(tmp_path / "one.yaml")
    loaded.save(tmp_path / "two.yaml")
    assert (tmp_path / "one.yaml").read_text() == (tmp_path / "two.yaml").read_text()
    assert isinstance(loaded.algorithm_config, QmixConfig)
    assert loaded.experiment_config.lr == 0.125
    assert loaded.task_config.config["repeats"] == 2
    assert loaded.model_config == settings.model_config
    assert loaded.model_config.activation_class is nn.Tanh
    assert loaded.experiment_config.save_folder is None  # a copied folder does not point back


def test_models_in_sequence_survive(settings, tmp_path):
    layer = settings.model_config
    both = SequenceModelConfig(model_configs=[layer, layer], intermediate_sizes=[4])
    sequence = RunSettings(**{**vars(settings), "model_config": both})
    sequence.save(tmp_path / "config.yaml")
    loaded = RunSettings.load(tmp_path / "config.yaml").model_config
    assert loaded.model_configs == [layer, layer]
    assert list(loaded.intermediate_sizes) == [4]


class Colour(str, Enum):
    RED = "r"
    BLUE = "b"


@dataclass
class ColourfulConfig(QmixConfig):
    colour: Colour = Colour.RED
    level: Colour | None = None
    made: int = field(init=False)

    def __post_init__(self):
        super().__post_init__()
        self.made = 3


@dataclass
class ColourfulModel(StatefulGruConfig):
    made: int = field(init=False, default=4)


@dataclass
class HidingModel(MlpConfig):
    hidden: "Unknown" = None  # noqa: F821


@dataclass
class HidingRun(RunConfig):
    colour: Colour = Colour.RED
    hidden: "Unknown" = None  # noqa: F821


def test_members_and_what_a_class_makes_itself_survive(settings, tmp_path):
    with forgotten():
        register_algorithm("acme/colourful", ColourfulConfig)
        register_model("acme/colourful", ColourfulModel)
        chosen = ["algorithm=acme/colourful", "algorithm.colour=BLUE", "algorithm.level=RED"]
        own = replace(compose([SHORT[1], *chosen]), model_config=ColourfulModel())
        assert own.algorithm_config.colour is Colour.BLUE
        own.save(tmp_path / "config.yaml")
        loaded = RunSettings.load(tmp_path / "config.yaml")
        assert loaded.algorithm_config == own.algorithm_config
        assert loaded.algorithm_config.level is Colour.RED
        assert loaded.model_config == own.model_config


def test_members_in_files_of_classes_that_do_not_check_themselves(tmp_path):
    (tmp_path / "own.yaml").write_text("colour: BLUE\n")
    assert HidingRun.get_from_yaml(str(tmp_path / "own.yaml")).colour is Colour.BLUE
    (tmp_path / "own.yaml").write_text("colour: b\n")
    with pytest.raises(ValueError, match=r"own\.yaml': colour must be one of RED, BLUE; got 'b'"):
        HidingRun.get_from_yaml(str(tmp_path / "own.yaml"))


def test_annotations_that_cannot_be_read_keep_no_other_from_being_checked(settings):
    config = HidingRun(**vars(settings.experiment_config))
    check_experiment(config)
    config.lr = "fast"
    with pytest.raises(ValueError, match=r"experiment\.lr must be a number; got 'fast'"):
        check_experiment(config)
    model = HidingModel(**{**vars(settings.model_config), "num_cells": [0]})
    with pytest.raises(ValueError, match=r"model\.num_cells must be a list of sizes above 0"):
        check_model("model", model)


@dataclass
class AnyConfig(QmixConfig):
    anything: Any = None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"abc", r"algorithm\.anything is bytes, b'abc', which the settings file .*; make it text"),
        ({"a": [1, {2}]}, r"algorithm\.anything\.a\.1 is a set, \{2\}, which .*; make it a list"),
        (frozenset({3}), r"algorithm\.anything is a set, frozenset\(\{3\}\), which"),
    ],
)
def test_what_would_be_read_back_as_another_thing_is_refused_before_anything_is_written(
    value, message, tmp_path
):
    settings = compose(list(SHORT))
    settings.algorithm_config = AnyConfig(anything=value)
    settings.experiment_config.save_folder = str(tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        Experiment(**settings.arguments())
    assert not (tmp_path / "run").exists()


def test_places_of_the_others_in_that_message(settings):
    layer = replace(settings.model_config, activation_kwargs={"a": b""})
    sequence = SequenceModelConfig(model_configs=[layer], intermediate_sizes=[])
    for model, place in ((layer, "model"), (sequence, r"model\.layers\.l1")):
        with pytest.raises(ValueError, match=rf"^{place}\.activation_kwargs\.a is bytes"):
            replace(settings, model_config=model).as_yaml()
    with pytest.raises(ValueError, match=r"^experiment\.wandb_extra_kwargs\.x is a set"):
        config = replace(settings.experiment_config, wandb_extra_kwargs={"x": {1}})
        replace(settings, experiment_config=config).as_yaml()


def test_numbers_and_arrays_of_others_are_read_back_as_python_s(settings, tmp_path):
    config = replace(settings.experiment_config, lr=np.float64(0.25))
    config.adam_extra_kwargs = {"betas": np.array([0.5, 0.75]), "weight_decay": torch.tensor(0.5)}
    path = tmp_path / "config.yaml"
    replace(settings, experiment_config=config).save(path)
    loaded = RunSettings.load(path).experiment_config
    assert loaded.lr == 0.25
    assert loaded.adam_extra_kwargs == {"betas": [0.5, 0.75], "weight_decay": 0.5}


def changed(settings, tmp_path, change):
    """A settings file after ``change(data)``."""
    path = tmp_path / "config.yaml"
    settings.save(path)
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d: d.pop("seed"), "lacks seed"),
        (
            lambda d: d.update(algorithm="marl_td/qmxi"),
            "algorithm 'marl_td/qmxi', which is in no registry",
        ),
        (lambda d: d.update(task="mine/pricing"), "task 'mine/pricing', which is in no registry"),
        (
            lambda d: d["algorithm_config"].update(lamda=1),
            "sets 'lamda', which QmixConfig does not have",
        ),
        (
            lambda d: d["task_config"].update(repeats="two"),
            r"config.yaml': repeats must be a whole number; got 'two'",
        ),
        (lambda d: d["task_config"].update(repeat=2), r"config.yaml' sets 'repeat', which Matrix"),
        (lambda d: d["experiment_config"].update(lrr=1), r"sets 'lrr'.*Did you mean 'lr'"),
        (lambda d: d["model_config"].update(name="cnnn"), "model 'cnnn', which is in no registry"),
        (
            lambda d: d["model_config"].update(activation_class="subprocess.getoutput"),
            r"classes must be layers of torch\.nn or torch_geometric\.nn; got 'subprocess.getoutput'",
        ),
    ],
)
def test_a_wrong_file_is_refused(settings, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        RunSettings.load(changed(settings, tmp_path, change))


def test_no_file_and_no_yaml(tmp_path):
    with pytest.raises(ValueError, match=r"is not a run folder: it has no config\.yaml"):
        RunSettings.load(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(ValueError, match="not YAML that can be read safely"):
        RunSettings.load(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("just text")
    with pytest.raises(ValueError, match="lacks algorithm"):
        RunSettings.load(tmp_path / "config.yaml")


@pytest.mark.parametrize("name", ["torch.nn.Tanh", "torch.nn.modules.linear.Linear"])
def test_layers_are_found(name):
    assert issubclass(layer_class(name), nn.Module)


def test_layers_of_graphs_are_found_where_their_package_is(monkeypatch):
    name = "torch_geometric.nn.conv.GraphConv"
    for module in ("torch_geometric", "torch_geometric.nn"):
        monkeypatch.setitem(sys.modules, module, None)  # not installed
    with pytest.raises(
        ValueError, match=f"the model's class '{name}' needs a package: .*geometric"
    ):
        layer_class(name)
    package = types.ModuleType("torch_geometric.nn")
    package.conv = types.SimpleNamespace(GraphConv=nn.Bilinear, load=print)
    monkeypatch.setitem(sys.modules, "torch_geometric", types.ModuleType("torch_geometric"))
    monkeypatch.setitem(sys.modules, "torch_geometric.nn", package)
    assert layer_class(name) is nn.Bilinear
    with pytest.raises(
        ValueError, match=r"must be layers of torch\.nn or torch_geometric\.nn; got"
    ):
        layer_class("torch_geometric.nn.conv.load")


@pytest.mark.parametrize(
    "name",
    ["os.system", "torch.nn.functional.relu", "torch.nn.init", "torch.load", "torch.nn.", ""],
)
def test_what_is_no_layer_is_refused(name):
    with pytest.raises(ValueError, match=r"must be layers of torch\.nn"):
        layer_class(name)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, None),
        ({"lr_end": 0.5, "compile": "on"}, r"experiment.lr_end, experiment.compile has no effect"),
    ],
)
def test_benchmarl_s_own_experiment_says_which_settings_it_ignores(tmp_path, settings, named):
    arguments = compose([*SHORT, *(f"experiment.{k}={v}" for k, v in settings.items())]).arguments()
    arguments["config"].save_folder = str(tmp_path)
    assert arguments["config"].unused() == list(settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        BenchmarlExperiment(**arguments).close()
    found = [str(w.message) for w in caught if "has no effect" in str(w.message)]
    assert len(found) == (named is not None)
    assert named is None or re.match(named, found[0])
