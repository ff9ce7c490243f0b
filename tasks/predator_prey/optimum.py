"""The yardstick of a hunt: how soon the prey is caught if the predators play their best."""

from __future__ import annotations

from functools import lru_cache

from marl_td.tasks.base import Optimum
from marl_td.tasks.predator_prey import exact
from marl_td.tasks.predator_prey.board import build
from marl_td.tasks.predator_prey.params import PredatorPreyParams


def best_play(params: PredatorPreyParams, n_agents: int) -> Optimum | None:
    """Mean steps to the capture under best play of ``n_agents`` living predators.

    None if the game is too large to solve, or if the time limit would cut best play short.
    Exact against a prey that moves by a rule and is seen; a lower bound where it is not always seen;
    against a learned prey an upper one: what the predators can force even if it knew their moves.
    """
    most = exact.MOST_STATES_OF_VALUES if params.prey == "random" else exact.MOST_STATES
    if exact.n_states(build(params), n_agents) > most:
        return None
    found = _solved(_Rules.of(params), n_agents)
    if found.most > params.max_steps:
        return None
    steps = found.share * found.mean + (1 - found.share) * params.max_steps
    if params.prey == "learned":
        how = "captures forced even if the prey knows the predators' moves, over all starts"
        return Optimum(steps, "upper", how)
    how = "the game solved backwards over all joint positions, over all starts"
    if params.sight is not None or params.message_dropout > 0:
        return Optimum(steps, "lower", how + ", everybody seen")
    return Optimum(steps, "exact", how)


class _Rules(PredatorPreyParams):
    """Parameters as a key: those that the solution depends on, the others at their defaults."""

    @staticmethod
    def of(params: PredatorPreyParams) -> _Rules:
        """The key of ``params``."""
        return _Rules(
            mode=params.mode,
            grid_size=params.grid_size,
            n_agents=params.n_agents,
            prey=params.prey,
            capture_distance=params.capture_distance,
            obstacle_share=params.obstacle_share,
            obstacle_seed=params.obstacle_seed,
        )

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))


@lru_cache(maxsize=8)
def _solved(rules: _Rules, n_agents: int) -> exact.Solution:
    prey = "informed" if rules.prey == "learned" else rules.prey
    return exact.solve(build(rules), n_agents, prey)
