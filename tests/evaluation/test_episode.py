"""One episode in detail."""

import av
import pytest
import torch
from torchrl.envs import RewardSum, TransformedEnv
from toy_tasks import Hunt, HuntParams

from marl_td.evaluation.episode import draw_episode, record_video
from marl_td.tasks import make_env
from marl_td.tasks.vector_env import VectorEnv


class DrawnHunt(Hunt):
    """A hunt that offers two quantities to draw."""

    def episode_series(self, state):
        return {"life [points]": state.life, "prey's life [points]": state.prey_life.unsqueeze(-1)}


@pytest.fixture
def env():
    task = DrawnHunt(HuntParams(max_steps=6, prey_life=100.0))
    return TransformedEnv(VectorEnv(task, 2), RewardSum(in_keys=[("hunter", "reward")]))


def test_series_have_a_row_per_step(env):
    drawing = draw_episode(env, env.rand_action, seed=1)
    assert {label: tuple(lines.shape) for label, lines in drawing.series.items()} == {
        "life [points]": (6, 3),
        "prey's life [points]": (6, 1),
    }
    assert (drawing.series["life [points]"].diff(dim=0) <= 0).all()
    assert drawing.picture.shape == (4, 5, 3)


def test_the_seed_decides_the_episode_and_nothing_else_moves(env):
    state = torch.get_rng_state()
    one = draw_episode(env, env.rand_action, seed=1).series["life [points]"]
    two = draw_episode(env, env.rand_action, seed=1).series["life [points]"]
    other = draw_episode(env, env.rand_action, seed=2).series["life [points]"]
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_finished_episode_stops_the_drawing():
    env = VectorEnv(DrawnHunt(HuntParams(max_steps=50, prey_life=0.5)), 1)

    def strike(data):
        data = env.rand_action(data)
        data["hunter", "action"] = data["hunter", "action_mask"][..., 2].long() * 2
        return data

    assert len(draw_episode(env, strike, seed=0).series["life [points]"]) == 1


@pytest.mark.parametrize("name, fmt", [("a.mp4", "h264"), ("a.gif", "gif")])
def test_video(tmp_path, name, fmt):
    class Tall(DrawnHunt):
        def render(self, state, index=0):
            return super().render(state, index).repeat(9, 0).repeat(9, 1)  # odd sizes: 36 x 45

    env = VectorEnv(Tall(HuntParams(max_steps=6, prey_life=100.0)), 1)
    assert record_video(env, env.rand_action, 0, tmp_path / "sub" / name, fps=5) == 6
    with av.open(str(tmp_path / "sub" / name)) as video:
        stream = video.streams.video[0]
        assert stream.codec_context.name == fmt
        assert (stream.width, stream.height) == (44, 36)
        assert len(list(video.decode(stream))) == 6


def test_a_task_without_renderer_has_no_video(tmp_path):
    env = make_env("matrix_game", 1)
    with pytest.raises(ValueError, match="this task has no renderer"):
        record_video(env, env.rand_action, 0, tmp_path / "a.mp4")
    assert draw_episode(env, env.rand_action, 0).picture is None
