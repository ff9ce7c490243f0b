"""Batteries: what they can take and give in a step, what is stored after it, and how they level a day.

Powers are seen from the grid: above 0 a battery feeds in, below it takes. Of what it takes, the root of
``storage_efficiency`` is stored; of what it gives up, the same share reaches the grid.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from marl_td.tasks.energy_grid.dynamics import Window, close_gap
from marl_td.tasks.energy_grid.params import EnergyGridParams

HALVINGS = 60
TAPER = 2.0
"""Hours for which a battery that levels the load can go on as it does, at least."""


def one_way(params: EnergyGridParams) -> float:
    """Share of the energy that is left after one way, in or out."""
    return math.sqrt(params.storage_efficiency)


def window(params: EnergyGridParams, charge: Tensor) -> Window:
    """Powers that batteries with ``charge`` MWh ``[n_envs, n_storage]`` can hold for a step, MW."""
    feed = charge * (one_way(params) / params.dt)
    take = (params.storage_energy - charge) / (one_way(params) * params.dt)
    return Window(-take.clamp_max(params.storage_power), feed.clamp_max(params.storage_power))


def wanted(params: EnergyGridParams, reach: Window, share: Tensor) -> Tensor:
    """Powers in MW that batteries try to hold: ``share`` of the largest, cut by ``reach``."""
    power = share.clamp(-1.0, 1.0) * params.storage_power
    return torch.minimum(torch.maximum(power, reach.low), reach.high)


def beside(
    params: EnergyGridParams,
    charge: Tensor,
    share: Tensor,
    power: Tensor,
    reach: Window,
    demand: Tensor,
) -> tuple[Tensor, Tensor]:
    """What batteries feed in ``[n_envs, n_storage]`` and generators make ``[n_envs, G]`` in a step, MW.

    Automatic generation control (``agc``) moves the generators first; batteries close what they cannot.

    Args:
        params: of the grid.
        charge: before the step, MWh ``[n_envs, n_storage]``.
        share: the batteries' actions.
        power: of the generators after their actions, MW ``[n_envs, G]``.
        reach: what generators can make.
        demand: load - wind, MW ``[n_envs]``.
    """
    room = window(params, charge)
    fed = wanted(params, room, share)
    if params.agc:
        power = close_gap(power, reach, demand - fed.sum(-1))
        fed = close_gap(fed, room, demand - power.sum(-1))
    return fed, power


def after(params: EnergyGridParams, charge: Tensor, fed: Tensor) -> Tensor:
    """Charge in MWh after a step in which batteries with ``charge`` fed in ``fed`` MW of their window."""
    given_up = torch.where(fed > 0, fed / one_way(params), fed * one_way(params))
    # The window keeps the charge within its limits; what is cut here is rounding.
    return (charge - params.dt * given_up).clamp(0.0, params.storage_energy)


def levels(params: EnergyGridParams, demand: Tensor, price: Tensor) -> tuple[float, float]:
    """Net loads in MW below which the batteries fill and above which they empty in a mean day.

    Peak shaving and valley filling: what lies above the higher level (as far as the batteries' power goes)
    empties them once, what lies below the lower one fills them; but they are used only as far as the price at
    the higher level pays for the one at the lower level and the losses.

    Args:
        params: of the batteries; all of them together are meant.
        demand: net load of every step of the day, MW ``[T]``, float64.
        price: marginal cost there, $ / MWh ``[T]``.
    """
    share, dt = one_way(params), params.dt
    power, full = (params.n_storage * x for x in (params.storage_power, params.storage_energy))

    def found(energy: float) -> tuple[float, float, bool]:
        high = _level(demand, energy * share / dt, power)
        low = -_level(-demand, energy / (share * dt), power)
        dear, cheap = (price[(demand - level).abs().argmin()] for level in (high, low))
        return low, high, low < high and bool(params.storage_efficiency * dear >= cheap)

    used, beyond = (full, full) if found(full)[2] else (0.0, full)
    while beyond - used > 1e-3 * full:
        middle = 0.5 * (used + beyond)
        used, beyond = (middle, beyond) if found(middle)[2] else (used, middle)
    return found(used)[:2]


def _level(load: Tensor, total: float, most: float) -> float:
    """The level over which ``load``, cut at ``most``, adds up to ``total``, or the least load; bisection."""
    low, high = float(load.min()), float(load.max())
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        above = float((load - middle).clamp(0.0, most).sum())
        low, high = (middle, high) if above > total else (low, middle)
    return high


def level_load(
    params: EnergyGridParams, levels: tuple[float, float], demand: Tensor, charge: Tensor
) -> Tensor:
    """Shares of their power that level ``demand`` ``[*B]`` (MW), ``[*B, n_storage]`` like ``charge``.

    All are asked for the same; each gives or takes no more than it could for ``TAPER`` hours, so that
    generators can follow when it runs empty or full.
    """
    low, high = levels
    want = (demand - high).clamp_min(0.0) - (low - demand).clamp_min(0.0)
    power = (want / params.n_storage).unsqueeze(-1)
    most, least = charge * (one_way(params) / TAPER), charge - params.storage_energy
    power = torch.minimum(torch.maximum(power, least / (one_way(params) * TAPER)), most)
    return (power / params.storage_power).clamp(-1.0, 1.0)
