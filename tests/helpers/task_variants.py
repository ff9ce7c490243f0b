"""Every batched task at sizes at which a test is quick, with each of its modes at least once."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from marl_td.tasks import VectorEnv, make_env, task_class
from marl_td.tasks.registry import TASKS

FAILING = {"dead_agents": 0.4, "message_dropout": 0.3}

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "banking": {
        "": {"max_steps": 20},
        "cold": {"start": "empty", "stale": 2, "dead_agents": 0.4},
        "events": {
            "start": "empty",
            "clock": "event",
            "burst": True,
            "classes": True,
            "stale": 1,
        },
    },
    "drones": {
        "": {"n_agents": 4},
        "patrol": {"n_agents": 4, "mode": "patrol", "n_targets": 2} | FAILING,
    },
    "energy_grid": {
        "": {"n_agents": 4},
        "dead": {"n_agents": 4, "dead_agents": 0.3},
        "storage": {"n_agents": 4, "n_storage": 2},
    },
    "intersection": {
        "": {},
        "busy": {"n_agents": 6, "arrival_rate": 3.0, "message_dropout": 0.3},
        "messages": {"n_agents": 6, "arrival_rate": 3.0, "messages": True} | FAILING,
    },
    "levers": {
        "": {"pool": 12},
        "bits": {"pool": 9, "see_others": True, "id_code": "bits"} | FAILING,
    },
    "mapf": {
        "": {"grid_size": 5, "n_agents": 4, "n_maps": 4},
        "nothing": {"grid_size": 5, "n_agents": 4, "n_maps": 4, "mode": "nothing"} | FAILING,
        "restart": {"grid_size": 5, "n_agents": 4, "n_maps": 4, "mode": "restart"},
    },
    "market_making": {
        "": {},
        "three": {"n_agents": 3, "dead_agents": 0.4},
        "toxic": {"n_agents": 2, "toxic_share": 0.5, "toxic_horizon": 3},
    },
    "pong": {"": {}, "two a side": {"n_agents": 4, "serve_speed": 0.1, "points": 2} | FAILING},
    "predator_prey": {
        "": {"grid_size": 5},
        "learned": {"grid_size": 5, "prey": "learned", "mode": "fast_prey", "dead_agents": 0.4},
    },
    "pricing": {
        "": {},
        "market": {"n_agents": 2, "shock": 0.3, "memory": 2} | FAILING,
        "inventory": {"inventory": True, "stock": 3, "max_steps": 30, "message_dropout": 0.2},
    },
    "pursuit": {
        "": {"grid_size": 5, "n_agents": 4, "n_prey": 3},
        "failing": {"grid_size": 5, "n_agents": 6, "n_prey": 3} | FAILING,
    },
    "recall": {"": {}, "late": {"delay": 3, "extra_delay": 3}},
    "retail": {
        "": {},
        "transfers": {
            "transfer_mode": "action",
            "share_inventory": True,
            "season_amplitude": 0.4,
            "correlation": 0.5,
        }
        | FAILING,
    },
    "traffic_junction": {"": {}, "full": {"n_agents": 6, "p_arrive": 0.5, "message_dropout": 0.3}},
    "warehouse": {
        "": {"n_agents": 5},
        "dense": {
            "n_agents": 20,
            "density": 0.4,
            "shaping": 0.1,
            "sight": 2,
            "message_dropout": 0.2,
        },
    },
}
"""Settings by task and name; ``""`` are the plain ones. A task that is not listed has its defaults."""


class Variant(NamedTuple):
    """A task with settings and a kind of actions."""

    task: str
    settings: str
    continuous: bool

    def __str__(self) -> str:
        actions = "box" if self.continuous else "discrete"
        return "-".join(part for part in (self.task, self.settings, actions) if part)

    def env(self, n_envs: int = 4, seed: int = 0) -> VectorEnv:
        """An environment of it."""
        settings = VARIANTS.get(self.task, {"": {}})[self.settings]
        return make_env(self.task, n_envs, continuous=self.continuous, seed=seed, **settings)


def _variants() -> Iterator[Variant]:
    for task in TASKS:
        cls = task_class(task)
        kinds = {True: cls.has_continuous_actions, False: cls.has_discrete_actions}
        for settings in VARIANTS.get(task, {"": {}}):
            for continuous, has in kinds.items():
                if has:
                    yield Variant(task, settings, continuous)


ALL = tuple(_variants())
PLAIN = tuple(variant for variant in ALL if not variant.settings)


def plain_env(task: str, n_envs: int = 4) -> VectorEnv:
    """An environment of the task's plain settings and own kind of actions."""
    return make_env(task, n_envs, **VARIANTS.get(task, {"": {}})[""])
