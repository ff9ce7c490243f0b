"""From overrides to settings; every wrong override gets one sentence that names it."""

import re

import pytest
from omegaconf import OmegaConf

import marl_td
from marl_td.cli.listing import PRESETS
from marl_td.tasks.registry import TASKS, task_class
from marl_td.training import extras
from marl_td.training.compose import compose, compose_task

GIVEN = {"algorithm": "marl_td/qmix", "task": "marl_td/matrix_game"}


def with_override(override):
    """Overrides that are complete but for the one in question."""
    name = override.partition("=")[0]
    return [f"{key}={value}" for key, value in GIVEN.items() if key != name] + [override]


def test_overrides_reach_their_parts():
    overrides = ["experiment.lr=0.25", "task.repeats=3", "model.num_cells=[7,5]", "seed=4"]
    settings = compose([f"{key}={value}" for key, value in GIVEN.items()] + overrides)
    assert settings.experiment_config.lr == 0.25
    assert settings.task_config.config["repeats"] == 3
    assert settings.model_config.num_cells == [7, 5]
    assert settings.critic_model_config.num_cells != [7, 5]
    assert settings.seed == 4
    assert (settings.algorithm, settings.task) == ("marl_td/qmix", "marl_td/matrix_game")


def test_our_experiment_settings_are_the_default_and_benchmarl_s_can_be_had():
    ours = compose([f"{key}={value}" for key, value in GIVEN.items()])
    assert ours.experiment_config.loggers == []
    assert ours.experiment_config.render is False
    theirs = compose(
        [f"{key}={value}" for key, value in GIVEN.items()] + ["experiment=base_experiment"]
    )
    assert theirs.experiment_config.loggers == ["csv", "wandb"]


def test_a_preset_sets_several_groups_and_the_command_line_wins():
    settings = compose(["preset=retail_maddpg", "experiment.lr=0.5"])
    assert (settings.algorithm, settings.task) == ("marl_td/maddpg", "marl_td/retail")
    assert settings.experiment_config.lr == 0.5
    assert settings.experiment_config.loggers == []


def test_a_level_sets_the_task_beside_a_preset_and_the_command_line_wins():
    settings = compose(["preset=qmix_tuned", "level=pursuit_easy", "task.n_prey=2"])
    assert settings.task == "marl_td/pursuit"
    config = settings.task_config.config
    assert (config["grid_size"], config["penalty"], config["n_prey"]) == (5, 0.0, 2)
    assert compose_task(["level=pursuit_medium"])[1].config["penalty"] == 2.0
    with pytest.raises(ValueError, match=r"no option 'nosuch' for 'level'. Known: .*pursuit_easy"):
        compose(["preset=qmix_tuned", "level=nosuch"])


def test_a_preset_s_task_settings_come_first_then_the_level_s_then_the_command_line_s():
    preset = compose(["preset=traffic_junction_mappo"])
    values = preset.task_config.config
    assert (values["size"], values["n_agents"], values["max_steps"]) == (7, 5, 20)
    hard = compose(["level=traffic_junction_hard", "task.size=21", "preset=traffic_junction_mappo"])
    values = hard.task_config.config
    assert (values["layout"], values["n_agents"], values["max_steps"]) == ("hard", 20, 80)
    assert values["size"] == 21
    # the rest of the preset stays, and what it counts in episodes is of the level's length
    assert hard.algorithm_config == preset.algorithm_config
    assert hard.model_config == preset.model_config
    assert hard.experiment_config.on_policy_collected_frames_per_batch == 320 * 80


def test_a_preset_beside_another_algorithm_says_what_it_sets_in_vain():
    message = "preset 'mapf_mappo' sets 'entropy_coef', which this algorithm"
    with pytest.raises(ValueError, match=message):
        compose(["preset=mapf_mappo", "algorithm=marl_td/pqn_vdn"])
    other = compose(["preset=levers_ippo", "algorithm=marl_td/coma"])
    assert other.algorithm_config.entropy_coef == 0.01


def presets_with_levels():
    """Those of one task (qmix_tuned is for any) that has levels (particle worlds have none)."""
    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    tasks = {name: name.rpartition("_")[0] for name in names}
    return [name for name, task in tasks.items() if task in TASKS and task_class(task).levels]


@pytest.mark.parametrize("preset", presets_with_levels())
def test_every_tuned_preset_takes_a_level_of_its_task(preset):
    task = preset.rpartition("_")[0]
    level, params = list(task_class(task).levels.items())[-1]
    settings = compose([f"preset={preset}", f"level={task}_{level}"])
    assert settings.task == f"marl_td/{task}"
    assert params.items() <= settings.task_config.config.items()


@pytest.mark.parametrize(
    "given, source",
    [
        (["preset=retail_maddpg"], "the task of preset 'retail_maddpg' is 'marl_td/retail'"),
        (["preset=qmix_tuned", "task=vmas/balance"], "the task given is 'vmas/balance'"),
        (["algorithm=marl_td/mappo", "task=marl_td/two_step"], "given is 'marl_td/two_step'"),
    ],
)
def test_a_level_of_another_task_is_refused_by_name(given, source):
    with pytest.raises(ValueError, match=f"level 'pursuit_easy' is one of .*pursuit'.*{source}"):
        compose([*given, "level=pursuit_easy"])


def test_the_task_on_the_command_line_decides_which_levels_fit():
    settings = compose(["preset=retail_maddpg", "task=marl_td/banking", "level=banking_easy"])
    assert settings.task == "marl_td/banking"
    with pytest.raises(ValueError, match=r"level 'pursuit_easy'.*given is 'marl_td/retail'"):
        compose_task(["task=marl_td/retail", "level=pursuit_easy"])


def test_a_preset_counts_in_episodes_of_the_chosen_task():
    settings = compose(["preset=qmix_tuned", "task=marl_td/simple_spread", "task.max_steps=10"])
    config = settings.experiment_config
    assert settings.algorithm == "marl_td/qmix"
    assert settings.algorithm_config.lmbda == 0.6
    assert settings.model_config.hidden_size == 64
    assert config.off_policy_train_batch_size == 128 * 10
    assert config.off_policy_memory_size == 5000 * 10
    assert config.off_policy_collected_frames_per_batch == 8 * 10
    longer = compose(["preset=qmix_tuned", "task=pettingzoo/simple_tag", "task.max_cycles=50"])
    assert longer.experiment_config.off_policy_train_batch_size == 128 * 50


def test_episodes_of_a_task_without_a_time_limit_are_refused():
    marl_td.register()
    settings = OmegaConf.create({"task": {"n_agents": 2}, "size": "${episodes:8}"})
    with pytest.raises(Exception, match=r"no time limit \(max_steps or max_cycles\) to count"):
        _ = settings.size


def test_benchmarl_s_own_algorithms_and_models():
    settings = compose(["algorithm=qmix", "task=marl_td/matrix_game", "model=layers/gru"])
    assert type(settings.model_config).__name__ == "GruConfig"


@pytest.mark.parametrize("name", ["critic_model", "model@critic_model"])
def test_a_critic_s_network_is_chosen_by_name(name):
    needed = ["algorithm=marl_td/mappo", "task=marl_td/matrix_game"]
    settings = compose([*needed, f"{name}=layers/marl_td/gru", "critic_model.hidden_size=7"])
    assert settings.critic_model_config.hidden_size == 7
    assert type(settings.model_config).__name__ == "MlpConfig"
    changed = compose([*needed, "critic_model={num_cells:[3]}"])
    assert changed.critic_model_config.num_cells == [3]


@pytest.mark.parametrize(
    "override, message",
    [
        ("algorithm=qmxi", "unknown algorithm 'qmxi'. Did you mean 'qmix'?"),
        (
            "algorithm=marl_td/mapo",
            "unknown algorithm 'marl_td/mapo'. Did you mean 'marl_td/mappo'",
        ),
        ("algorithm=zzz", "unknown algorithm 'zzz'. `marl-td list algorithms` shows the names."),
        (
            "task=marl_td/retial",
            "unknown task 'marl_td/retial'. Did you mean 'marl_td/retail' or 'marl_td/recall'?",
        ),
        ("experiment.lrr=1", "there is no setting 'experiment.lrr'. Did you mean 'lr'"),
        ("algorithm.mixin=1", "there is no setting 'algorithm.mixin'."),
        ("task.repeat=2", "there is no setting 'task.repeat'. Did you mean 'repeats'?"),
        ("nosuch.x=2", "there is no setting 'nosuch.x'."),
        ("lr=1", "there is no setting 'lr'. Did you mean 'experiment.lr'?"),
        ("lrr=1", "there is no setting 'lrr'. Did you mean 'experiment.lr'?"),
        ("num_cells=[8]", "Did you mean 'model.num_cells' or 'critic_model.num_cells'?"),
        ("repeat=2", "there is no setting 'repeat'. Did you mean 'task.repeats'?"),
        ("zzz=2", "there is no setting 'zzz'. Known: algorithm, critic_model, experiment,"),
        ("experiment.lr=abc", "setting 'experiment.lr': Value 'abc' of type 'str' could not be"),
        ("experiment.max_n_frames=1.5", "setting 'experiment.max_n_frames': Value '1.5'"),
        ("task.repeats=many", "setting 'task.repeats': Value 'many' of type 'str'"),
        ("task.repeats=0", "repeats must be at least 1; got 0."),
        ("experiment.lr=-0.001", "experiment.lr must be above 0; got -0.001."),
        ("experiment.lr_end=2", "experiment.lr_end must lie in [0, 1]; got 2.0."),
        ("experiment.gamma=1.5", "experiment.gamma must lie in [0, 1]; got 1.5."),
        (
            "experiment.evaluation_episodes=0",
            "experiment.evaluation_episodes must be above 0; got 0.",
        ),
        (
            "experiment.train_device=cuda:99",
            "experiment.train_device=cuda:99 cannot be used on this machine: ",
        ),
        ("experiment.sampling_device=gpu", "It has cpu"),
        ("experiment.max_n_frames=null", "are both null; set one of them"),
        (
            "experiment.collect_with_grad=true",
            "experiment.collect_with_grad=true is not offered here",
        ),
        ("model=nosuch", "there is no option 'nosuch' for 'model'. Known: layers/cnn"),
        (
            "critic_model=nosuch",
            "there is no option 'nosuch' for 'critic_model'. Known: layers/cnn",
        ),
        ("model=layers/marl_td/nosuch", "layers/lstm, layers/marl_td/gru, layers/mlp, sequence"),
        ("preset=nosuch", "there is no option 'nosuch' for 'preset'. Known: banking_mappo"),
        (
            "model.num_cells=64",
            "model.num_cells must be a list of sizes above 0 such as [64,64]; got 64.",
        ),
        ("model.num_cells=[0]", "model.num_cells must be a list of sizes above 0"),
        ("seed=abc", "seed must be a whole number of at least 0; got 'abc'."),
        (
            "seed=0,1",
            "'seed=0,1' names several values, but this is one run; start one for each in a",
        ),
        ("algorithm=vdn,qmix", "such as: for algorithm in vdn qmix; do ...; done."),
        ("seed=-1", "seed must be a whole number of at least 0; got '-1'."),
        ("experiment.lr", "'experiment.lr' is not an override; write name=value"),
        ("experiment.lr=[1", "the value of 'experiment.lr' cannot be read"),
        ("+experiment.foo=1", "settings can be changed, not added or removed; leave out the '+'."),
        (
            "algorithm=maddpg",
            "learns continuous actions, but task 'marl_td/matrix_game' has discrete ones",
        ),
    ],
)
def test_a_wrong_override_gets_one_sentence(override, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        compose(with_override(override))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [[], ["task=marl_td/matrix_game"]])
def test_algorithm_and_task_must_be_given(given):
    with pytest.raises(ValueError, match=r"no algorithm was given; add algorithm=NAME"):
        compose(given)
    with pytest.raises(ValueError, match=r"no task was given; add task=NAME"):
        compose_task([])


def test_mismatched_actions_name_what_would_fit():
    with pytest.raises(ValueError, match=r"take one of .*marl_td/qmix"):
        compose(["algorithm=maddpg", "task=marl_td/matrix_game"])


def test_a_task_alone():
    name, task = compose_task(["task=marl_td/matrix_game", "task.repeats=5"])
    assert name == "marl_td/matrix_game"
    assert task.config["repeats"] == 5


def test_a_missing_simulator_is_named_with_the_command_that_gets_it(monkeypatch):
    monkeypatch.setattr(extras, "is_installed", lambda package: package != "vmas")
    with pytest.raises(
        ImportError, match=r"task 'vmas/balance' needs the package 'vmas'.*marl-td\[vmas\]"
    ):
        compose(["algorithm=marl_td/mappo", "task=vmas/balance"])
    with pytest.raises(ImportError, match="needs the package 'vmas'"):
        compose_task(["task=vmas/balance"])


def test_a_hydra_program_around_it_is_left_as_it_was():
    from hydra import initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    with initialize_config_module("benchmarl.conf", version_base=None):
        outer = GlobalHydra.instance().hydra
        compose([f"{key}={value}" for key, value in GIVEN.items()])
        assert GlobalHydra.instance().hydra is outer
