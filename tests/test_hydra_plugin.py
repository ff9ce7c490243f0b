"""The Hydra plugin serves BenchMARL programs and leaves every other Hydra program alone."""

import subprocess
import sys
import types

import cloudpickle
import pytest
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.plugins.search_path_plugin import SearchPathPlugin

import marl_td


def our_plugin() -> SearchPathPlugin:
    """Our plugin as Hydra finds it."""
    found = {plugin.__name__: plugin for plugin in Plugins.instance().discover(SearchPathPlugin)}
    return found["MarlTdSearchPathPlugin"]()


@pytest.fixture
def search_path() -> ConfigSearchPathImpl:
    return ConfigSearchPathImpl()


@pytest.fixture
def benchmarl_program(monkeypatch):
    """Make it look as if BenchMARL had been imported."""
    monkeypatch.setitem(sys.modules, "benchmarl", types.ModuleType("benchmarl"))


def test_benchmarl_programs_get_our_configs_and_our_registration(
    monkeypatch, benchmarl_program, search_path
):
    calls = []
    monkeypatch.setattr(marl_td, "register", lambda: calls.append(1))
    our_plugin().manipulate_search_path(search_path)
    assert [entry.path for entry in search_path.get_path()] == ["pkg://marl_td.conf"]
    assert calls == [1]


def test_a_failing_registration_warns_and_goes_on(monkeypatch, benchmarl_program, search_path):
    def broken() -> None:
        raise KeyError("no such part")

    monkeypatch.setattr(marl_td, "register", broken)
    message = (
        r"marl_td could not register .* \(KeyError: 'no such part'\), so `algorithm=marl_td/\.\.\.`"
        r" and `task=marl_td/\.\.\.` are unknown in this program\. `marl-td doctor` says"
    )
    with pytest.warns(RuntimeWarning, match=message):
        our_plugin().manipulate_search_path(search_path)


def test_other_programs_are_left_alone_in_process(monkeypatch, search_path):
    monkeypatch.delitem(sys.modules, "benchmarl", raising=False)
    monkeypatch.setattr(marl_td, "register", lambda: pytest.fail("register() was called"))
    our_plugin().manipulate_search_path(search_path)
    assert search_path.get_path() == []


OTHER_PROGRAM = """
import sys
import hydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

@hydra.main(version_base=None, config_path=None)
def main(config):
    plugins = [plugin.__name__ for plugin in Plugins.instance().discover(SearchPathPlugin)]
    heavy = [name for name in ("torch", "benchmarl", "marl_td") if name in sys.modules]
    print("answer", config.value, "ours", "MarlTdSearchPathPlugin" in plugins, "heavy", heavy)

main()
"""


def test_another_hydra_program_loads_nothing_of_ours(tmp_path):
    program = tmp_path / "other.py"
    program.write_text(OTHER_PROGRAM, encoding="utf-8")
    command = [sys.executable, "-W", "error", str(program), "+value=42", "hydra.run.dir=."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == "answer 42 ours True heavy []\n"


CHILD = """
import sys
import cloudpickle
from hydra.core.singleton import Singleton

with open(sys.argv[1], "rb") as file:
    Singleton.set_state(cloudpickle.load(file))
from benchmarl.algorithms import algorithm_config_registry
from benchmarl.environments import task_config_registry
print("marl_td/retail" in task_config_registry, "marl_td/mappo" in algorithm_config_registry)
"""


def test_a_launchers_child_process_knows_our_names(tmp_path):
    """Launchers send Hydra's stores to their processes, which never run the plugin."""
    import benchmarl  # noqa: F401 - fills Hydra's store with its own settings

    marl_td.register()
    state = tmp_path / "state"
    state.write_bytes(cloudpickle.dumps(Singleton.get_state()))
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(state)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("True True\n", 0), done.stderr
