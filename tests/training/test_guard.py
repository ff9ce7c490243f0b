"""Numbers that are not finite: the run stops with a diagnosis and unharmed parameters, or leaves them out."""

import json
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from benchmarl.experiment.callback import Callback
from short_runs import short_experiment
from survival import BALANCE, SPREAD, case, experiment_of
from tensordict import TensorDict
from update_runs import filled, tensors

from marl_td.algorithms.hasac import HasacConfig
from marl_td.algorithms.matd3 import Matd3Config
from marl_td.algorithms.qmix import QmixConfig
from marl_td.collect.nested import entries_of
from marl_td.training.adam import AdamStep
from marl_td.training.config import RunConfig
from marl_td.training.guard import MOST_IN_A_ROW, Guard
from marl_td.training.metrics import read_metrics
from marl_td.training.tensor_files import load_tensors
from marl_td.training.update import Clip, CompiledUpdate

pytestmark = [
    pytest.mark.filterwarnings("ignore:The default behavior of TransformedEnv:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:vmas"),
]
SKIP = {"experiment.on_nonfinite": "skip"}


def poison(experiment, name, iterations=(2,), value=float("nan")):
    """Make the reward or observation of agent 1 in copy 2 bad in some iterations."""
    task = experiment.collector.env.base_env.task
    real = getattr(task, name)

    def bad(*args):
        out = real(*args)
        reward = out.reward if name == "step" else out
        if experiment.n_iters_performed in iterations:
            group = sorted(reward)[0]
            reward[group] = reward[group].clone()
            reward[group][2, 1] = value
        return out

    setattr(task, name, bad)


@pytest.mark.parametrize(
    ("what", "name", "value"),
    [
        ("step", "next.agents.reward", float("nan")),
        ("observe", "agents.observation", float("-inf")),
    ],
)
def test_what_an_environment_gives_stops_the_run_before_it_is_learned_from(
    tmp_path, what, name, value
):
    experiment = experiment_of(case("mappo", task=SPREAD), tmp_path / "run")
    poison(experiment, what, value=value)
    with pytest.raises(FloatingPointError) as error:
        experiment.run()
    folder = tmp_path / "run" / "diagnosis" / "frames_54"
    kept = tmp_path / "run" / "checkpoints" / "checkpoint_36"
    assert str(error.value).startswith(
        f"the entry of the collected batch '{name}' is no longer finite in iteration 2 (54 frames; "
        f"agents_1); see {folder}; the last checkpoint is {kept}. Look at"
    )
    report = json.loads((folder / "report.json").read_text())
    assert [place[0] for place in report["where"]] == [2] * len(report["where"])
    assert report["iteration"] == 2 and report["total_frames"] == 54
    rows = load_tensors(folder / "rows.safetensors")
    assert not all(value.isfinite().all() for value in rows.values() if value.is_floating_point())
    assert len(next(iter(rows.values()))) == len(report["rows"]) <= 18


def test_a_bad_batch_can_be_left_out(tmp_path):
    experiment = experiment_of(case("maddpg", task=SPREAD, x=SKIP), tmp_path / "run")
    poison(experiment, "step")
    experiment.run()
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [row["counters/skipped"] for row in rows] == ["0", "0", "1", "0", "0"]
    assert [bool(row["train/agents/loss_value"]) for row in rows] == [True, True, False, True, True]
    buffer = experiment.replay_buffers["agents"]
    assert int(buffer.writer._write_count) == 4 * 18
    log = (tmp_path / "run" / "run.log").read_text()
    assert "next.agents.reward' is no longer finite in iteration 2 (54 frames; agents_1)" in log
    assert log.rstrip().endswith("left out.")


class BadGradient(Callback):
    """Makes one gradient of an optimiser's step infinite, in the iterations named."""

    def __init__(self, iterations=(1,), steps=(1,)):
        super().__init__()
        self.iterations, self.steps, self.seen = iterations, steps, 0

    def on_setup(self):
        loss = self.experiment.losses["agents"]
        self.name, parameter = next(
            (n, p) for n, p in loss.named_parameters() if p.requires_grad and p.ndim > 1
        )
        parameter.register_hook(self.change)

    def change(self, gradient):
        if self.experiment.n_iters_performed not in self.iterations:
            return gradient
        self.seen += 1
        return gradient * float("inf") if self.seen in self.steps else gradient


def parameters(experiment):
    found = experiment.losses["agents"].parameters()
    return [p.detach().clone() for p in found if p.requires_grad]


def test_a_bad_gradient_stops_the_run_before_it_moves_anything(tmp_path):
    callback = BadGradient()
    experiment = short_experiment(tmp_path / "run", callbacks=[callback])
    steps = []
    for optimiser in experiment.optimizers["agents"].values():
        optimiser.register_step_post_hook(lambda *args: steps.append(parameters(experiment)))
    with pytest.raises(
        FloatingPointError, match=r"the gradient 'loss.*' is no longer finite in it"
    ):
        experiment.run()
    assert len(steps) == 2  # those of the first iteration
    assert all(map(torch.equal, steps[-1], parameters(experiment)))
    report = json.loads((tmp_path / "run/diagnosis/frames_40/report.json").read_text())
    assert report["kind"] == "gradient" and callback.name in report["parameters"]
    assert report["group"] == "agents" and report["agents"] == ["agents_0", "agents_1"]


def test_a_bad_gradient_can_be_left_out(tmp_path):
    experiment = short_experiment(
        tmp_path / "run", "experiment.on_nonfinite=skip", callbacks=[BadGradient()]
    )
    experiment.run()
    assert all(p.isfinite().all() for p in parameters(experiment))
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [row["counters/skipped"] for row in rows] == ["0", "1", "0"]
    (optimiser,) = experiment.optimizers["agents"].values()
    assert {int(state["step"]) for state in optimiser.state.values()} == {5}  # 3 times 2, less 1


class BadActorGradient(Callback):
    """Makes the gradient of an actor's parameter infinite, in the calls named."""

    def __init__(self, *calls):
        super().__init__()
        self.calls, self.seen = calls, 0

    def on_setup(self):
        actor = self.experiment.losses["agents"].actor
        next(p for p in actor.parameters() if p.ndim > 1).register_hook(self.change)

    def change(self, gradient):
        self.seen += 1
        return gradient * float("inf") if self.seen in self.calls else gradient


def test_a_bad_step_that_a_loss_takes_by_itself_is_left_out(tmp_path):
    """HASAC's: two agents have their turns in each of two updates, so the third call is in the second."""
    experiment = short_experiment(
        tmp_path / "run",
        "algorithm=marl_td/hasac",
        "experiment.on_nonfinite=skip",
        callbacks=[BadActorGradient(3)],
    )
    experiment.run()
    loss = experiment.losses["agents"]
    assert all(value.isfinite().all() for value in tensors(experiment).values())
    assert sorted(loss.optimiser.count.tolist()) == [5.0, 6.0]
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [row["counters/skipped"] for row in rows] == ["1", "0", "0"]
    assert all(row["train/agents/grad_norm_actor"] not in ("", "inf", "nan") for row in rows)
    log = (tmp_path / "run" / "run.log").read_text()
    assert "the gradient 'actor' is no longer finite in iteration 0" in log


def test_a_bad_step_that_a_loss_takes_by_itself_stops_the_run(tmp_path):
    experiment = short_experiment(
        tmp_path / "run", "algorithm=marl_td/hasac", callbacks=[BadActorGradient(3)]
    )
    steps = []
    for optimiser in experiment.optimizers["agents"].values():
        optimiser.register_step_post_hook(lambda *args: steps.append(1))
    with pytest.raises(FloatingPointError, match="the gradient 'actor' is no longer finite in it"):
        experiment.run()
    assert all(value.isfinite().all() for value in parameters(experiment))
    assert len(steps) == 1  # the critics' in the first update; the temperature is fixed
    report = json.loads((tmp_path / "run/diagnosis/frames_20/report.json").read_text())
    assert (report["kind"], report["name"]) == ("gradient", "actor")


HATRPO = (
    "algorithm=marl_td/hatrpo",
    "experiment.on_policy_collected_frames_per_batch=20",
    "experiment.on_policy_n_envs_per_worker=10",
    "experiment.on_policy_n_minibatch_iters=4",
    "experiment.on_policy_minibatch_size=20",
)
"""Two agents with two updates each: the first steps, the second repeats what is said of it."""


class BadLengths(Callback):
    """Makes the objective NaN for all ten lengths of the first step."""

    def on_setup(self):
        loss, seen = self.experiment.losses["agents"], []
        real = loss._measure

        def measure(*args):
            seen.append(1)
            objective, divergence = real(*args)
            return objective * float("nan") if 1 < len(seen) < 12 else objective, divergence

        loss._measure = measure


BAD_STEPS = pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: BadActorGradient(1), id="gradient"),
        pytest.param(lambda: BadActorGradient(3), id="direction"),  # after those of L and D
        pytest.param(BadLengths, id="lengths"),
    ],
)


@BAD_STEPS
def test_a_bad_trust_region_step_is_left_out(tmp_path, make):
    """HATRPO's, counted once; the critic learns in that update, too."""
    overrides = (*HATRPO, "experiment.on_nonfinite=skip")
    experiment = short_experiment(tmp_path / "run", *overrides, callbacks=[make()])
    experiment.run()
    assert all(value.isfinite().all() for value in tensors(experiment).values())
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [row["counters/skipped"] for row in rows] == ["1", "0", "0"]
    told = [value for row in rows for name, value in row.items() if name.startswith("train/")]
    assert told and not {"nan", "inf", "-inf"} & set(told)
    log = (tmp_path / "run" / "run.log").read_text()
    assert "the gradient 'policy' is no longer finite in iteration 0" in log
    (optimiser,) = experiment.optimizers["agents"].values()
    assert {int(state["step"]) for state in optimiser.state.values()} == {12}


@BAD_STEPS
def test_a_bad_trust_region_step_stops_the_run(tmp_path, make):
    experiment = short_experiment(tmp_path / "run", *HATRPO, callbacks=[make()])
    before = flat(experiment.losses["agents"].actor)
    with pytest.raises(FloatingPointError, match="the gradient 'policy' is no longer finite in it"):
        experiment.run()
    assert torch.equal(flat(experiment.losses["agents"].actor), before)
    assert not any(o.state for o in experiment.optimizers["agents"].values())  # the critic's
    report = json.loads((tmp_path / "run/diagnosis/frames_20/report.json").read_text())
    assert (report["kind"], report["name"]) == ("gradient", "policy")


def flat(network):
    """All parameters of a network as one vector."""
    return torch.cat([p.detach().flatten() for p in network.parameters()]).clone()


@pytest.mark.parametrize("call", [1, 2])
def test_delayed_actors_and_targets_stay_in_step_when_one_is_left_out(tmp_path, call):
    """MATD3: whichever of the first two updates is left out, both move with the fourth and the sixth."""
    experiment = short_experiment(
        tmp_path / "run",
        "algorithm=marl_td/matd3",
        "experiment.on_nonfinite=skip",
        "experiment.compile=off",
        callbacks=[BadActorGradient(call)],
    )
    loss, updater = experiment.losses["agents"], experiment.target_updaters["agents"]
    seen = [(flat(loss.actor), flat(loss.target_critic))]
    real = updater.step

    def step():
        real()
        seen.append((flat(loss.actor), flat(loss.target_critic)))

    updater.step = step
    experiment.run()
    moved = [
        tuple(not torch.equal(a, b) for a, b in zip(now, before, strict=True))
        for before, now in pairwise(seen)
    ]
    rest, due = (False, False), (True, True)
    assert moved == [rest, (call == 1, True), rest, due, rest, due]


def test_leaving_out_has_an_end(tmp_path):
    callback = BadGradient(iterations=range(100), steps=range(1000))
    experiment = short_experiment(
        tmp_path / "run",
        "experiment.on_nonfinite=skip",
        "experiment.max_n_frames=1000",
        callbacks=[callback],
    )
    with pytest.raises(FloatingPointError, match=f"{MOST_IN_A_ROW} iterations in a row had such"):
        experiment.run()
    assert experiment.n_iters_performed == MOST_IN_A_ROW
    assert all(p.isfinite().all() for p in parameters(experiment))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    class Poison(Callback):
        def on_batch_collected(self, batch):
            for parameter in self.experiment.losses["agents"].parameters():
                parameter.data.fill_(float("nan"))

    experiment = short_experiment(tmp_path / "run", callbacks=[Poison()])
    message = r"'loss.*' is no longer finite in iteration 0 \(20 frames; agents_0, agents_1\)"
    with pytest.raises(FloatingPointError, match=message) as error:
        experiment.run()
    assert "no checkpoint was saved. Lower experiment.lr" in str(error.value)


def test_an_unknown_choice_is_refused():
    base = dict.fromkeys(RunConfig.__dataclass_fields__)
    values = {**base, "lr_end": 1.0, "compile": "off", "checkpoint_minutes": None}
    with pytest.raises(ValueError, match=r"on_nonfinite must be one of stop, skip; got 'warn'"):
        RunConfig(**{**values, "on_nonfinite": "warn"})
    with pytest.raises(ValueError, match=r"checkpoint_minutes must be above 0.*got 0"):
        RunConfig(**{**values, "on_nonfinite": "stop", "checkpoint_minutes": 0})


def test_every_agent_of_a_vmas_run_has_its_name_in_the_message(tmp_path):
    experiment = experiment_of(case("mappo", task=BALANCE), tmp_path / "run")
    scenario = experiment.collector.env.base_env._env.scenario
    real = scenario.reward
    scenario.reward = lambda agent: real(agent) * float("nan")
    with pytest.raises(
        FloatingPointError, match=r"\(18 frames; agent_0, agent_1, agent_2, agent_3\)"
    ):
        experiment.run()


# ------------------------------------------------------------------------------------ compiled updates
def test_compiled_adam_leaves_a_step_out_count_and_all():
    parameter = torch.nn.Parameter(torch.ones(4, 3))
    optimiser = torch.optim.Adam([parameter], lr=0.1)
    step = AdamStep(optimiser, "cpu")
    step.begin()
    step([torch.full((4, 3), 0.5)])
    before = [parameter.detach().clone(), *(t.clone() for t in (*step.means, *step.squares))]
    step.bad = torch.tensor(1.0)
    step([torch.full((4, 3), float("nan"))])
    assert all(map(torch.equal, before, [parameter, *step.means, *step.squares]))
    step.bad = torch.tensor(0.0)
    step([torch.full((4, 3), 0.5)])
    step.end()
    assert float(optimiser.state[parameter]["step"]) == 2.0
    twin = torch.nn.Parameter(torch.ones(4, 3))
    plain = torch.optim.Adam([twin], lr=0.1)
    for _ in range(2):
        twin.grad = torch.full((4, 3), 0.5)
        plain.step()
    assert torch.allclose(parameter, twin)


def compiled(experiment):
    """The compiled update of its group, which leaves bad steps out."""
    return CompiledUpdate(
        experiment.losses["agents"],
        experiment.optimizers["agents"],
        experiment.target_updaters["agents"],
        experiment.replay_buffers["agents"],
        clip=Clip(0.5, True),
        device="cpu",
        skips=True,
        backend="aot_eager",
    )


def test_compiled_updates_leave_bad_minibatches_out(tmp_path):
    """A stored reward is infinite: minibatches with it are left out, the others move something."""
    experiment = filled(tmp_path, QmixConfig())
    stored = entries_of(experiment.replay_buffers["agents"].storage._storage)
    for value in (value for key, value in stored.items() if key[-1] == "reward"):
        value[3] = float("inf")
    before = tensors(experiment)
    found = compiled(experiment).run(12)
    made = found["loss_value"].isfinite()
    assert 0 < int(made.sum()) < 12
    after = tensors(experiment)
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(before[key], after[key]) for key in before if "loss" not in key)
    counts = [value for key, value in after.items() if key.endswith(".step")]
    assert {float(count) for count in counts} == {float(made.sum())}


def test_a_compiled_update_leaves_the_actors_steps_out_that_the_loss_takes(tmp_path):
    """HASAC: a stored observation of the second agent is infinite; critics read the state."""
    config = HasacConfig(n_steps=1, value_norm="none")
    experiment = filled(tmp_path, config, off_policy_train_batch_size=4)
    stored = entries_of(experiment.replay_buffers["agents"].storage._storage)
    stored["agents", "observation"][3, 1] = float("inf")
    found = compiled(experiment).run(12)
    made = found["grad_norm_actor"].isfinite()
    assert 0 < int(made.sum()) < 12
    loss = experiment.losses["agents"]
    assert all(value.isfinite().all() for value in tensors(experiment).values())
    assert loss.optimiser.count.tolist() == [12.0, float(made.sum())]
    guard = Guard(SimpleNamespace(config=SimpleNamespace(on_nonfinite="skip")))
    assert len(guard.without_skipped(found)) == int(made.sum())
    assert guard.n_skipped == 12 - int(made.sum())


def test_a_compiled_run_that_stops_has_moved_no_actor_by_bad_numbers(tmp_path, monkeypatch):
    def poisoned(experiment, group, skips):
        stored = entries_of(experiment.replay_buffers[group].storage._storage)
        stored[group, "observation"][:4, 1] = float("inf")
        return compiled(experiment)

    monkeypatch.setattr("marl_td.training.learning.compiled_update", poisoned)
    monkeypatch.setattr("marl_td.training.learning.UPDATES_TO_PAY", 0)
    overrides = ("algorithm=marl_td/hasac", "algorithm.value_norm=none")
    experiment = short_experiment(tmp_path / "run", *overrides, "experiment.compile=auto")
    with pytest.raises(FloatingPointError, match=r"'.*' is no longer finite in iteration 0 "):
        experiment.run()
    actor = experiment.losses["agents"].actor
    assert all(value.isfinite().all() for value in actor.parameters())


def test_a_delayed_step_that_was_left_out_is_counted_once(tmp_path):
    """Where an actor rests its last norm is repeated; not one that is not finite."""
    experiment = filled(tmp_path, Matd3Config(policy_freq=2))
    stored = entries_of(experiment.replay_buffers["agents"].storage._storage)
    update = compiled(experiment)
    update.run(2)
    whole = {key: value.clone() for key, value in stored.items()}
    stored["agents", "observation"].fill_(float("inf"))
    update.run(1)  # the actor rests
    bad = update.run(1)
    for key, value in whole.items():
        stored[key].copy_(value)
    good = update.run(2)
    assert not bad["grad_norm_loss_actor"].isfinite().any()
    assert good["grad_norm_loss_actor"].isfinite().all()


def test_a_run_of_compiled_updates_counts_what_it_leaves_out(tmp_path, monkeypatch):
    experiment = short_experiment(tmp_path / "run", "experiment.on_nonfinite=skip")

    class Update:
        compile_seconds = 0.0

        def run(self, n_updates):
            norms = torch.tensor([1.0, float("nan")])
            return TensorDict({"grad_norm_loss_value": norms, "loss_value": norms.clone()}, [2])

        def snapshot(self):
            return None

    experiment._compiled_updates["agents"] = Update()
    experiment.run()
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [row["counters/skipped"] for row in rows] == ["1", "1", "1"]
    assert [row["train/agents/loss_value"] for row in rows] == ["1", "1", "1"]
