"""Energy grid: generators follow load and wind through a day, at least cost, within ramps and line limits.

Description:
    Economic dispatch over time. Generators with cost a p^2 + b p, limits and ramps feed a network of buses
    and lines; loads follow a daily profile with noise, wind feeds in what it likes. Every generator moves its
    output by itself; automatic generation control (``agc``) closes the gap that is left. The cheap
    generators are slow and stand together: who waits until the load has gone is left with power that nobody
    takes, and who only looks at costs overloads the lines. Flows are those of the DC load flow (PTDF); the
    frequency is proportional to the power missing.

Action space (per generator, group ``agents``): a share of the ramp, ``p <- clip(p + a x ramp)``, before
    ``agc``. Continuous, ``Box(1)`` in [-1, 1]; or discrete, -1, -0.5, 0, 0.5, 1. Masked (discrete): up at
    capacity, down at the least output; a failed generator can only stay.

Observation space (per generator, float32):

    =======================  =====  ==============================================================
    entry                    width  unit
    =======================  =====  ==============================================================
    output                   1      place between least output and capacity, 0 to 1
    room up, room down       2      what the ramp and limits allow / capacity, x 10
    capacity                 1      / mean capacity
    ramp                     1      / capacity, x 10
    marginal cost            1      now, - price of the next step, / 10 $ / MWh
    b                        1      cost per MWh at no output, / 25 $ / MWh
    price ahead              3      cheapest dispatch in 1, 4 and 12 steps, $ / MWh / 25
    net load ahead           3      expected in 1, 4, 12 steps - made now, / ramp of all together
    local congestion         1      cost that one more MW here causes on nearly full lines, relative
    frequency                1      deviation / limit
    hour                     2      sin, cos
    =======================  =====  ==============================================================

    Net load is load - wind. Prices and expectations are what a market operator publishes. "Made now" holds
    what batteries feed in.

Batteries (``n_storage``, group ``storage``): hold ``storage_energy`` MWh, take or feed in up to
    ``storage_power`` MW, start empty; what they hold in the end is worth nothing. Action: the power to feed
    in over ``storage_power``, in [-1, 1] or one of the same five; below 0 they take. It is cut by what is
    stored and free (discrete: empty and full are masked). ``agc`` takes from them what generators cannot do.
    They do not fail. Observation (14): charge / ``storage_energy``; largest power to feed in and to take
    / ``storage_power``; price of the next step - mean price of a mean day, / 10 $ / MWh; local congestion;
    the last nine of the generators'.

Global state, ``[2 N + L + 8]``: generation and net load of every bus / peak load, every line's flow / limit,
    prices and net load ahead as above, the wind's deviation, frequency; of every battery, charge and power
    / their largest (2 more each).
Reward (the team's): minus the step's cost beyond that of the cheapest dispatch for the same net load
    without ramps and lines (which no action changes), over the mean cost of a step.
Cost of a step, $: fuel, ``unserved_cost``, ``surplus_cost``, ``overload_cost`` x MWh.
Start: midnight, the cheapest dispatch of a mean day, wind at its mean.
End: terminated when the frequency leaves its limit (blackout): all load that is left of the day is
    unserved. Otherwise truncated after ``max_steps``.
Info, per step: ``cost`` and its parts ``fuel``, ``unserved``, ``surplus``, ``overload``, ``blackout`` ($),
    ``energy`` (MWh of load), ``overload_power`` (MW above limits). Of every generator and battery: its
    ``power`` (MW); of every battery its ``charge`` (MWh).
Score: cost of the day in $ per MWh of expected load; lower is better.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from marl_td.tasks.base import Box, Discrete, Groups, GroupSpec, Noise, Optimum, Policy, Step, Task
from marl_td.tasks.energy_grid import dynamics, sensing, storage
from marl_td.tasks.energy_grid.network import draw_grid
from marl_td.tasks.energy_grid.params import EnergyGridParams
from marl_td.tasks.energy_grid.reference import look_up, make_reference
from marl_td.tasks.energy_grid.sensing import AHEAD, CUT, D_OBS, D_STORAGE
from marl_td.tasks.failures import alive_agents, dead_count

GROUP, STORAGE = "agents", "storage"
MOVES = (-1.0, -0.5, 0.0, 0.5, 1.0)
COSTS = ("fuel", "unserved", "surplus", "overload", "blackout")


class GridState(NamedTuple):
    """The grid after a step."""

    power: Tensor
    """Output of every generator, MW ``[n_envs, G]``."""
    net_load: Tensor
    """Load - wind of every bus in the last step, MW ``[n_envs, N]``."""
    flow: Tensor
    """Flow on every line in the last step, MW ``[n_envs, L]``."""
    wind: Tensor
    """Deviation of the wind from its mean in standard deviations, ``[n_envs]``."""
    frequency: Tensor
    """Deviation of the frequency, Hz ``[n_envs]``."""
    step: Tensor
    """Steps since midnight, int64 ``[n_envs]``."""
    alive: Tensor
    """Generators that have not failed, bool ``[n_envs, G]``."""
    fed: Tensor
    """What every battery fed in during the last step, MW ``[n_envs, n_storage]``; below 0: it took."""
    charge: Tensor
    """Stored in every battery, MWh ``[n_envs, n_storage]``."""


class EnergyGrid(Task[EnergyGridParams, GridState]):
    """See the module's docstring."""

    name = "energy_grid"
    Params = EnergyGridParams
    unit: ClassVar[str] = "$ per MWh"
    higher_is_better: ClassVar[bool] = False
    info_keys: ClassVar[tuple[str, ...]] = ("cost", *COSTS, "energy", "overload_power")
    levels: ClassVar[dict[str, dict[str, Any]]] = {
        "easy": {"n_agents": 5, "line_capacity": 10.0},
        "medium": {},
        "hard": {"n_agents": 50, "n_loads": 100, "n_buses": 20, "ramp_scale": 0.7},
    }

    def __init__(
        self, params: EnergyGridParams, continuous: bool = True, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(params, continuous, device)
        grid = draw_grid(params)
        reference = make_reference(params, grid)
        self.peak = float(grid.load.sum())
        self.mean_price = float(reference.day_price.mean())
        self.mean_cost = float(reference.cost.mean()) * params.dt
        self.energy = params.dt * self._over_steps(grid.profile) * self.peak
        """Expected load of an episode, MWh."""
        self.grid = grid.to(self.device, torch.float32)
        self.reference = type(reference)(*(x.to(self.device, torch.float32) for x in reference))
        self.moves = torch.tensor(MOVES, device=self.device)
        self.ahead = torch.tensor(AHEAD, device=self.device)
        self.bus_load = self.grid.load @ self.grid.load_bus
        self.wind_sum = float(grid.wind.sum())
        self.n_dead = dead_count(params.dead_agents, params.n_agents)
        left = [self._over_steps(grid.profile, start) for start in range(params.max_steps + 1)]
        self.left = params.dt * self.peak * torch.tensor(left, device=self.device)
        """Expected load from each step on to the end, MWh ``[max_steps + 1]``."""

    def _over_steps(self, profile: Tensor, start: int = 0) -> float:
        """Sum of the profile over the steps of an episode from ``start`` on."""
        steps = torch.arange(start, self.params.max_steps)
        return float(profile[steps % profile.shape[0]].sum())

    # ------------------------------------------------------------------ shape
    @property
    def groups(self) -> dict[str, GroupSpec]:
        p, masked = self.params, not self.continuous
        found = {
            GROUP: GroupSpec(
                p.n_agents,
                D_OBS,
                self._actions("power", "ramp"),
                masked=masked,
                mortal=self.n_dead > 0,
                info={"power": 1},
            )
        }
        if p.n_storage > 0:
            action, info = self._actions("feed in", "largest power"), {"power": 1, "charge": 1}
            found[STORAGE] = GroupSpec(p.n_storage, D_STORAGE, action, masked=masked, info=info)
        return found

    def _actions(self, what: str, unit: str) -> Box | Discrete:
        if self.continuous:
            return Box((-1.0,), (1.0,), (f"{what} [{unit}]",))
        return Discrete(len(MOVES), tuple(f"{what} {move:+g} {unit}" for move in MOVES))

    @property
    def d_state(self) -> int:
        p = self.params
        return 2 * (p.n_buses + p.n_storage) + self.grid.ptdf.shape[0] + 2 + 2 * len(AHEAD)

    # --------------------------------------------------------------- dynamics
    def draw_reset(self, n_envs: int, generator: torch.Generator) -> Noise:
        """``fail``: uniform numbers ``[n_envs, n_agents]``, the lowest fail; only with ``dead_agents``."""
        if self.n_dead == 0:
            return {}
        draw = torch.empty((n_envs, self.params.n_agents), device=self.device)
        return {"fail": draw.uniform_(generator=generator)}

    def draw_step(self, n_envs: int, generator: torch.Generator) -> Noise:
        """Normal numbers: ``wind`` ``[n_envs]`` and ``load`` ``[n_envs, n_loads]``."""
        shape = (n_envs, self.params.n_loads + 1)
        draw = torch.empty(shape, device=self.device).normal_(generator=generator)
        return {"wind": draw[:, 0], "load": draw[:, 1:]}

    def reset(self, n_envs: int, noise: Noise) -> GridState:
        p, wind = self.params, torch.zeros(n_envs, device=self.device)
        alive = torch.ones((n_envs, p.n_agents), dtype=torch.bool, device=self.device)
        if self.n_dead > 0:
            alive = alive_agents(noise["fail"], self.n_dead)
        step = torch.zeros(n_envs, dtype=torch.long, device=self.device)
        power = self.reference.start * alive
        net = self.bus_load * self.grid.profile[0] - self._wind_power(wind)
        flow = linear(power @ self.grid.at_bus - net, self.grid.ptdf)
        empty = torch.zeros((n_envs, p.n_storage), device=self.device)
        idle = torch.zeros_like(empty)
        return GridState(power, net, flow, wind, torch.zeros_like(wind), step, alive, idle, empty)

    def _wind_power(self, wind: Tensor) -> Tensor:
        """Wind power of every bus, MW ``[n_envs, N]``; the cut is even, so that its mean stays."""
        share = 1.0 + self.params.wind_spread * wind.clamp(-CUT, CUT)
        return self.grid.wind * share.unsqueeze(-1)

    def step(self, state: GridState, action: Groups, noise: Noise) -> Step[GridState]:
        p, grid = self.params, self.grid
        share = self.share(action[GROUP])
        rho = p.wind_memory
        wind = rho * state.wind + math.sqrt(1.0 - rho**2) * noise["wind"]
        profile = grid.profile[state.step % grid.profile.shape[0]].unsqueeze(-1)
        load = grid.load * profile * (1.0 + p.load_noise * noise["load"])
        net = load @ grid.load_bus - self._wind_power(wind)
        demand = net.sum(-1)
        reach = dynamics.window(grid, state.power, state.alive)
        power = state.power + share.clamp(-1.0, 1.0) * grid.ramp
        power = torch.minimum(torch.maximum(power, reach.low), reach.high)
        left, fed, charge = net, state.fed, state.charge  # left: what generators have to serve
        if p.n_storage > 0:
            wish = self.share(action[STORAGE])
            fed, power = storage.beside(p, charge, wish, power, reach, demand)
            charge = storage.after(p, state.charge, fed)
            left = net - fed @ grid.storage_bus
        elif p.agc:
            power = dynamics.close_gap(power, reach, demand)
        done = dynamics.settle(p, grid, self.reference.limit, power, left)

        frequency = done.gap / (p.frequency_drop * self.peak)
        black = frequency.abs() > p.frequency_limit
        step = state.step + 1
        rest = self.left[step.clamp_max(p.max_steps)]
        info = {
            "fuel": done.fuel,
            "unserved": done.unserved,
            "surplus": done.surplus,
            "overload": done.overload,
            "blackout": torch.where(black, p.unserved_cost * rest, 0.0),
        }
        cost = torch.stack(list(info.values())).sum(0)
        cheapest = p.dt * look_up(self.reference.cost, demand, self.reference.demand)
        reward = -(cost - cheapest) / self.mean_cost
        info |= {"cost": cost, "energy": p.dt * load.sum(-1), "overload_power": done.overload_power}
        new = GridState(power, net, done.flow, wind, frequency, step, state.alive, fed, charge)
        team = reward.unsqueeze(-1)
        rewards = {name: team.expand(-1, spec.n_agents) for name, spec in self.groups.items()}
        return Step(new, rewards, black, info)

    def share(self, action: Tensor) -> Tensor:
        """The share ``[n_envs, n_agents]`` that an action of either kind stands for."""
        return action.squeeze(-1) if self.continuous else self.moves[action]

    # ---------------------------------------------------------------- sensing
    def observe(self, state: GridState) -> Groups:
        found = {GROUP: sensing.seen(self, state)}
        if self.params.n_storage > 0:
            found[STORAGE] = sensing.seen_by_storage(self, state)
        return found

    def team_state(self, state: GridState) -> Tensor:
        return sensing.whole(self, state)

    def action_mask(self, state: GridState) -> Groups:
        return {} if self.continuous else sensing.available(self, state)

    def alive(self, state: GridState) -> Groups:
        return {GROUP: state.alive} if self.n_dead > 0 else {}

    def agent_info(self, state: GridState) -> dict[str, Groups]:
        found = {"power": {GROUP: state.power.unsqueeze(-1)}}
        if self.params.n_storage > 0:
            found["power"][STORAGE] = state.fed.unsqueeze(-1)
            found["charge"] = {STORAGE: state.charge.unsqueeze(-1)}
        return found

    # ---------------------------------------------------------------- judging
    def score(self, totals: dict[str, Tensor]) -> Tensor:
        return totals["cost"] / self.energy

    def baselines(self) -> dict[str, Policy]:
        from marl_td.tasks.energy_grid.policies import baselines

        return baselines(self)

    def optimum(self) -> Optimum:
        from marl_td.tasks.energy_grid.bound import optimum

        return optimum(self.params)

    def episode_series(self, state: GridState) -> dict[str, Tensor]:
        load = (state.flow.abs() / self.reference.limit).amax(-1, keepdim=True)
        found = {"output of each generator (MW)": state.power}
        if self.params.n_storage > 0:
            found["stored in each battery (MWh)"] = state.charge
        return found | {"fullest line (share of its limit)": load}

    def render(self, state: GridState, index: int = 0) -> np.ndarray[Any, Any]:
        from marl_td.tasks.energy_grid.render import draw

        return draw(self, state, index)
