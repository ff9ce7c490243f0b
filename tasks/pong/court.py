"""The ball's way in one step: walls, paddles, the goal lines."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from marl_td.tasks.pong.params import PongParams

LEFT, RIGHT = 0, 1


class Flight(NamedTuple):
    """Where a ball ends after a step, and what happened at a goal line on the way."""

    position: Tensor
    """x and y, ``[n_envs, 2]``."""
    velocity: Tensor
    """Way in a step, ``[n_envs, 2]``."""
    hit: Tensor
    """Whether a paddle returned it, ``[n_envs]`` bool."""
    missed: Tensor
    """Whether left and right missed it, ``[n_envs, 2]`` bool."""


def fold(y: Tensor) -> tuple[Tensor, Tensor]:
    """The height of a ball that would be at ``y`` without walls, and the sign of its rise (1 or -1)."""
    around = torch.remainder(y, 2.0)
    return 1.0 - (around - 1.0).abs(), torch.where(around > 1.0, -1.0, 1.0)


def ball_speed(params: PongParams, hits: Tensor) -> Tensor:
    """Way of the ball in a step after ``hits`` hits, any shape."""
    return (params.serve_speed * params.speed_up**hits).clamp_max(params.max_speed)


def fly(
    params: PongParams,
    position: Tensor,
    velocity: Tensor,
    hits: Tensor,
    paddle: Tensor,
    present: Tensor,
) -> Flight:
    """Let the ball fly for one step, with at most one goal line on its way.

    Walls reflect it. At a goal line the nearest paddle of that side returns it, if it is at most
    ``half_length`` away: at an angle in proportion to how far from its middle the ball meets it, and faster.

    Args:
        params: the court.
        position: ball, x and y, ``[n_envs, 2]``.
        velocity: its way in a step, x not 0, ``[n_envs, 2]``.
        hits: since the serve, ``[n_envs]`` float.
        paddle: heights, ``[n_envs, 2, n_side]``, left and right.
        present: paddles that can hit, likewise, bool.
    """
    (x, y), (vx, vy) = position.unbind(-1), velocity.unbind(-1)
    rightward = vx > 0
    line = rightward.to(x.dtype)
    time = (line - x) / vx
    arrives = time <= 1.0
    at_line, _ = fold(y + vy * time)

    side = rightward.long()[:, None, None].expand(-1, 1, paddle.shape[-1])
    offset = at_line.unsqueeze(-1) - paddle.gather(1, side).squeeze(1)  # [n_envs, n_side]
    gap = torch.where(present.gather(1, side).squeeze(1), offset.abs(), torch.inf)
    least, nearest = gap.min(-1, keepdim=True)
    offset = offset.gather(-1, nearest).squeeze(-1)
    hit = arrives & (least.squeeze(-1) <= params.half_length)

    angle = (offset / params.half_length).clamp(-1.0, 1.0) * params.sharpest
    speed = ball_speed(params, hits + 1)
    back_x, back_y = torch.where(rightward, -1.0, 1.0) * speed * angle.cos(), speed * angle.sin()
    left = 1.0 - time
    vx, vy = torch.where(hit, back_x, vx), torch.where(hit, back_y, vy)
    x = torch.where(hit, line + vx * left, torch.where(arrives, line, x + vx))
    y, rise = fold(torch.where(hit, at_line + vy * left, torch.where(arrives, at_line, y + vy)))
    miss = arrives & ~hit
    missed = torch.stack([miss & ~rightward, miss & rightward], -1)
    return Flight(torch.stack([x, y], -1), torch.stack([vx, vy * rise], -1), hit, missed)


def serve(params: PongParams, side: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Place and velocity of a served ball, each ``[n_envs, 2]``.

    Args:
        params: the court.
        side: uniform in [0, 1), ``[n_envs]``: below 1/2 to the left.
        slope: uniform in [0, 1), ``[n_envs]``: the angle, from steepest down to steepest up.
    """
    angle = (2.0 * slope - 1.0) * params.sharpest
    across = torch.where(side < 0.5, -1.0, 1.0) * angle.cos()
    velocity = params.serve_speed * torch.stack([across, angle.sin()], -1)
    return torch.full_like(velocity, 0.5), velocity
