"""One episode in detail: the lines a task wants drawn, a picture, a video."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchrl.envs import EnvBase, TransformedEnv
from torchrl.envs.utils import set_exploration_type

from marl_td.collect.episodes import MAX_STEPS, batched_task, exploration
from marl_td.collect.rng import isolated_rng
from marl_td.evaluation.scores import PolicyFunction
from marl_td.training.files import TEMPORARY

Picture = np.ndarray[Any, Any]


class EpisodeDrawing(NamedTuple):
    """Each series of the task as ``[n_steps, n_lines]`` by label, and a picture of its middle."""

    series: dict[str, Tensor]
    picture: Picture | None


def draw_episode(
    env: EnvBase, policy: PolicyFunction, seed: int, deterministic: bool = True
) -> EpisodeDrawing:
    """Run one episode of copy 0 and keep what the task offers to draw.

    Args:
        env: an environment over one of our tasks, transforms included.
        policy: writes the actions.
        seed: of the episode.
        deterministic: take the policy's best actions; draw them otherwise.
    """
    task = batched_task(env)
    if task is None:
        return EpisodeDrawing({}, None)
    series: dict[str, list[Tensor]] = {}
    picture = None
    for step, base in enumerate(_steps(env, policy, seed, task.params.max_steps, deterministic)):
        for label, value in task.episode_series(base.state).items():
            series.setdefault(label, []).append(value[0].detach().cpu())
        if step == task.params.max_steps // 2:
            picture = _render(base)
    return EpisodeDrawing({label: torch.stack(v) for label, v in series.items()}, picture)


def record_video(
    env: EnvBase,
    policy: PolicyFunction,
    seed: int,
    path: Path,
    fps: int = 20,
    every: int = 1,
    deterministic: bool = True,
) -> int:
    """Write one episode of copy 0 as a video; ``.gif`` gives a GIF, anything else H.264 in that container.

    Args:
        env: any environment whose ``render()`` gives ``uint8 [height, width, 3]``.
        policy: writes the actions.
        seed: of the episode.
        path: the file.
        fps: pictures per second.
        every: take each ``every``-th step.
        deterministic: take the policy's best actions; draw them otherwise.

    Returns:
        Number of pictures.

    Raises:
        ValueError: if the environment has no renderer.
    """
    pictures = []
    for step, base in enumerate(_steps(env, policy, seed, None, deterministic)):
        if step % every == 0:
            picture = _render(base)
            if picture is None:
                raise ValueError("this task has no renderer, so there is no video of it.")
            pictures.append(picture)
    write_video(path, pictures, fps)
    return len(pictures)


@torch.no_grad()
def _steps(
    env: EnvBase, policy: PolicyFunction, seed: int, max_steps: int | None, deterministic: bool
) -> Iterator[Any]:
    """The innermost environment after each step, until copy 0 is done."""
    task = batched_task(env)
    if max_steps is None:
        max_steps = MAX_STEPS if task is None else task.params.max_steps
    base: Any = env
    while isinstance(base, TransformedEnv):
        base = base.base_env
    with isolated_rng(seed), set_exploration_type(exploration(deterministic)):
        env.set_seed(seed)
        data = env.reset()
        for _ in range(max_steps):
            stepped = env.step(policy(data))
            yield base
            if bool(stepped["next", "done"].reshape(-1)[0]):
                return
            data = env.step_mdp(stepped)


def _render(env: Any) -> Picture | None:
    try:
        picture = env.render(mode="rgb_array")
    except NotImplementedError:
        return None
    return np.asarray(picture)


def write_video(path: Path, pictures: list[Picture], fps: int) -> None:
    """Encode with PyAV, whole or not at all; sizes are cut to even numbers, which H.264 needs."""
    import av

    height, width = (size - size % 2 for size in pictures[0].shape[:2])
    is_gif = path.suffix.lower() == ".gif"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        with av.open(str(part), mode="w") as container:
            stream: Any = container.add_stream("gif" if is_gif else "h264", rate=fps)
            stream.width, stream.height = width, height
            stream.pix_fmt = "rgb8" if is_gif else "yuv420p"
            for picture in pictures:
                frame = av.VideoFrame.from_ndarray(
                    np.ascontiguousarray(picture[:height, :width]), format="rgb24"
                )
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
