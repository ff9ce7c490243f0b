"""Lets unchanged BenchMARL programs find marl_td's algorithms, models and tasks.

Hydra scans the namespace package `hydra_plugins` (hence no `__init__.py` here) and executes this
file in every Hydra program of the environment, more than once: it must have no side effect.
"""

import sys
import warnings

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class MarlTdSearchPathPlugin(SearchPathPlugin):
    """Adds marl_td's configs to BenchMARL programs and leaves all other Hydra programs alone."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append `marl_td.conf` behind BenchMARL's configs, which therefore win on equal names."""
        if "benchmarl" not in sys.modules:  # BenchMARL programs import it before Hydra starts
            return
        search_path.append(provider="marl_td", path="pkg://marl_td.conf")
        try:
            from marl_td import register

            register()
        except Exception as error:  # an exception here would break BenchMARL's own algorithms too
            warnings.warn(
                "marl_td could not register its algorithms and tasks with BenchMARL "
                f"({type(error).__name__}: {error}), so `algorithm=marl_td/...` and "
                "`task=marl_td/...` are unknown in this program. `marl-td doctor` says what is "
                "missing.",
                RuntimeWarning,
                stacklevel=2,
            )
