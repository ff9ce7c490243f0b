"""The law of demand: Poisson per site, with a season and a factor common to all sites as options."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from marl_td.tasks.layout import envs_last
from marl_td.tasks.retail.params import RetailParams, site_rates


def phase_rates(params: RetailParams) -> Tensor:
    """Mean demand in every period of the season, ``[n_phases, n_agents]`` float64, in units."""
    rates = torch.tensor(site_rates(params), dtype=torch.float64)
    angle = 2 * math.pi * torch.arange(params.n_phases, dtype=torch.float64) / params.n_phases
    return rates * (1 + params.season_amplitude * angle.sin()).unsqueeze(-1)


def poisson_pmf(rates: Tensor) -> Tensor:
    """Poisson probabilities ``[*B, n_values]`` float64 of 0, 1, 2, ... for means ``[*B]``.

    The values end where less than about 1e-12 is left, which is added to the last one.
    """
    rates = rates.to(torch.float64)
    largest = float(rates.max())
    n_values = int(largest + 8 * math.sqrt(largest) + 16)
    k = torch.arange(n_values, dtype=torch.float64)
    pmf = (k * rates.log().unsqueeze(-1) - rates.unsqueeze(-1) - torch.lgamma(k + 1)).exp()
    pmf[..., -1] += 1 - pmf.sum(-1)
    return pmf


def demand_pmf(params: RetailParams) -> Tensor:
    """Probabilities of every site's demand, ``[n_phases, n_agents, n_values]`` float64."""
    return poisson_pmf(phase_rates(params))


def newsvendor_level(params: RetailParams, mean: float) -> int:
    """Smallest stock that covers Poisson demand with ``mean`` with probability p / (p + h)."""
    cdf = poisson_pmf(torch.tensor(mean)).cumsum(-1)
    ratio = params.lost_cost / max(params.lost_cost + params.holding_cost, 1e-12)
    return int((cdf < ratio).sum())


def level_scale(params: RetailParams) -> int:
    """Order-up-to level that the action 1.0 stands for, in units; see ``RetailParams.max_level``."""
    if params.max_level is not None:
        return params.max_level
    if params.order_cost > 0:
        return params.capacity
    largest = float(phase_rates(params).max())
    level = newsvendor_level(params, (params.lead_time + 1) * largest)
    return min(params.capacity, max(1, 2 * level))


def draw_uniforms(params: RetailParams, n_envs: int, generator: torch.Generator) -> Tensor:
    """Uniform numbers ``[n_envs, n_agents]`` that :func:`demand_of` turns into demand.

    With ``correlation`` rho they are normal distribution values of
    ``sqrt(rho) * common + sqrt(1 - rho) * own`` with standard normal terms (a Gaussian copula).
    """
    shape = (n_envs, params.n_agents)
    if params.correlation == 0:
        return envs_last(torch.rand(shape, generator=generator, device=generator.device))
    own = torch.randn(shape, generator=generator, device=generator.device)
    common = torch.randn((n_envs, 1), generator=generator, device=generator.device)
    rho = params.correlation
    return envs_last(torch.special.ndtr(math.sqrt(rho) * common + math.sqrt(1 - rho) * own))


def demand_of(uniform: Tensor, cdf: Tensor) -> Tensor:
    """Demand ``[*B]`` in units by inversion: how many values of ``cdf`` ``[*B, n_values]`` it reaches."""
    return (uniform.unsqueeze(-1) >= cdf[..., :-1]).to(uniform.dtype).sum(-1)


def total_pmf(params: RetailParams) -> Tensor:
    """Probabilities of the demand of all sites together, ``[n_phases, n_values]`` float64.

    The common factor is integrated out by Gauss-Hermite quadrature with 48 nodes.
    """
    pmf = demand_pmf(params)
    if params.correlation == 0:
        return convolve(pmf)
    import numpy as np

    nodes, weights = np.polynomial.hermite_e.hermegauss(48)
    rho = params.correlation
    edge = torch.special.ndtri(pmf.cumsum(-1).clamp(0.0, 1.0))
    total = 0.0
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        given = torch.special.ndtr((edge - math.sqrt(rho) * node) / math.sqrt(1 - rho))
        given[..., -1] = 1.0
        total = total + weight * convolve(given.diff(prepend=torch.zeros_like(given[..., :1])))
    return torch.as_tensor(total)


def convolve(pmf: Tensor) -> Tensor:
    """Law of the sum ``[*B, n]`` of independent values with laws ``pmf`` ``[*B, n_agents, n_values]``."""
    n_agents, n_values = pmf.shape[-2:]
    size = n_agents * (n_values - 1) + 1
    total = torch.fft.irfft(torch.fft.rfft(pmf, size).prod(-2), size).clamp_min(0.0)
    return total / total.sum(-1, keepdim=True)
