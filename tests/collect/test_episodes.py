"""Whole episodes: sums that stop at the first `done`."""

import pytest
import torch
from judging import always
from torchrl.envs import SerialEnv, TransformedEnv
from toy_tasks import Hunt, HuntParams

from marl_td.collect.episodes import batched_task, run_episodes
from marl_td.tasks import make_env
from marl_td.tasks.vector_env import VectorEnv


def test_sums_stop_at_the_first_done():
    """Three games worth 4 each; the environment goes on after them, the sums do not."""
    env = make_env("matrix_game", 5, payoff=[[1.0, 0.0], [0.0, 4.0]], repeats=3)
    episodes = run_episodes(env, always(1), max_steps=10)
    assert episodes.totals["return"].tolist() == [12.0] * 5
    assert episodes.totals["steps"].tolist() == [3.0] * 5
    assert episodes.group_return["agents"].tolist() == [12.0] * 5


def test_a_limit_cuts_episodes():
    env = make_env("matrix_game", 2, payoff=[[1.0, 0.0], [0.0, 4.0]], repeats=3)
    assert run_episodes(env, always(0), max_steps=2).totals["return"].tolist() == [2.0, 2.0]


def test_copies_end_at_their_own_step_and_info_is_summed():
    """Hunters that always strike: each copy's damage is what its own episode did, not the next one's."""
    env = VectorEnv(Hunt(HuntParams(max_steps=30)), 16, seed=3)

    def strike(data):
        data = env.rand_action(data)
        able = data["hunter", "action_mask"][..., 2]
        data["hunter", "action"] = torch.where(able, 2, 0)
        return data

    episodes = run_episodes(env, strike)
    assert (episodes.totals["damage"] >= 4.0).any()
    ended = episodes.totals["damage"] >= 4.0
    assert (
        episodes.totals["damage"][ended] <= 6.0
    ).all()  # 3 hunters: the last blow overshoots by 2 at most
    assert (episodes.totals["steps"][ended] < 30).all()
    # The return averages over the 3 hunters (+1 a hit) and the prey (-1 a hit): zero in every step.
    torch.testing.assert_close(episodes.totals["return"], torch.zeros(16, dtype=torch.float64))
    torch.testing.assert_close(episodes.group_return["prey"], -episodes.totals["damage"])


def test_copies_without_batch_dimension_make_one_episode():
    env = SerialEnv(2, lambda: make_env("matrix_game", 3))
    assert env.batch_size == (2, 3)
    episodes = run_episodes(env, None, max_steps=4)
    assert episodes.totals["return"].shape == (6,)


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_task_is_found_behind_transforms(wrapped):
    env = make_env("matrix_game", 1)
    assert batched_task(TransformedEnv(env) if wrapped else env) is env.task
    assert batched_task(SerialEnv(1, lambda: make_env("matrix_game", 1))) is None


def test_every_step_is_shown_with_the_active_copies():
    seen = []
    env = make_env("matrix_game", 2, repeats=2)
    run_episodes(env, None, max_steps=3, on_step=lambda step, active: seen.append(active.tolist()))
    assert seen == [[True, True], [True, True], [False, False]]
