"""Limits in which our algorithm is BenchMARL's own, number for number."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from benchmarl.algorithms import MaddpgConfig as TheirMaddpgConfig
from benchmarl.algorithms import MasacConfig as TheirMasacConfig
from benchmarl.algorithms import QmixConfig as TheirQmixConfig
from benchmarl.environments import VmasTask
from benchmarl_runs import small_run

from marl_td.algorithms.maddpg import MaddpgConfig
from marl_td.algorithms.masac import MasacConfig
from marl_td.algorithms.qmix import QmixConfig
from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.collect.rng import global_streams, put_back

N_UPDATES = 12
N_AGENTS, N_BATCHES = 4, 3
SETTINGS = {"lr": 3e-3, "adam_eps": 1e-4, "gamma": 0.9, "polyak_tau": 0.1, "clip_grad_val": 0.5}
OURS_TO_THEIRS = {
    "network.": "local_value_network_params.",
    "mixer.module.1.weight_1.": "mixer_network_params.module.hyper_w_1.",
    "mixer.module.1.bias_1.": "mixer_network_params.module.hyper_b_1.",
    "mixer.module.1.weight_2.": "mixer_network_params.module.hyper_w_final.",
    "mixer.module.1.bias_2.": "mixer_network_params.module.V.",
}


def counterpart(name):
    """The name of our parameter in BenchMARL's loss."""
    ours, theirs = next(pair for pair in OURS_TO_THEIRS.items() if name.startswith(pair[0]))
    return theirs + name.removeprefix(ours)


def step(run, losses):
    """What BenchMARL does with the losses of a minibatch."""
    for name, optimiser in run.optimizers["agents"].items():
        losses[name].mean().backward()
        run._grad_clip(optimiser)
        optimiser.step()
        optimiser.zero_grad()
    run.target_updaters["agents"].step()


def test_qmix_without_its_additions_is_benchmarls_qmix(tmp_path):
    # Theirs: hypernetworks of one layer, targets by the target network's own greedy action.
    task = MarlTdTask.SIMPLE_SPREAD.get_from_yaml()
    runs = []
    for name, config in (
        ("ours", QmixConfig(hypernet_layers=1, double_q=False)),
        ("theirs", TheirQmixConfig.get_from_yaml()),
    ):
        (tmp_path / name).mkdir()
        runs.append(small_run(tmp_path / name, config, task, **SETTINGS))
    ours, theirs = (run.losses["agents"] for run in runs)
    mine = {k: p for k, p in ours.named_parameters() if p.requires_grad}
    his = dict(theirs.named_parameters())
    assert {counterpart(name) for name in mine} == set(his)
    with torch.no_grad():
        for name, parameter in mine.items():
            his[counterpart(name)].copy_(parameter)
        for live, target in (
            (theirs.local_value_network_params, theirs.target_local_value_network_params),
            (theirs.mixer_network_params, theirs.target_mixer_network_params),
        ):
            target.data.update_(live.data)

    batch = next(iter(runs[1].collector))
    data = [run.algorithm.process_batch("agents", batch.clone()).reshape(-1) for run in runs]
    start = {name: parameter.detach().clone() for name, parameter in mine.items()}
    for _ in range(N_UPDATES):
        rows = torch.randint(len(data[0]), (12,))
        found, expected = ours(data[0][rows]), theirs(data[1][rows])
        torch.testing.assert_close(found["loss_value"], expected["loss"], rtol=1e-4, atol=1e-5)
        for run, losses in zip(runs, (found, expected), strict=True):
            step(run, losses)
    for name, parameter in mine.items():
        torch.testing.assert_close(parameter, his[counterpart(name)], rtol=1e-4, atol=1e-5)
        assert not torch.equal(parameter, start[name])


def as_theirs(name, parameter):
    """Of a parameter of ours: its name in BenchMARL's loss, its value there, and which critic's it is."""
    if name.startswith("actor."):
        return name.replace("actor.network.", "actor_network_params."), parameter, None
    if name == "temperature.log_alpha":
        return "log_alpha", parameter.squeeze(0), None
    layer, kind = name.split(".")[-2:]
    if (layer, kind) == ("0", "weight"):
        # Ours: all observations, all actions; theirs: agent by agent.
        parts = parameter.split([parameter.shape[-1] - 2 * N_AGENTS, 2 * N_AGENTS], -1)
        rows = [part.unflatten(-1, (N_AGENTS, -1)) for part in parts]
        parameter = torch.cat(rows, -1).flatten(-2)
    critic = name.split(".")[1]
    critic = int(critic) if critic.isdigit() else None
    return f"qvalue_network_params.module.0.mlp.params.{layer}.{kind}", parameter, critic


def maddpg_runs(folder):
    """Ours and theirs with the same weights, and pairs of parameters (ours, theirs) to compare."""
    configs = {
        "ours": MaddpgConfig(team_value=True, actor_gradient="all", regularisation_coef=0.0),
        "theirs": TheirMaddpgConfig.get_from_yaml(),
    }
    runs = []
    for name, config in configs.items():
        (folder / name).mkdir()
        options = {"prefer_continuous_actions": True, "off_policy_collected_frames_per_batch": 240}
        task = VmasTask.BALANCE.get_from_yaml()
        runs.append(small_run(folder / name, config, task, **SETTINGS, **options))
    mine = dict(runs[0].losses["agents"].named_parameters())
    his = dict(runs[1].losses["agents"].named_parameters())

    def pairs():
        for name, parameter in mine.items():
            if name.startswith(("actor.", "critic.")):
                key, value, _ = as_theirs(name, parameter)
                yield value, his[key.replace("qvalue", "value")]

    with torch.no_grad():
        for value, other in pairs():
            other.copy_(value)
    return runs, pairs


def targets_follow(ours, theirs):
    """BenchMARL's MADDPG has no target actor: let no target network lag behind, in either."""
    theirs.target_value_network_params.data.update_(theirs.value_network_params.data)
    for network, target in ours.target_pairs():
        target.load_state_dict(network.state_dict())


def test_maddpg_with_one_value_is_benchmarls_maddpg(tmp_path):
    runs, pairs = maddpg_runs(tmp_path)
    ours, theirs = (run.losses["agents"] for run in runs)
    batch = next(iter(runs[1].collector))
    data = [run.algorithm.process_batch("agents", batch.clone()).reshape(-1) for run in runs]
    start = [value.detach().clone() for value, _ in pairs()]
    for _ in range(N_UPDATES):
        rows = torch.randint(len(data[0]), (64,))
        targets_follow(ours, theirs)
        found, expected = ours(data[0][rows]), theirs(data[1][rows])
        for key in ("loss_actor", "loss_value"):
            one, two = (losses[key].mean() for losses in (found, expected))
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
        for run, losses in zip(runs, (found, expected), strict=True):
            step(run, losses)
    for before, (value, other) in zip(start, pairs(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-5)
        assert not torch.equal(value, before)


def masac_runs(folder, shared):
    """Ours and theirs with the same weights, and pairs of parameters (name, ours, theirs) to compare."""
    task = VmasTask.BALANCE.get_from_yaml()  # bounds of -1 and 1: theirs are not scaled
    theirs = TheirMasacConfig.get_from_yaml()
    configs = {
        "ours": MasacConfig(actor_gradient="all", team_value=shared, alpha_init=0.5),
        "theirs": replace(theirs, share_param_critic=shared, alpha_init=0.5),
    }
    runs = []
    for name, config in configs.items():
        (folder / name).mkdir()
        options = {"prefer_continuous_actions": True, "off_policy_memory_size": 2000}
        sizes = {"off_policy_collected_frames_per_batch": 240, "max_n_iters": N_BATCHES}
        runs.append(small_run(folder / name, config, task, **SETTINGS, **options, **sizes))
    ours, theirs = (run.losses["agents"] for run in runs)
    assert theirs.target_entropy == ours.temperature.target_entropy == -2.0
    mine = {k: p for k, p in ours.named_parameters() if p.requires_grad}
    his = dict(theirs.named_parameters())

    def pairs():
        for name, parameter in mine.items():
            key, value, critic = as_theirs(name, parameter)
            yield name, value, his[key] if critic is None else his[key][critic]

    with torch.no_grad():
        for _, value, other in pairs():
            other.copy_(value)
        theirs.target_qvalue_network_params.data.update_(theirs.qvalue_network_params.data)
    return runs, pairs


def with_same_numbers(calls):
    """What each of the ``calls`` returns, begun with the same state of every random stream."""
    streams = global_streams()
    out = []
    for call in calls:
        put_back(streams)
        out.append(call())
    return out


def draw_alike(patch, noise):
    """Both losses draw their actions from ``noise``, whoever draws first."""
    patch.setattr(torch, "randn_like", lambda x, **_: noise[: len(x)])
    patch.setattr(
        "torch.distributions.normal._standard_normal", lambda shape, **_: noise[: shape[0]]
    )


@pytest.mark.parametrize("shared", [False, True], ids=["critic each", "one value"])
def test_masac_whose_critics_teach_all_actors_is_benchmarls_masac(shared, tmp_path, monkeypatch):
    """The whole training: what is collected, drawn from replay, and learned."""
    runs, pairs = masac_runs(tmp_path, shared)
    start = {name: value.detach().clone() for name, value, _ in pairs()}
    buffers = [run.replay_buffers["agents"] for run in runs]
    collectors = [iter(run.collector) for run in runs]
    n_ends = 0
    for _ in range(N_BATCHES):
        batches = with_same_numbers([partial(next, it) for it in collectors])
        n_ends += int(batches[0]["next", "done"].sum())
        torch.testing.assert_close(
            *(batch["agents", "action"] for batch in batches), rtol=1e-3, atol=1e-3
        )
        for run, buffer, batch in zip(runs, buffers, batches, strict=True):
            buffer.extend(run.algorithm.process_batch("agents", batch).reshape(-1))
        for _ in range(N_UPDATES):
            rows = with_same_numbers([buffer.sample for buffer in buffers])
            with monkeypatch.context() as patch:
                draw_alike(patch, torch.randn(64, N_AGENTS, 2))
                found, expected = (
                    run.losses["agents"](row) for run, row in zip(runs, rows, strict=True)
                )
            for key, other in (("actor", "actor"), ("value", "qvalue"), ("alpha", "alpha")):
                torch.testing.assert_close(
                    found[f"loss_{key}"].mean(), expected[f"loss_{other}"], rtol=1e-3, atol=1e-4
                )
            for run, losses in zip(runs, (found, expected), strict=True):
                step(run, losses)
    assert n_ends > 0
    for name, value, other in pairs():
        torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-4)
        assert not torch.equal(value, start[name])
