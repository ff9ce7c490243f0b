"""The compiled optimiser step changes what BenchMARL's loop changes, by the same amounts."""

from __future__ import annotations

import copy

import pytest
import torch
from benchmarl.experiment import Callback
from benchmarl_runs import IGNORED, STATEFUL, small_run
from discrete_teams import teams_task
from short_runs import short_experiment
from toy_games import recall_task

from marl_td.algorithms.belief_ppo import BeliefPpoConfig
from marl_td.algorithms.coma import ComaConfig
from marl_td.algorithms.facmac import FacmacConfig
from marl_td.algorithms.happo import HappoConfig
from marl_td.algorithms.hasac import HasacConfig
from marl_td.algorithms.hatrpo import HatrpoConfig
from marl_td.algorithms.iddpg import IddpgConfig
from marl_td.algorithms.isac import IsacConfig
from marl_td.algorithms.maddpg import MaddpgConfig
from marl_td.algorithms.mappo import MappoConfig
from marl_td.algorithms.masac import MasacConfig
from marl_td.algorithms.mat import MatConfig, MatDecConfig
from marl_td.algorithms.matd3 import Matd3Config
from marl_td.algorithms.pqn_vdn import PqnVdnConfig
from marl_td.algorithms.qmix import QmixConfig
from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.collect.collector import CompiledCollector
from marl_td.models.compiling import CompileWarning, NotCompilable
from marl_td.registry import algorithm_config
from marl_td.training.adam import AdamStep
from marl_td.training.update import Clip, CompiledUpdate, compiled_update

pytestmark = IGNORED

N_UPDATES = 10
VALUE_BASED = (
    "iql",
    "vdn",
    "cw_qmix",
    "ow_qmix",
    "qtran_base",
    "qtran_alt",
    "qatten",
    "qplex",
    "shaq",
    "roma",
)
WINDOWS = {
    "sequence": "window",
    "window_length": 2,
    "burn_in": 1,
    "last_action": True,
    "agent_id": True,
}
SETTINGS = {"lr": 3e-3, "adam_eps": 1e-2, "clip_grad_val": 0.5, "polyak_tau": 0.1}
"""A large epsilon: Adam divides by it where gradients are float noise, whose signs mean nothing."""


SPREAD = {"task": MarlTdTask.SIMPLE_SPREAD.get_from_yaml()}
"""A team with continuous actions."""


def filled(folder, algorithm, task=None, **settings):
    """An experiment whose buffer holds one batch."""
    task = task or MarlTdTask.TWO_STEP.get_from_yaml()
    experiment = small_run(folder, algorithm, task, **{**SETTINGS, **settings})
    batch = next(iter(experiment.collector))
    experiment._on_batch_collected(batch)
    data = experiment.algorithm.process_batch("agents", batch)
    rows = data if experiment.algorithm.has_rnn else data.reshape(-1)
    experiment.replay_buffers["agents"].extend(rows)
    return experiment


def update_of(experiment, backend="aot_eager"):
    """The compiled update of its only group."""
    config = experiment.config
    return CompiledUpdate(
        experiment.losses["agents"],
        experiment.optimizers["agents"],
        experiment.target_updaters["agents"],
        experiment.replay_buffers["agents"],
        clip=Clip(config.clip_grad_val, config.clip_grad_norm),
        device="cpu",
        backend=backend,
    )


def tensors(experiment):
    """Copies of all parameters, buffers and optimiser states."""
    found = {
        key: value.clone()
        for key, value in experiment.losses["agents"].state_dict().items()
        if torch.is_tensor(value)
    }
    for name, optimiser in experiment.optimizers["agents"].items():
        for index, state in optimiser.state_dict()["state"].items():
            found.update({f"{name}.{index}.{key}": value.clone() for key, value in state.items()})
    return found


def both(folder, algorithm, **settings):
    """Two experiments with the same parameters and the same data."""
    runs = []
    for name in ("ours", "theirs"):
        (folder / name).mkdir()
        runs.append(filled(folder / name, algorithm, **settings))
    ours, theirs = runs
    theirs.losses["agents"].load_state_dict(copy.deepcopy(ours.losses["agents"].state_dict()))
    storages = [run.replay_buffers["agents"].storage for run in runs]
    storages[1]._storage = storages[0]._storage.clone()
    return ours, theirs


RECALL = MarlTdTask.RECALL.get_from_yaml()
DISCRETE = {"prefer_continuous_actions": False}
DETERMINISTIC = {
    "iddpg": IddpgConfig,
    "matd3": Matd3Config,
    "facmac": FacmacConfig,
    "facmac, free": lambda: FacmacConfig(mixer_type="free"),
    "maddpg, inference": lambda: MaddpgConfig(infer_policies=True),
    "maddpg, ensembles": lambda: MaddpgConfig(ensemble_size=3),
}


ALGORITHMS = [
    pytest.param(lambda: MappoConfig(value_norm="popart"), {"clip_grad_norm": True}, id="mappo"),
    pytest.param(
        MaddpgConfig, {"clip_grad_norm": False, "prefer_continuous_actions": False}, id="maddpg"
    ),
    pytest.param(
        lambda: MaddpgConfig(share_param_critic=True),
        {"prefer_continuous_actions": False},
        id="maddpg, one critic",
    ),
    pytest.param(Matd3Config, DISCRETE, id="matd3, delayed actors"),
    pytest.param(
        lambda: MaddpgConfig(infer_policies=True, ensemble_size=2),
        DISCRETE,
        id="maddpg, inference and ensembles",
    ),
    *(
        pytest.param(algorithm, settings, id=f"{name} {kind}", marks=pytest.mark.slow)
        for name, algorithm in DETERMINISTIC.items()
        for kind, settings in {
            "discrete": DISCRETE,
            "continuous": {"task": RECALL, "prefer_continuous_actions": True},
            "GRU": {"model": STATEFUL, "critic_model": STATEFUL, **DISCRETE},
        }.items()
    ),
    pytest.param(QmixConfig, {"clip_grad_val": None}, id="qmix"),
    pytest.param(
        lambda: MasacConfig(min_alpha=0.01, n_steps=2),
        {"prefer_continuous_actions": False},
        id="masac",
    ),
    pytest.param(MasacConfig, SPREAD, id="masac, continuous", marks=pytest.mark.slow),
    pytest.param(
        lambda: IsacConfig(share_alpha=False),
        SPREAD,
        id="isac, continuous",
        marks=pytest.mark.slow,
    ),
    pytest.param(IsacConfig, {"model": STATEFUL}, id="isac, GRU", marks=pytest.mark.slow),
    pytest.param(
        lambda: HasacConfig(fixed_alpha=False),
        SPREAD,
        id="hasac, continuous",
        marks=pytest.mark.slow,
    ),
    pytest.param(
        HasacConfig,
        {"model": STATEFUL, "clip_grad_norm": False},
        id="hasac, GRU",
        marks=pytest.mark.slow,
    ),
    pytest.param(lambda: MappoConfig(chunk_length=4), {"model": STATEFUL}, id="mappo, GRU"),
    pytest.param(
        lambda: QmixConfig(lmbda=0.5, **WINDOWS),
        {"model": STATEFUL, "task": recall_task()},
        id="qmix, GRU, windows",
        marks=pytest.mark.slow,
    ),
    pytest.param(HappoConfig, {"on_policy_n_minibatch_iters": 4}, id="happo"),
    pytest.param(
        lambda: HappoConfig(chunk_length=4),
        {"model": STATEFUL, "on_policy_n_minibatch_iters": 4},
        id="happo, GRU",
        marks=pytest.mark.slow,
    ),
    pytest.param(PqnVdnConfig, {}, id="pqn_vdn"),
    pytest.param(lambda: ComaConfig(last_action=True), {}, id="coma"),
    pytest.param(lambda: MatConfig(embed_dim=8, actor_gain=1.0), {}, id="mat"),
    pytest.param(lambda: MatDecConfig(embed_dim=8), {}, id="mat_dec", marks=pytest.mark.slow),
    pytest.param(lambda: BeliefPpoConfig(belief_dim=2, actor_gain=1.0), {}, id="belief_ppo"),
    pytest.param(
        lambda: PqnVdnConfig(chunk_length=4),
        {"model": STATEFUL},
        id="pqn_vdn, GRU",
        marks=pytest.mark.slow,
    ),
    *(
        pytest.param(algorithm_config(name), {}, id=name, marks=pytest.mark.slow)
        for name in VALUE_BASED
    ),
]


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("algorithm", "settings"), ALGORITHMS)
def test_ten_updates_equal_benchmarls(algorithm, settings, backend, tmp_path):
    ours, theirs = both(tmp_path, algorithm(), **settings)
    before = tensors(ours)
    torch.manual_seed(7)
    expected = torch.stack([theirs._optimizer_loop("agents") for _ in range(N_UPDATES)])
    torch.manual_seed(7)
    with torch._inductor.config.patch(fallback_random=True):
        found = update_of(ours, backend).run(N_UPDATES)
    assert set(found.keys()) == set(expected.keys())
    for key, value in expected.items():
        due = slice(None)
        if (name := key.removeprefix("grad_norm_")) in ours.losses["agents"].delays and name != key:
            # Where an optimiser is not due its last norm is repeated.
            period = ours.losses["agents"].delays[name]
            due = slice(period - 1, None, period)
        torch.testing.assert_close(found[key][due], value.float()[due], rtol=1e-3, atol=1e-5)
    after, wanted = tensors(ours), tensors(theirs)
    assert after.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(after[key], value, rtol=1e-4, atol=1e-5)
    moved = [key for key in before if not torch.equal(before[key], after[key])]
    assert len(moved) > len(before) // 2


PRIORITISED = [
    pytest.param(QmixConfig, {}, id="qmix"),
    pytest.param(lambda: QmixConfig(lmbda=0.5), {}, id="qmix, episodes"),
    pytest.param(MaddpgConfig, {"prefer_continuous_actions": False}, id="maddpg"),
    pytest.param(MasacConfig, {}, id="masac", marks=pytest.mark.slow),
    pytest.param(HasacConfig, {}, id="hasac", marks=pytest.mark.slow),
    *(
        pytest.param(algorithm_config(name), {}, id=name, marks=pytest.mark.slow)
        for name in VALUE_BASED
    ),
]


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("algorithm", "settings"), PRIORITISED)
def test_ten_prioritised_updates_equal_benchmarls(algorithm, settings, backend, tmp_path):
    """Weights go into the graph, priorities come out: the same draws, parameters and priorities."""
    settings = {**settings, "off_policy_use_prioritized_replay_buffer": True, "max_n_iters": 10}
    ours, theirs = both(tmp_path, algorithm(), **settings)
    torch.manual_seed(7)
    expected = torch.stack([theirs._optimizer_loop("agents") for _ in range(N_UPDATES)])
    torch.manual_seed(7)
    with torch._inductor.config.patch(fallback_random=True):
        found = update_of(ours, backend).run(N_UPDATES)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value.float(), rtol=1e-3, atol=1e-5)
    after, wanted = tensors(ours), tensors(theirs)
    for key, value in wanted.items():
        torch.testing.assert_close(after[key], value, rtol=1e-4, atol=1e-5)
    samplers = [run.replay_buffers["agents"].sampler for run in (ours, theirs)]
    mine, others = (sampler.priorities() for sampler in samplers)
    torch.testing.assert_close(mine, others, rtol=1e-4, atol=1e-5)
    assert len(mine.unique()) > 3
    assert samplers[0].beta == samplers[1].beta == pytest.approx(0.4 + 0.6 * N_UPDATES / 20)


def test_networks_of_other_groups_are_compiled_too(tmp_path):
    task = teams_task(masked=False, has_state=False)
    experiment = small_run(tmp_path, MaddpgConfig(), task, **SETTINGS)
    batch = next(iter(experiment.collector))
    experiment._on_batch_collected(batch)
    for group in experiment.group_map:
        data = experiment.algorithm.process_batch(group, batch.clone())
        experiment.replay_buffers[group].extend(data.reshape(-1))
    assert len(experiment.group_map) == 2
    for group in experiment.group_map:
        update = CompiledUpdate(
            experiment.losses[group],
            experiment.optimizers[group],
            experiment.target_updaters[group],
            experiment.replay_buffers[group],
            clip=Clip(None, by_norm=False),
            device="cpu",
            backend="aot_eager",
        )
        assert update.run(3)["loss_actor"].isfinite().all()


def test_adam_is_torchs_adam():
    generator = torch.Generator().manual_seed(3)
    ours = torch.nn.Parameter(torch.randn(4, 3, generator=generator))
    theirs = torch.nn.Parameter(ours.detach().clone())
    optimisers = [torch.optim.Adam([p], lr=0.1, betas=(0.8, 0.9), eps=1e-3) for p in (ours, theirs)]
    step = AdamStep(optimisers[0], "cpu")
    for round_ in range(3):
        gradients = torch.randn(4, 4, 3, generator=generator)
        for optimiser in optimisers:
            optimiser.param_groups[0]["lr"] = 0.1 / (1 + round_)
        step.begin()
        for gradient in gradients:
            with torch.no_grad():
                step([gradient])
            theirs.grad = gradient
            optimisers[1].step()
        step.end()
        torch.testing.assert_close(ours, theirs)
    mine, his = (o.state_dict()["state"][0] for o in optimisers)
    assert mine["step"] == his["step"] == 12
    torch.testing.assert_close(mine["exp_avg_sq"], his["exp_avg_sq"])


def test_a_loaded_optimiser_state_is_taken_up():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimiser = torch.optim.Adam([parameter], lr=0.1)
    step = AdamStep(optimiser, "cpu")
    saved = copy.deepcopy(optimiser.state_dict())
    saved["state"][0]["step"] = torch.tensor(5.0)
    saved["state"][0]["exp_avg"] = torch.full((2,), 3.0)
    optimiser.load_state_dict(saved)
    step.begin()
    assert step.count == 5
    assert (step.means[0] == 3.0).all()


def test_what_cannot_be_compiled_is_named(tmp_path):
    parameter = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(NotCompilable, match="the optimiser is a SGD, not a plain Adam"):
        AdamStep(torch.optim.SGD([parameter], lr=0.1), "cpu")
    with pytest.raises(NotCompilable, match="Adam has the options weight_decay, amsgrad"):
        AdamStep(torch.optim.Adam([parameter], weight_decay=0.1, amsgrad=True), "cpu")
    experiment = filled(tmp_path, QmixConfig(), off_policy_use_prioritized_replay_buffer=False)

    class Looking(Callback):
        def on_train_step(self, batch, group):
            return None

    experiment.callbacks = [Looking()]
    with pytest.warns(
        CompileWarning, match="update is not compiled: Looking looks at every minibatch"
    ):
        assert compiled_update(experiment, "agents") is None
    experiment.callbacks = []
    experiment.losses["agents"] = torch.nn.Identity()
    with pytest.warns(CompileWarning, match="the loss is Identity, not one of marl_td"):
        assert compiled_update(experiment, "agents") is None


def test_an_update_with_a_line_search_is_not_a_graph(tmp_path):
    experiment = filled(tmp_path, HatrpoConfig())
    with pytest.warns(CompileWarning, match="HATRPOLoss changes the policy by itself, with a line"):
        assert compiled_update(experiment, "agents") is None


def test_waiting_agents_keep_their_adam_in_a_graph(tmp_path):
    """One agent after the other, from a state that was loaded: each has made its own number of steps."""
    experiment = filled(tmp_path, HappoConfig(), on_policy_n_minibatch_iters=4)
    optimiser = experiment.optimizers["agents"]["loss_objective"]
    loss = experiment.losses["agents"]
    for _ in range(3):
        experiment._optimizer_loop("agents")
    optimiser.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    first, second = loss.turns.order.tolist()
    update = update_of(experiment)
    update.run(4)
    states = [optimiser.state[rows[0]] for rows in loss.rows.rows]
    assert [int(states[agent]["step"]) for agent in (first, second)] == [4, 3]
    kept = states[first]["exp_avg"].clone()
    update.run(1)
    assert torch.equal(states[first]["exp_avg"], kept)
    assert int(states[second]["step"]) == 4


def test_long_sequences_are_not_written_out_in_a_graph(tmp_path):
    experiment = filled(
        tmp_path, MappoConfig(), model=STATEFUL, on_policy_collected_frames_per_batch=4 * 40
    )
    with pytest.warns(CompileWarning, match="its sequences have 40 steps; set algorithm.chunk_le"):
        assert compiled_update(experiment, "agents") is None


@pytest.mark.slow
def test_a_compiled_run_trains_and_saves(tmp_path):
    experiment = short_experiment(tmp_path / "run", "experiment.compile=on")
    experiment.run()
    assert isinstance(experiment.collector, CompiledCollector)
    assert experiment._compiled_updates["agents"] is not None
    assert (tmp_path / "run" / "policy").is_dir()


def test_auto_leaves_short_runs_alone(tmp_path):
    experiment = short_experiment(tmp_path / "run")
    experiment.run()
    assert not isinstance(experiment.collector, CompiledCollector)
    assert experiment._compiled_updates == {"agents": None}
