"""Names that tests register, and forget again."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from marl_td import extend, register, registry
from marl_td.tasks.registry import TASKS


@contextmanager
def forgotten(*modules: str) -> Iterator[None]:
    """Inside nothing is registered but what is built in, and ``modules`` are not imported; then as before."""
    register()
    Plugins.instance()  # Hydra's own options, which it stores when it first looks for plugins
    tables = [extend._OWN, TASKS, registry.ALGORITHMS]
    tables += [table for table, _ in extend.REGISTRIES.values()]
    tables += [ConfigStore.instance().repo]
    before = [_copied(table) for table in tables]
    imported = {name: sys.modules.pop(name) for name in modules if name in sys.modules}
    own = {name for _, name in extend._OWN}
    for table in tables[1:-1]:
        for name in own & table.keys():
            del table[name]
    extend._OWN.clear()
    try:
        yield
    finally:
        for table, saved in zip(tables, before, strict=True):
            table.clear()
            table.update(saved)
        for name in modules:
            sys.modules.pop(name, None)
        sys.modules.update(imported)


def _copied(table: dict) -> dict:
    """A copy with the dictionaries inside copied, too, as Hydra's groups are."""
    return {key: _copied(value) if type(value) is dict else value for key, value in table.items()}
