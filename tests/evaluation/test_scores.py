"""Scores of policies: counts, seeds, no trace outside."""

import pytest
import torch
from judging import always
from toy_tasks import Hunt, HuntParams

from marl_td.evaluation.scores import evaluate_episodes, evaluate_policy
from marl_td.tasks import make_env, make_task
from marl_td.tasks.vector_env import VectorEnv

PAYOFF = [[1.0, 0.0], [0.0, 4.0]]


@pytest.mark.parametrize("n_episodes", [1, 3, 8])
def test_as_many_scores_as_asked_for(n_episodes):
    task = make_task("matrix_game", payoff=PAYOFF, repeats=2)
    assert evaluate_policy(task, always(1), n_episodes, seed=0).tolist() == [8.0] * n_episodes
    env = make_env("matrix_game", 3, payoff=PAYOFF, repeats=2)
    assert evaluate_policy(env, always(1), n_episodes, seed=0).tolist() == [8.0] * n_episodes


def test_a_seed_repeats_and_another_differs():
    task = Hunt(HuntParams())
    first, again, other = (
        evaluate_episodes(task, None, 20, seed).totals["damage"] for seed in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_seed_is_the_environment_s_and_the_policy_s():
    """An environment that was used before, and draws in between, change nothing."""
    env = VectorEnv(Hunt(HuntParams()), 20, seed=1)
    first = evaluate_episodes(env, None, 20, 5).totals["damage"]
    torch.rand(7)
    assert torch.equal(first, evaluate_episodes(env, None, 20, 5).totals["damage"])

    class Weather(Hunt):
        """Its noise decides the score, its policy does not."""

        info_keys = ("life",)

        def step(self, state, action, noise):
            step = super().step(state, action, noise)
            return step._replace(info={"life": step.state.life.sum(-1)})

    def rest(data):
        return data.update(
            {
                "hunter": {"action": torch.zeros(*data["hunter"].batch_size, dtype=torch.long)},
                "prey": {"action": torch.zeros(*data["prey"].batch_size, 2)},
            }
        )

    one, two = (
        evaluate_episodes(Weather(HuntParams()), rest, 4, seed).totals["life"] for seed in (1, 2)
    )
    assert not torch.equal(one, two)


def test_nothing_outside_is_disturbed():
    task = Hunt(HuntParams())
    training = make_env("matrix_game", 2)
    state, own = torch.get_rng_state(), training.rng.get_state()
    evaluate_policy(task, None, 4, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(training.rng.get_state(), own)


def test_the_task_s_score_is_used():
    class Damage(Hunt):
        def score(self, totals):
            return totals["damage"] / totals["steps"]

    scores = evaluate_policy(Damage(HuntParams()), None, 6, seed=0)
    episodes = evaluate_episodes(Damage(HuntParams()), None, 6, seed=0)
    torch.testing.assert_close(scores, episodes.totals["damage"] / episodes.totals["steps"])


def test_no_episodes_are_refused():
    with pytest.raises(ValueError, match="number of episodes must be at least 1; got 0"):
        evaluate_policy(make_task("matrix_game"), None, 0, seed=0)
