"""One agent knows where to go and cannot move, the other can move and does not know where to.

Description:
    ``simple_speaker_listener`` of the multi-particle environments (Lowe et al. 2017,
    https://arxiv.org/abs/1706.02275), equal step by step to ``mpe2.simple_speaker_listener_v4``: the
    speaker sees the colour of the goal, one of three landmarks, and says a word in every step; the
    listener hears the word, sees the landmarks, and is rewarded for being near the goal. Nothing collides.

Groups: ``speaker`` and ``listener``, one agent each.

Action space: continuous, ``speaker`` ``Box(3)`` in [0, 1], the word as three numbers, ``listener``
    ``Box(5)`` in [0, 1]: nothing, left, right, down, up; or discrete: one of three words, one of five moves.

Observation space (float32, in this order):

    ===========  ===============================  ======  ========================================
    group        entry                            width   unit
    ===========  ===============================  ======  ========================================
    speaker      colour of the goal               3       0.65 at the goal's number, 0.15 elsewhere
    listener     own velocity                     2       length per s
    listener     landmarks, as seen from here     6       length, x and y
    listener     word said in the step before     3       0 to 1, zeros at the start
    ===========  ===============================  ======  ========================================

Global state: place and velocity of the listener, landmarks, marks of the goal (1 there, else 0),
    word, ``[16]``.
Reward (both agents): minus the squared distance of the listener from the goal.
Start: listener and landmarks uniform in ``[-1, 1]^2``, at rest; each landmark is the goal equally often.
End: never terminates; ``max_steps`` truncates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from marl_td.tasks.base import (
    Box,
    Discrete,
    Groups,
    GroupSpec,
    Noise,
    Policy,
    Step,
    Task,
    TaskParams,
)
from marl_td.tasks.particle import goals, physics
from marl_td.tasks.particle.views import columns

N_LANDMARKS = 3
"""Landmarks, and words: one for each."""
DIM, BRIGHT = 0.15, 0.65
"""What the speaker sees for the other landmarks and for the goal."""
RADIUS = 0.075
"""Radius of the listener, for pictures."""
REACHED = 0.1
"""The goal is reached if the listener's centre is closer than this."""


@dataclass
class SpeakerListenerParams(TaskParams):
    """Parameters of ``simple_speaker_listener``."""

    max_steps: int = 25
    """Time limit in steps of 0.1 s; reaching it truncates the episode, it never terminates it."""


class SpeakerListenerState(NamedTuple):
    """Listener, landmarks, goal and word; in memory environments come last."""

    position: Tensor
    """Of the listener, ``[n_envs, 1, 2]``."""
    velocity: Tensor
    """``[n_envs, 1, 2]``."""
    landmark: Tensor
    """``[n_envs, 3, 2]``."""
    goal: Tensor
    """1 at the goal, else 0, ``[n_envs, 3]``."""
    word: Tensor
    """What the listener has heard, ``[n_envs, 3]``."""


class SimpleSpeakerListener(Task[SpeakerListenerParams, SpeakerListenerState]):
    """See the module's docstring."""

    name = "simple_speaker_listener"
    Params: ClassVar[type[TaskParams]] = SpeakerListenerParams
    terminates = False
    info_keys: ClassVar[tuple[str, ...]] = ("distance", "reached")

    # ------------------------------------------------------------------ shape
    @property
    def groups(self) -> dict[str, GroupSpec]:
        n = N_LANDMARKS
        words = tuple(f"word {i}" for i in range(n))
        say = Box((0.0,) * n, (1.0,) * n, words) if self.continuous else Discrete(n, words)
        move = physics.push_action(self.continuous)
        return {"speaker": GroupSpec(1, n, say), "listener": GroupSpec(1, 2 + 2 * n + n, move)}

    @property
    def d_state(self) -> int:
        return 4 + 4 * N_LANDMARKS

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        """``position`` and ``landmark``, shaped as in the state, in [0, 1); ``goal`` ``[n_envs]``."""
        places = physics.draw_uniform(n_envs, generator, position=1, landmark=N_LANDMARKS)
        return {**places, "goal": goals.draw_goal(n_envs, N_LANDMARKS, generator)}

    def reset(self, n_envs: int, noise: Noise) -> SpeakerListenerState:
        position, landmark = (2.0 * noise[name] - 1.0 for name in ("position", "landmark"))
        goal = goals.marked(noise["goal"], landmark)
        silence = torch.zeros_like(goal)
        return SpeakerListenerState(position, torch.zeros_like(position), landmark, goal, silence)

    def step(
        self, state: SpeakerListenerState, action: Groups, noise: Noise
    ) -> Step[SpeakerListenerState]:
        position, velocity = physics.inside(state.position), physics.inside(state.velocity)
        force = physics.control(action["listener"], self.continuous)
        position, velocity = physics.move(position, velocity, force)

        way = position - goals.place_of(state.goal, state.landmark)
        squared = way.square().sum(0)  # [1, n_envs]
        distance = squared.sqrt().squeeze(0)
        reward = -squared.transpose(0, 1)
        info = {"distance": distance, "reached": (distance < REACHED).to(distance.dtype)}
        state = state._replace(
            position=physics.outside(position),
            velocity=physics.outside(velocity),
            word=self._word(action["speaker"], state.word.dtype),
        )
        never = torch.zeros(distance.shape[0], dtype=torch.bool, device=distance.device)
        return Step(state, {"speaker": reward, "listener": reward}, never, info)

    def _word(self, action: Tensor, dtype: torch.dtype) -> Tensor:
        """What is said, ``[n_envs, 3]``, environments last in memory."""
        if self.continuous:
            said = action[:, 0].transpose(0, 1).clamp(0.0, 1.0).contiguous()
        else:
            words = torch.arange(N_LANDMARKS, device=action.device).unsqueeze(-1)
            said = words == action[:, 0]
        return said.to(dtype).transpose(0, 1)

    # ------------------------------------------------------------ observation
    def observe(self, state: SpeakerListenerState) -> Groups:
        position, velocity = physics.inside(state.position), physics.inside(state.velocity)
        landmark = columns(physics.offsets(position, physics.inside(state.landmark)))
        heard = state.word.transpose(0, 1).unsqueeze(1)
        colour = DIM + (BRIGHT - DIM) * state.goal.transpose(0, 1).unsqueeze(1)
        seen = torch.cat([velocity, landmark, heard], 0)
        return {"speaker": physics.outside(colour), "listener": physics.outside(seen)}

    def team_state(self, state: SpeakerListenerState) -> Tensor:
        return torch.cat([part.flatten(1) for part in state], -1)

    # ---------------------------------------------------------------- judging
    def baselines(self) -> dict[str, Policy]:
        from marl_td.tasks.particle.guide import Guide

        return {"guide": Guide(self.continuous), "deaf": Guide(self.continuous, deaf=True)}

    def episode_series(self, state: SpeakerListenerState) -> dict[str, Tensor]:
        """Distance of the listener from the goal."""
        way = physics.inside(state.position) - goals.place_of(state.goal, state.landmark)
        return {"listener to goal [length]": way.square().sum(0).sqrt().transpose(0, 1)}

    def render(self, state: SpeakerListenerState, index: int = 0) -> Any:
        from marl_td.tasks.particle.render import BLUE, GREEN, GREY, RED, Discs, Marks, draw

        colours = (RED, GREEN, BLUE)
        goal = colours[int(state.goal[index].argmax())]
        marks = [
            Marks(place.unsqueeze(0), colour)
            for place, colour in zip(state.landmark[index], colours, strict=True)
        ]
        word = ", ".join(f"{part:.2f}" for part in state.word[index].tolist())
        goal_of = Discs(state.position[index], RADIUS, goal, numbered=False)
        discs = [goal_of, Discs(state.position[index], RADIUS / 3, GREY, numbered=False)]
        return draw(discs, marks, f"word: {word}")
