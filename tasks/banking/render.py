"""Picture of the payment system: routers on the left, channels with their servers on the right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from marl_td.tasks.banking.params import CHANNELS

if TYPE_CHECKING:
    from marl_td.tasks.banking.dynamics import BankingState
    from marl_td.tasks.banking.task import Banking

COLOURS = ("#2a78b5", "#e08a1e", "#5a9a3c")
IDLE = "#e4e4e4"
LEFT, RIGHT, CELL, SHOWN = 1.0, 4.0, 0.22, 30
"""Where routers and channels stand, width of one payment, and how many payments a row shows."""


def draw(task: Banking, state: BankingState, index: int = 0) -> np.ndarray[Any, Any]:
    """Environment ``index`` as ``uint8 [400, 1000, 3]``.

    Filled cells are busy servers, pale ones idle servers, striped ones waiting payments; an arrow is
    as wide as the number of payments a router has sent in the last ``stale`` steps.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=100)
    canvas: Any = FigureCanvasAgg(figure)
    axes: Any = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 12), ylim=(0, 4.8), xticks=[], yticks=[])
    axes.axis("off")
    n_agents = task.params.n_agents
    router_y = np.linspace(4.0, 0.6, n_agents) if n_agents > 1 else np.array([2.3])
    channel_y = np.linspace(3.8, 0.8, len(CHANNELS))
    sent = state.sent[index].sum(0).tolist()
    buffer = state.buffer[index].sum(-1).tolist()
    for i, y in enumerate(router_y):
        for k, goal in enumerate(channel_y):
            if sent[i][k] > 0:
                arrow = {"arrowstyle": "-|>", "color": COLOURS[k], "lw": 1.0 + sent[i][k]}
                axes.annotate("", (RIGHT - 0.1, goal), (LEFT + 0.3, y), arrowprops=arrow)
        axes.plot(LEFT, y, "o", markersize=26, color="#444444")
        axes.text(LEFT, y, f"{buffer[i]:.0f}", color="white", ha="center", va="center")
        axes.text(LEFT - 0.35, y, f"router {i + 1}", ha="right", va="center", fontsize=8)
    queue = state.queue[index].tolist()
    for k, y in enumerate(channel_y):
        _channel(axes, k, float(y), int(queue[k]), task.params.servers[k])
    risk = 100.0 * float(task.portfolio_risk(state)[index])
    total = sum(queue) + sum(buffer)
    axes.text(0.2, 4.55, f"{total:.0f} payments in the system, portfolio risk {risk:.2f} %")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _channel(axes: Any, k: int, y: float, number: int, servers: int) -> None:
    """One channel: a row of cells, its servers first and then the waiting payments."""
    from matplotlib.patches import Rectangle

    for cell in range(min(max(servers, number), SHOWN)):
        corner = (RIGHT + CELL * cell, y - 0.2)
        waiting = cell >= servers
        axes.add_patch(
            Rectangle(
                corner,
                CELL * 0.85,
                0.4,
                facecolor=COLOURS[k] if cell < number else IDLE,
                alpha=0.5 if waiting else 1.0,
                hatch="///" if waiting else None,
                edgecolor="white",
            )
        )
    busy = min(number, servers)
    text = f"{CHANNELS[k]}: {busy} of {servers} servers busy, {number - busy} waiting"
    axes.text(RIGHT, y + 0.32, text, fontsize=9, va="bottom")
