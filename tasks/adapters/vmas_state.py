"""Where a VMAS simulation is, as tensors and numbers by their place in its objects.

VMAS offers no way to save a simulation. What its objects hold is read and written by place. Whether that is
all there is differs by scenario: who saves a simulation must check that a restored one goes on alike
(:func:`marl_td.collect.saving.restart_reason` does).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from marl_td.tasks.adapters.slots import find_number_slots, find_objects, find_slots


def vmas_snapshot(env: Any) -> dict[str, Any]:
    """Every tensor and number of a VMAS environment; places that hold the same tensor keep that in common."""
    packages = _packages(env)
    tensors: list[Tensor] = []
    seen: dict[Any, int] = {}
    places = []
    for path, slot in find_slots(env, packages).items():
        value = slot.get()
        which = (value.data_ptr(), value.shape, value.stride(), value.dtype)
        if which not in seen or value.numel() == 0:
            seen[which] = len(tensors)
            tensors.append(value.detach().clone())
        places.append([list(path), seen[which]])
    numbers = [[list(p), slot.get()] for p, slot in find_number_slots(env, packages).items()]
    return {
        "tensors": tensors,
        "places": places,
        "numbers": numbers,
        "references": _references(env),
    }


def vmas_restore(env: Any, state: dict[str, Any]) -> None:
    """Write what :func:`vmas_snapshot` read into an environment of the same scenario.

    Raises:
        ValueError: if it has no such places, or its objects refer to each other otherwise (as where an
            episode picks one landmark as the goal of all copies).
    """
    env.reset()
    env.step(
        [env.get_random_action(agent) for agent in env.agents]
    )  # makes what the first one makes
    packages = _packages(env)
    if _references(env) != state["references"]:
        raise ValueError(
            "the simulation's objects refer to each other otherwise than in the saved one"
        )
    for what, slots in (
        ("places", find_slots(env, packages)),
        ("numbers", find_number_slots(env, packages)),
    ):
        for path, value in state[what]:
            slot = slots.get(tuple(path))
            if slot is None:
                raise ValueError(
                    f"the saved simulation has '{'.'.join(path)}', this one has not; it is another scenario, "
                    "or has other settings."
                )
            slot.set(state["tensors"][value].to(env.device) if what == "places" else value)


def _references(env: Any) -> list[int]:
    """Which of the objects on the way are the same: for each, the number of its first place."""
    first: dict[int, int] = {}
    objects = find_objects(env, _packages(env)).values()
    return [first.setdefault(number, place) for place, number in enumerate(objects)]


def _packages(env: Any) -> tuple[str, ...]:
    """Whose objects are looked into: those of VMAS and of the scenario's own package."""
    return "vmas", type(env.scenario).__module__.partition(".")[0]
