"""Whole episodes by the compiled rollout: the sums of the ordinary evaluation."""

import pytest
import torch
from discrete_teams import Teams, TeamsParams
from short_runs import short_experiment
from tensordict.nn import TensorDictModule, TensorDictSequential
from torchrl.envs import Compose, RewardSum, TransformedEnv
from torchrl.envs.utils import ExplorationType

from marl_td.collect import compiled_episodes
from marl_td.collect.compiled_episodes import CompiledEpisodes
from marl_td.collect.episodes import run_episodes
from marl_td.models.exploration import EpsilonGreedy
from marl_td.tasks import make_env
from marl_td.tasks.vector_env import VectorEnv
from marl_td.training.metrics import read_metrics
from marl_td.training.periodic_evaluation import n_evaluations


def teams_env(n_envs: int = 9) -> TransformedEnv:
    """Two teams; copy i ends after ``2 + i % 7`` steps, at most 7."""
    env = VectorEnv(Teams(TeamsParams(max_steps=7, masked=False), continuous=False), n_envs)
    sums = RewardSum([("red", "reward"), ("blue", "reward")], [("red", "total"), ("blue", "total")])
    return TransformedEnv(env, Compose(sums))


class Clock(torch.nn.Module):
    """Takes the action of the step, but every third step a wrong one."""

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        step = observation[..., 1].long()
        return (step + (step % 3 == 0).long()) % 3


def policy(eps: float = 0.0) -> TensorDictSequential:
    groups = ("red", "blue")
    parts = [TensorDictModule(Clock(), [(g, "observation")], [(g, "action")]) for g in groups]
    explore = EpsilonGreedy(3, ("red", "action"), eps_init=eps, eps_end=eps, annealing_steps=1)
    return TensorDictSequential(*parts, explore)


def compiled(env, *, max_steps: int = 7, mode=ExplorationType.DETERMINISTIC, eps: float = 0.0):
    return CompiledEpisodes(env, policy(eps), max_steps, mode, backend="eager")


@pytest.mark.parametrize(("longest", "max_steps"), [(256, 7), (3, 7), (2, 5)])
def test_sums_equal_those_of_single_steps(monkeypatch, longest, max_steps):
    """In one chunk and in several, with episodes that end early, late, and are cut."""
    monkeypatch.setattr(compiled_episodes, "LONGEST_CHUNK", longest)
    expected = run_episodes(teams_env(), policy(), max_steps)
    episodes = compiled(teams_env(), max_steps=max_steps)
    assert episodes.collector.starts.number == 1  # the episodes after the first are not looked at
    for _ in range(2):  # the second time from fresh episodes again
        found = episodes.run()
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.keys() == theirs.keys()
            for name in theirs:
                torch.testing.assert_close(ours[name], theirs[name])
    assert expected.totals["steps"].unique().numel() > 3


def test_no_chunk_follows_the_last_episode(monkeypatch):
    monkeypatch.setattr(compiled_episodes, "LONGEST_CHUNK", 3)
    episodes = compiled(teams_env(1), max_steps=7)  # its only copy ends after 2 steps
    calls = []
    rollout = episodes.collector.rollout
    monkeypatch.setattr(episodes.collector, "rollout", lambda: calls.append(1) or rollout())
    assert episodes.run().totals["steps"].tolist() == [2.0]
    assert len(calls) == 1


def test_the_policy_explores_only_if_it_shall():
    always_random = {"eps": 1.0}
    expected = run_episodes(teams_env(200), policy()).group_return["red"].mean()
    greedy = compiled(teams_env(200), **always_random).run()
    assert greedy.group_return["red"].mean() == expected
    random = compiled(teams_env(200), mode=ExplorationType.RANDOM, **always_random).run()
    blue = run_episodes(teams_env(200), policy()).group_return["blue"]
    assert torch.equal(random.group_return["blue"], blue)
    # One of three actions is right; red's first agent is dead after two steps.
    steps = float(random.totals["steps"].mean())
    expected = (2 + (steps - 2) / 2) / 3
    assert random.group_return["red"].mean() == pytest.approx(expected, rel=0.1)


def test_copies_of_a_task_with_noise_have_the_same_distribution():
    def act(data):
        data["agents", "action"] = torch.zeros_like(data["agents", "observation"][..., 0]).long()
        return data

    def env():
        return make_env("banking", 200, max_steps=40)

    plain = run_episodes(env(), act).totals
    chunked = CompiledEpisodes(env(), act, 40, ExplorationType.MODE, backend="eager").run().totals
    assert plain.keys() == chunked.keys()
    for name in ("return", "arrivals", "latency"):
        error = (plain[name].var() / 200 + chunked[name].var() / 200).sqrt()
        assert (plain[name].mean() - chunked[name].mean()).abs() < 4 * error, name


def test_evaluations_of_a_run_are_counted(tmp_path):
    experiment = short_experiment(tmp_path / "run")
    experiment.run()
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    done = sum(bool(row["eval/score_mean"]) for row in rows)
    # Here the first iteration is one of the intervals' ends, and so is the last.
    assert n_evaluations(experiment.config, experiment.on_policy) == done + 2
    assert experiment.compiled_episodes is None  # so few steps do not pay


@pytest.mark.parametrize("mode", ["on", "off"])
def test_a_run_compiles_its_evaluation_if_asked_to(tmp_path, mode):
    experiment = short_experiment(tmp_path / mode, f"experiment.compile={mode}")
    assert (experiment.compiled_episodes is not None) == (mode == "on")
    experiment.close()
