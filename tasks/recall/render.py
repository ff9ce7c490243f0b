"""Picture of the memory game."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from marl_td.tasks.recall.task import RecallParams, RecallState

SHOWN, HIDDEN, WRONG, RIGHT = "#f2c230", "#c8c8c8", "#d95959", "#59b359"


def draw(params: RecallParams, state: RecallState, index: int) -> np.ndarray[Any, Any]:
    """The agents of environment ``index`` as ``uint8 [200, 600, 3]``: a card for each.

    A card carries the agent's cue: yellow while it is shown, grey and in brackets while it must be
    remembered, and between red (wrong) and green (right) once it is answered.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    step, answer_at = int(state.step[index]), int(state.answer_at[index])
    figure = Figure(figsize=(6, 2), dpi=100)
    canvas: Any = FigureCanvasAgg(figure)
    axes: Any = figure.add_axes((0, 0, 1, 0.8))
    axes.set(xlim=(0, params.n_agents), ylim=(0, 1), xticks=[], yticks=[])
    grade = LinearSegmentedColormap.from_list("grade", [WRONG, RIGHT])
    cards = zip(state.cue[index].tolist(), state.right[index].tolist(), strict=True)
    for place, (cue, right) in enumerate(cards):
        hidden = 0 < step <= answer_at
        color = SHOWN if step == 0 else HIDDEN if hidden else grade(right)
        axes.add_patch(Rectangle((place + 0.1, 0.1), 0.8, 0.8, facecolor=color, edgecolor="black"))
        text = f"({cue})" if hidden else str(cue)
        axes.text(place + 0.5, 0.5, text, ha="center", va="center", fontsize=20)
    if step > answer_at:
        title = "answered"
    else:
        phase = "cue" if step == 0 else "answer now" if step == answer_at else "wait"
        title = f"step {step} of {answer_at}: {phase}"
    figure.suptitle(title)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
