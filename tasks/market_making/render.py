"""Picture of the market: each maker's quotes around the mid price, what was filled, and its inventory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from marl_td.tasks.market_making.params import MarketMakingParams

if TYPE_CHECKING:
    from marl_td.tasks.market_making.task import MarketState

BID, ASK, INK, PALE, GRID = "#2a78b5", "#c9482c", "#2c3440", "#9aa1ab", "#e3e6ea"
MOST_SHOWN = 12
"""Makers that a picture has room for."""


def draw(params: MarketMakingParams, state: MarketState, index: int) -> np.ndarray[Any, Any]:
    """Environment ``index`` as ``uint8 [440, 640, 3]``.

    Above: a column per maker with its bid and ask of the last step, full where it was filled, and the best
    quotes as lines. Below: inventories between -Q and Q.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), dpi=100)
    canvas: Any = FigureCanvasAgg(figure)
    quotes: Any = figure.add_axes((0.11, 0.42, 0.87, 0.47))
    stock: Any = figure.add_axes((0.11, 0.08, 0.87, 0.26))
    shown = min(params.n_agents, MOST_SHOWN)
    row = {name: value[index].cpu().numpy() for name, value in state._asdict().items()}
    _quotes(quotes, params, row, shown)
    _inventories(stock, params, row, shown)
    more = f", {shown} of {params.n_agents} makers" if shown < params.n_agents else ""
    text = f"mid price \\${row['price']:.2f}   wealth \\${row['wealth'].sum():+.1f}   "
    text += f"step {row['step']} of {params.max_steps}{more}"
    figure.text(0.5, 0.945, text, ha="center", color=INK, fontsize=11)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _quotes(axes: Any, params: MarketMakingParams, row: dict[str, Any], shown: int) -> None:
    top = 1.12 * params.max_depth
    axes.set(xlim=(-0.6, shown - 0.4), ylim=(-top, top), xticks=[])
    axes.set_ylabel("quotes (\\$ from the mid)", color=INK, fontsize=9)
    axes.axhline(0.0, color=INK, lw=1)
    for side, (sign, colour) in enumerate(((-1, BID), (1, ASK))):
        best = row["depth"][:, side].min()
        if np.isfinite(best):
            axes.axhline(sign * best, color=colour, lw=1, ls=":")
        for maker in range(shown):
            depth, filled = row["depth"][maker, side], row["filled"][maker, side]
            if not np.isfinite(depth):
                continue
            height = sign * depth
            axes.plot([maker - 0.3, maker + 0.3], [height] * 2, color=colour, lw=2.5)
            if filled > 0:
                axes.plot(maker, height, "o", color=colour, markersize=12)
                axes.text(maker, height, f"{filled:.0f}", color="white", ha="center", va="center")
    _tidy(axes)


def _inventories(axes: Any, params: MarketMakingParams, row: dict[str, Any], shown: int) -> None:
    most = params.max_inventory
    axes.set(xlim=(-0.6, shown - 0.4), ylim=(-1.15 * most, 1.15 * most), yticks=[-most, 0, most])
    axes.set_xticks(
        range(shown), labels=[f"maker {maker + 1}" for maker in range(shown)], rotation=0
    )
    axes.set_ylabel("inventory", color=INK, fontsize=9)
    axes.axhline(0.0, color=INK, lw=1)
    for maker in range(shown):
        units = row["inventory"][maker]
        if not row["alive"][maker]:
            axes.text(maker, 0.1 * most, "failed", color=PALE, ha="center", va="bottom", fontsize=9)
            continue
        axes.bar(maker, units, 0.5, color=BID if units >= 0 else ASK)
        at = units + (0.06 if units >= 0 else -0.06) * most
        va = "bottom" if units >= 0 else "top"
        axes.text(maker, at, f"{units:+.0f}", color=INK, ha="center", va=va, fontsize=9)
    _tidy(axes)


def _tidy(axes: Any) -> None:
    axes.tick_params(length=0, labelsize=8, colors=INK)
    axes.grid(axis="y", color=GRID, lw=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_color(GRID)
