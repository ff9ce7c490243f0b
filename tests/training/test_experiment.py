"""The run folder, evaluation that is only a look, stops and restarts."""

import copy
import json
import shutil

import pytest
import torch
from benchmarl.experiment.callback import Callback
from short_runs import short_experiment

from marl_td.training.experiment import Experiment
from marl_td.training.metrics import read_metrics
from marl_td.training.policy_files import read_weights
from marl_td.training.settings import RunSettings
from marl_td.training.trained import load_run


def parameters(experiment):
    return [p.detach().clone() for p in experiment.losses["agents"].parameters()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    experiment = short_experiment(tmp_path_factory.mktemp("runs") / "run")
    experiment.run()
    return experiment


def test_the_run_folder(finished):
    found = {
        str(path.relative_to(finished.folder_name))
        for path in finished.folder_name.rglob("*")
        if path.is_file()
    }
    assert found == {
        "config.yaml",
        "metrics.csv",
        "checkpoints/checkpoint_60/manifest.json",
        "checkpoints/checkpoint_60/state.json",
        "checkpoints/checkpoint_60/state.safetensors",
        "checkpoints/checkpoint_60/replay_agents_0_60.safetensors",
        "policy/weights.safetensors",
        "policy/signature.json",
    }


def test_a_row_per_iteration_with_counters_first(finished):
    rows = read_metrics(finished.folder_name / "metrics.csv")
    assert [row["counters/total_frames"] for row in rows] == ["20", "40", "60"]
    assert next(iter(rows[0])).startswith("counters/")
    for key in (
        "eval/score_mean",
        "eval/score_std",
        "train/agents/loss_value",
        "timers/total_time",
        "timers/compile_time",
    ):
        assert all(row[key] for row in rows), key
    assert rows[0]["eval/episodes"] == "4"


def test_the_signature_says_what_goes_in_and_out(finished):
    text = (finished.folder_name / "policy" / "signature.json").read_text()
    group = json.loads(text)["groups"]["agents"]
    assert group == {
        "agents": ["agents_0", "agents_1"],
        "inputs": {"observation": {"dtype": "float32", "shape": [2]}},
        "action": {"kind": "discrete", "dtype": "int64", "shape": [], "n": 3},
    }


def test_the_policy_comes_back_from_its_folder(finished):
    state = torch.get_rng_state()
    run = load_run(str(finished.folder_name), n_envs=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert run.env.batch_size == (3,)
    # Whoever trains on with its settings, or exports them, has those of the run.
    assert run.settings == RunSettings.load(finished.folder_name / "config.yaml")
    for (name, ours), (other, theirs) in zip(
        run.policy.named_parameters(), finished.policy.named_parameters(), strict=True
    ):
        assert name == other
        assert torch.equal(ours, theirs)


def test_a_run_of_a_device_that_is_not_here_is_judged_on_the_cpu_and_resumed_where_told(
    finished, tmp_path
):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder_name, folder)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("_device: cpu", "_device: cuda:99"))
    run = load_run(folder, n_envs=2)
    devices = {value.device.type for value in run.policy.parameters()} | {run.env.device.type}
    assert devices == {"cpu"}
    with pytest.raises(ValueError, match=r"sampling_device=cuda:99 cannot be used .* It has cpu"):
        Experiment.resume(folder)
    names = ("sampling_device", "train_device", "buffer_device")
    patch = {"max_n_frames": 1200, **dict.fromkeys(names, "cpu")}
    assert Experiment.resume(folder, patch).total_frames == finished.total_frames


def test_weights_of_earlier_versions_are_read(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder_name, folder)
    weights = read_weights(folder / "policy")
    (folder / "policy" / "weights.safetensors").unlink()
    torch.save(weights, folder / "policy" / "weights.pt")
    loaded = dict(load_run(folder, n_envs=2).policy.named_parameters())
    assert all(torch.equal(value, weights[name]) for name, value in loaded.items())


def test_checkpoints_of_earlier_versions_are_named(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder_name, folder)
    old = folder / "checkpoints" / "checkpoint_60.pt"
    torch.save({}, old)
    with pytest.raises(
        ValueError, match=r"60\.pt' was written by an earlier version of marl_td, wi"
    ):
        Experiment.reload_from_file(str(old))


def test_a_policy_that_does_not_fit_is_refused(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder_name, folder)
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("- 8\n", "- 9\n"))
    with pytest.raises(ValueError, match=r"does not fit this run's settings: .* is float32 \[8"):
        load_run(folder, 1)
    shutil.rmtree(folder / "policy")
    with pytest.raises(ValueError, match=r"holds no policy \(weights.safetensors is missing\)"):
        load_run(folder, 1)


@pytest.mark.parametrize("static", ["true", "false"])
def test_evaluation_changes_nothing(tmp_path, static):
    """Trained parameters are equal to the bit with evaluation, without, and with more of it."""
    results = []
    for name, overrides in {
        "off": ["experiment.evaluation=false"],
        "on": [f"experiment.evaluation_static={static}"],
        "more": [
            "experiment.evaluation_episodes=4",
            "experiment.evaluation_deterministic_actions=false",
        ],
    }.items():
        experiment = short_experiment(tmp_path / name, *overrides)
        experiment.run()
        results.append(parameters(experiment))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_training_and_evaluation_have_random_streams_of_their_own(tmp_path):
    experiment = short_experiment(tmp_path / "run")
    assert experiment.test_env.base_env.rng.initial_seed() == experiment.evaluation_seed
    assert experiment.collector.env.base_env.rng.initial_seed() == experiment.seed
    experiment.close()


def test_a_callback_sees_rollouts_cut_at_the_first_done(tmp_path):
    class Keep(Callback):
        seen = ()

        def on_evaluation_end(self, rollouts):
            self.seen = [tuple(rollout.batch_size) for rollout in rollouts]

    keep = Keep()
    overrides = ["task.repeats=2", "experiment.max_n_frames=20"]
    short_experiment(tmp_path / "run", *overrides, callbacks=[keep]).run()
    assert keep.seen == [(2,)] * 4


RECURRENT = ("task=marl_td/recall", "model=layers/marl_td/gru")
FLAT = ("model.num_cells", "critic_model.num_cells")


@pytest.mark.parametrize("compile_mode", ["off", "on"])
def test_learning_begins_with_the_first_whole_episode(tmp_path, compile_mode, monkeypatch):
    """One step a batch, four an episode: the fourth batch ends the first ones."""
    monkeypatch.setattr("marl_td.models.compiling.torch.compile", lambda function, **_: function)
    steps = "experiment.off_policy_collected_frames_per_batch=10"
    settings = (*RECURRENT, steps, f"experiment.compile={compile_mode}")
    run = short_experiment(tmp_path / "run", *settings, without=FLAT)
    run.run()
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    losses = [
        [v for key, v in row.items() if v and key.startswith("train/agents/loss")] for row in rows
    ]
    assert [len(found) for found in losses] == [0, 0, 0, 1, 1, 1]
    told = (tmp_path / "run" / "run.log").read_text().splitlines()
    text = "group 'agents' begins to learn once an episode has ended or lasted 4 steps"
    assert told == [f"10 frames: {text}"]


def test_a_run_too_short_for_an_episode_says_so(tmp_path):
    settings = (*RECURRENT, "experiment.max_n_frames=20", "experiment.evaluation=false")
    with pytest.raises(RuntimeError, match="no whole episode to learn from yet: 10 environments"):
        short_experiment(tmp_path / "run", *settings, without=FLAT).run()


def test_recurrent_runs_do_not_warn_of_benchmarls_environments(tmp_path):
    """Warnings are errors in tests; BenchMARL wraps these environments in a way that torchrl warns of."""
    run = short_experiment(tmp_path / "run", *RECURRENT, without=FLAT)
    assert run.algorithm.has_rnn
    assert next(iter(run.collector)).numel() == 20
    run.close()


def test_a_folder_with_a_run_is_refused(finished):
    with pytest.raises(
        ValueError, match="already holds a run; choose another folder, or remove it"
    ):
        short_experiment(finished.folder_name)


def test_bad_numbers_are_refused_from_python_too(tmp_path):
    experiment = short_experiment(tmp_path / "one")
    experiment.close()
    config = copy.copy(experiment.config)
    config.lr, config.save_folder = -1.0, str(tmp_path / "two")
    with pytest.raises(ValueError, match=r"experiment\.lr must be above 0; got -1\.0"):
        Experiment(
            experiment.task,
            experiment.algorithm_config,
            experiment.model_config,
            seed=0,
            config=config,
        )


def test_intervals_need_not_be_multiples_of_a_batch(tmp_path):
    overrides = ["experiment.evaluation_interval=30", "experiment.checkpoint_interval=30"]
    experiment = short_experiment(tmp_path / "run", *overrides, "experiment.max_n_frames=100")
    experiment.run()
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    evaluated = [row["counters/total_frames"] for row in rows if row["eval/score_mean"]]
    assert evaluated == ["20", "40", "60", "100"]  # the first, past 30, past 60 (and 90), the last
    assert [file.name for file in experiment.checkpoints.files()] == [
        "checkpoint_40",
        "checkpoint_60",
        "checkpoint_100",
    ]


def test_a_checkpoint_goes_on_where_it_ended(tmp_path):
    experiment = short_experiment(tmp_path / "run")
    experiment.run()
    file = experiment.checkpoints.files()[-1]
    again = Experiment.reload_from_file(str(file), {"max_n_frames": 80})
    assert again.folder_name == experiment.folder_name
    assert again.total_frames == 60
    for ours, theirs in zip(parameters(again), parameters(experiment), strict=True):
        assert torch.equal(ours, theirs)
    again.run()
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [row["counters/total_frames"] for row in rows] == ["20", "40", "60", "80"]
    with pytest.raises(ValueError, match="the experiment has no setting 'max_frames'"):
        Experiment.reload_from_file(str(file), {"max_frames": 1})


def test_the_json_of_marl_eval_on_request(tmp_path):
    experiment = short_experiment(tmp_path / "run", "experiment.create_json=true")
    experiment.run()
    data = json.loads((tmp_path / "run" / "run.json").read_text())
    seed = data["marl_td"]["matrix_game"]["marl_td_qmix"]["seed_0"]
    assert len(seed["step_3"]["return"]) == 4


def learning_rates(experiment):
    return [o.param_groups[0]["lr"] for o in experiment.optimizers["agents"].values()]


def test_the_learning_rate_falls_linearly_to_its_end(tmp_path):
    """Iterations end at 20, 40 and 60 of 60 frames: 0.3 falls to a fifth by thirds of 0.24."""
    seen = []

    class Watch(Callback):
        def on_train_end(self, training_td, group):
            seen.append(learning_rates(self.experiment)[0])

    overrides = ["experiment.lr=0.3", "experiment.lr_end=0.2"]
    short_experiment(tmp_path / "run", *overrides, callbacks=[Watch()]).run()
    assert seen == pytest.approx([0.22, 0.14, 0.06])


def test_the_learning_rate_stays_without_a_word(tmp_path):
    experiment = short_experiment(tmp_path / "run", "experiment.lr=0.3")
    experiment.run()
    assert learning_rates(experiment) == [0.3]


@pytest.mark.filterwarnings("ignore:.*is not exactly:UserWarning")  # TorchRL says so, too
@pytest.mark.parametrize("compile_mode", ["off", "on"])
def test_batches_are_whole_steps_of_all_environments(tmp_path, compile_mode):
    """25 frames of 4 copies are 28; three batches of them are enough for 60 frames."""
    overrides = ["off_policy_collected_frames_per_batch=25", "off_policy_n_envs_per_worker=4"]
    overrides = [f"experiment.{setting}" for setting in (*overrides, f"compile={compile_mode}")]
    experiment = short_experiment(tmp_path / "run", *overrides)
    experiment.run()
    assert (experiment.frames_per_iteration, experiment.n_iters) == (28, 3)
    assert experiment.total_frames == 84 and experiment.n_iters_performed == 3
