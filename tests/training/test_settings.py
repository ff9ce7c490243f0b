"""Settings to YAML and back, without running what the file says."""

import re
import warnings

import pytest
import yaml
from benchmarl.experiment import Experiment as BenchmarlExperiment
from short_runs import SHORT
from torch import nn

from marl_td.algorithms.qmix import QmixConfig
from marl_td.training.compose import compose
from marl_td.training.settings import RunSettings, layer_class


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
    from benchmarl.models.common import SequenceModelConfig

    layer = settings.model_config
    both = SequenceModelConfig(model_configs=[layer, layer], intermediate_sizes=[4])
    sequence = RunSettings(**{**vars(settings), "model_config": both})
    sequence.save(tmp_path / "config.yaml")
    loaded = RunSettings.load(tmp_path / "config.yaml").model_config
    assert loaded.model_configs == [layer, layer]
    assert list(loaded.intermediate_sizes) == [4]


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
            r"classes must be layers of torch\.nn; got 'subprocess.getoutput'",
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
