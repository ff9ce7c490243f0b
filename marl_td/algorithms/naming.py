"""Under which names BenchMARL writes our algorithms into results, trackers and folders."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from benchmarl.algorithms import algorithm_config_registry

PREFIX = "marl_td_"
"""What the names of this package's algorithms begin with."""
OWN_PREFIX = "own_"
"""What those of users' algorithms begin with that were registered under no name."""


def result_name(config: type[Any]) -> str:
    """The name of a configuration's algorithm in results, such as ``"marl_td_mappo"``.

    That of the registry, with ``_`` for ``/``; of a class that nobody registered, one like it.
    """
    for name, known in algorithm_config_registry.items():
        if known is config:
            return str(name).replace("/", "_")
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", config.__name__.removesuffix("Config"))
    ours = config.__module__.partition(".")[0] == "marl_td"
    return f"{PREFIX if ours else OWN_PREFIX}{words.lower()}"


@cache
def named(algorithm: Any, name: str) -> Any:
    """``algorithm`` as a class called ``name``.

    BenchMARL calls an algorithm by its class's name in small letters, so that the results of our ``Mappo``
    and its own were merged, and with the same seed one replaced the other.
    """
    return type(algorithm)(
        name, (algorithm,), {"__doc__": algorithm.__doc__, "__module__": algorithm.__module__}
    )
