"""From the JSON of a request to actions, and back. Numpy only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from marl_td.deploy.runtime import Bundle
from marl_td.deploy.server_settings import Refused
from marl_td.deploy.validate import InputError

FIELDS = ("observation", "mask", "state")
"""What is given for one agent."""
EXAMPLE = '{"observation": [...]}'


def parse_body(body: bytes, content_type: str) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        Refused: if it is not one; numbers must be finite, and no key may come twice.
    """
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "send JSON, with the header 'Content-Type: application/json'.")
    try:
        found = json.loads(
            body.decode("utf-8"), parse_constant=_not_finite, object_pairs_hook=_object
        )
    except Refused:
        raise
    except RecursionError:
        raise Refused(400, "the body is nested too deeply.") from None
    except (
        ValueError
    ) as error:  # also of a number with thousands of digits, and of bytes that are no UTF-8
        raise Refused(400, f"the body is not JSON: {str(error)[:200]}.") from None
    if not isinstance(found, dict):
        raise Refused(422, f"the body must be an object such as {EXAMPLE}.")
    return found


def _not_finite(text: str) -> Any:
    raise Refused(400, f"the body holds {text}; every number must be finite.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Refused(400, "an object of the body has the same name twice.")
    return found


def check_fields(found: Mapping[str, Any], known: tuple[str, ...], needed: str, where: str) -> None:
    """Raise :class:`Refused` for a field that is unknown or missing."""
    unknown = [name for name in found if name not in known]
    if unknown:
        raise Refused(
            422, f"{where} has the unknown '{unknown[0][:100]}'; it may have {', '.join(known)}."
        )
    if needed not in found:
        raise Refused(422, f"{where} lacks '{needed}'.")


def agent_inputs(name: str, given: Any) -> dict[str, Any]:
    """What is given for the agent ``name``, its form checked."""
    where = f"the entry of agent '{name}'"
    if not isinstance(given, dict):
        raise Refused(422, f"{where} must be an object such as {EXAMPLE}.")
    check_fields(given, FIELDS, "observation", where)
    return given


def rows_of(bundle: Bundle, name: str, inputs: Mapping[str, Any]) -> int:
    """About how many observations are given for an agent, before anything is looked at closely."""
    observation = inputs["observation"]
    entry = bundle.agents[name].signature.observation[0]
    if isinstance(observation, dict):
        observation = observation.get(entry.name, [])
    depth, level = 0, observation
    while isinstance(level, list) and level:
        depth, level = depth + 1, level[0]
    return len(observation) if depth > len(entry.shape) else 1


def act(
    bundle: Bundle, inputs: Mapping[str, Mapping[str, Any]], states: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The actions of some agents and their next states, by name.

    Args:
        bundle: whose agents they are.
        inputs: what each agent is given, of :func:`agent_inputs`.
        states: of a session, in place of those in ``inputs``; None where the client keeps them.

    Raises:
        Refused: for inputs that the agents do not take.
    """
    observations = {name: given["observation"] for name, given in inputs.items()}
    masks = {name: given.get("mask") for name, given in inputs.items()}
    before = {name: given.get("state") for name, given in inputs.items()}
    if states is not None:
        before = {name: states.get(name) for name in inputs}
    try:
        with np.errstate(all="ignore"):  # what overflows is refused as not finite
            return bundle.act(observations, before, masks)
    except InputError as error:
        raise Refused(422, str(error)) from None
    except (ValueError, TypeError, OverflowError) as error:  # nested lists that are no array
        raise Refused(422, f"the inputs cannot be read as arrays: {str(error)[:200]}.") from None


def as_json(content: Any) -> bytes:
    """JSON of actions and states: arrays as nested lists."""
    return json.dumps(content, default=_array, allow_nan=False, separators=(",", ":")).encode()


def _array(value: Any) -> Any:
    return value.tolist()  # arrays and numpy's numbers
