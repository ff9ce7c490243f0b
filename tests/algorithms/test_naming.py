"""The names of our algorithms in BenchMARL's results: their own, whatever BenchMARL's are called."""

import json
from dataclasses import dataclass

import pytest
from benchmarl.algorithms import algorithm_config_registry
from benchmarl_runs import IGNORED
from own_names import forgotten
from short_runs import short_experiment

from marl_td.algorithms.mappo import MappoConfig
from marl_td.algorithms.naming import named, result_name
from marl_td.algorithms.vdn import Vdn, VdnConfig
from marl_td.extend import register_algorithm
from marl_td.registry import ALGORITHMS, algorithm_config
from marl_td.training.experiment import Experiment

pytestmark = IGNORED


@pytest.mark.parametrize("registered", [True, False])
def test_ours_are_those_of_the_registry_with_it_and_without(registered, monkeypatch):
    names = {name: result_name(algorithm_config(name)) for name in ALGORITHMS}
    if not registered:
        for name in list(algorithm_config_registry):
            monkeypatch.delitem(algorithm_config_registry, name)
        assert names == {name: result_name(algorithm_config(name)) for name in ALGORITHMS}
    assert names == {name: f"marl_td_{name}" for name in ALGORITHMS}


def test_none_is_one_of_benchmarls():
    theirs = {
        config.associated_class().__name__.lower()
        for name, config in algorithm_config_registry.items()
        if "/" not in name
    }
    ours = {algorithm_config(name).associated_class().__name__.lower() for name in ALGORITHMS}
    assert len(ours) == len(ALGORITHMS)
    assert "mappo" in theirs and not ours & theirs


@dataclass
class QuickVdn2Config(VdnConfig):
    """VDN, in another module."""


def test_variants_of_users_are_told_from_what_they_extend():
    assert QuickVdn2Config.associated_class().__name__ == "own_quick_vdn2"
    with forgotten():
        register_algorithm("acme/quick", QuickVdn2Config)
        found = QuickVdn2Config.associated_class()
        assert found.__name__ == "acme_quick"
    assert issubclass(found, Vdn) and found.__doc__ == Vdn.__doc__
    assert found is named(Vdn, "acme_quick")
    assert VdnConfig.associated_class().__name__ == "marl_td_vdn"


def test_folders_keep_the_short_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = short_experiment(tmp_path / "first", "seed=3")
    settings = experiment.config
    settings.save_folder = None
    arguments = {
        "task": experiment.task,
        "algorithm_config": experiment.algorithm_config,
        "model_config": experiment.model_config,
        "critic_model_config": experiment.critic_model_config,
        "seed": 3,
        "config": settings,
    }
    experiment.close()
    again = Experiment(**arguments)
    again.close()
    assert again.algorithm_name == "marl_td_qmix"
    assert str(again.folder_name) == "qmix_matrix_game_3"


def test_a_run_of_an_older_version_keeps_its_evaluations(tmp_path):
    folder, options = tmp_path / "run", ("experiment.create_json=true",)
    short_experiment(folder, *options, "experiment.max_n_frames=40").run()
    data = json.loads((folder / "run.json").read_text())
    (runs,) = data["marl_td"]["matrix_game"].values()
    data["marl_td"]["matrix_game"] = {"qmix": runs}
    (folder / "run.json").write_text(json.dumps(data))
    Experiment.resume(folder, {"max_n_frames": 60}).run()
    names = json.loads((folder / "run.json").read_text())["marl_td"]["matrix_game"]
    assert list(names) == ["marl_td_qmix"]
    before, after = runs["seed_0"], names["marl_td_qmix"]["seed_0"]
    steps = before.keys() - {"absolute_metrics"}
    assert steps and {name: after[name] for name in steps} == {name: before[name] for name in steps}


def test_an_algorithm_is_still_an_instance_of_its_own_class(small_experiment):
    from marl_td.algorithms.mappo import Mappo
    from marl_td.benchmarl_tasks import MarlTdTask

    experiment = small_experiment(MappoConfig(), MarlTdTask.MATRIX_GAME.get_from_yaml())
    assert type(experiment.algorithm) is Mappo
    assert experiment.name.startswith("marl_td_mappo_matrix_game_mlp_")
    experiment.close()
