"""Names that are registered again, or that are taken; tasks of functions; plug-ins imported first."""

import subprocess
import sys
from dataclasses import dataclass
from functools import partial

import pytest
from hydra.core.config_store import ConfigStore
from own_names import forgotten
from toy_tasks import Hunt

import marl_td
from marl_td.algorithms.vdn import VdnConfig
from marl_td.benchmarl_tasks import FunctionTask
from marl_td.extend import register_algorithm, register_task
from marl_td.tasks import make_env, make_task
from marl_td.tasks.base import TaskParams
from marl_td.training.compose import compose


@pytest.fixture(autouse=True)
def names():
    with forgotten():
        yield


def make_game(n_envs, continuous, seed, device, n_agents=2):
    """A game that lasts as long as it says itself."""
    return make_env("matrix_game", n_envs, seed=seed, max_steps=5)


def make_timed_game(n_envs, continuous, seed, device, max_steps=100):
    """A game that can be told how long it lasts."""
    return make_env("matrix_game", n_envs, seed=seed, max_steps=max_steps)


def of_function(make, **options):
    return FunctionTask("arena", make, max_steps=4, continuous=False, discrete=True, **options)


def a_limit(task):
    """The time limit that the environment of a task knows of."""
    return task.get_env_fun(2, False, 0, "cpu")().task.params.max_steps


@pytest.mark.parametrize("name", ["vmas/common", "pettingzoo/common", "vmas/balance"])
def test_a_name_of_a_module_of_benchmarl_is_not_free(name):
    marl_td.register()
    before = sys.modules.get(f"benchmarl.environments.{name.replace('/', '.')}")
    with pytest.raises(ValueError, match=f"'{name}' is not free; take another namespace"):
        register_task(name, Hunt)
    assert sys.modules.get(f"benchmarl.environments.{name.replace('/', '.')}") is before
    register_task("vmas/mine", Hunt)


def again(base, **entries):
    """A class as it is when the cell that defines ``base`` is run again."""
    named = {"__module__": base.__module__, "__qualname__": base.__qualname__}
    return type(base.__name__, (base,), {**named, **entries})


@dataclass
class OddParams(TaskParams):
    odd: "Unknown" = None  # noqa: F821


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"Params": OddParams}, "on a command line: name 'Unknown' is not defined"),
        (
            {"levels": {"bad": {"n_hunters": object()}}},
            "command line: .* is not a supported primitive type",
        ),
    ],
)
def test_what_worked_stays_if_another_form_of_it_fails(wrong, message):
    with pytest.raises(ValueError, match=message):
        register_task("acme/hunt", again(Hunt, **wrong))
    with pytest.raises(ValueError, match="unknown task 'acme/hunt'"):
        make_task("acme/hunt")
    register_task("acme/hunt", Hunt)
    with pytest.raises(ValueError, match=message):
        register_task("acme/hunt", again(Hunt, **wrong))
    assert type(make_task("acme/hunt")) is Hunt
    words = ["algorithm=marl_td/mappo", "task=acme/hunt", "task.n_hunters=5"]
    assert compose(words).task_config.config["n_hunters"] == 5


def level_names():
    """What ``level=`` takes of ours in the namespace acme."""
    return {name.removesuffix(".yaml") for name in ConfigStore.instance().repo["level"]["acme"]}


def test_levels_that_are_gone_cannot_be_chosen_any_more():
    """Another task's stay, although their names begin in the same way."""
    register_task("acme/hunt_far", again(Hunt, levels={"easy": {"n_hunters": 9}}))
    register_task("acme/hunt", again(Hunt, levels={"easy": {"n_hunters": 2}, "far_off": {}}))
    register_task("acme/hunt", again(Hunt, levels={"easy": {"n_hunters": 1}}))
    assert level_names() == {"hunt_far_easy", "hunt_easy"}
    with pytest.raises(ValueError, match="no option 'acme/hunt_far_off' for 'level'"):
        compose(["algorithm=marl_td/mappo", "level=acme/hunt_far_off"])
    for level, n_hunters in (("hunt_easy", 1), ("hunt_far_easy", 9)):
        settings = compose(["algorithm=marl_td/mappo", f"level=acme/{level}"])
        assert settings.task_config.config["n_hunters"] == n_hunters


def test_levels_that_worked_stay_if_another_form_of_the_task_fails():
    wrong = again(Hunt, levels={"new": {}, "bad": {"n_hunters": object()}})
    with pytest.raises(ValueError, match="is not a supported primitive type"):
        register_task("acme/hunt", wrong)
    assert level_names() == set()
    register_task("acme/hunt", again(Hunt, levels={"easy": {"n_hunters": 2}}))
    with pytest.raises(ValueError, match="is not a supported primitive type"):
        register_task("acme/hunt", wrong)
    assert level_names() == {"hunt_easy"}
    settings = compose(["algorithm=marl_td/mappo", "level=acme/hunt_easy"])
    assert settings.task_config.config["n_hunters"] == 2


def test_an_algorithm_stays_too():
    @dataclass
    class BoldVdnConfig(VdnConfig):
        boldness: float = 0.5

    odd = again(BoldVdnConfig, __annotations__={"odd": "Unknown"}, odd=None)
    register_algorithm("acme/bold", BoldVdnConfig)
    with pytest.raises(ValueError, match="name 'Unknown' is not defined"):
        register_algorithm("acme/bold", dataclass(odd))
    words = ["algorithm=acme/bold", "algorithm.boldness=0.25", "task=marl_td/two_step"]
    assert compose(words).algorithm_config == BoldVdnConfig(boldness=0.25)


def test_partials_and_lambdas_are_told_from_each_other():
    register_task("acme/arena", of_function(partial(make_game, n_agents=2)))
    register_task("acme/arena", of_function(partial(make_game, n_agents=2)))
    message = (
        r"'acme/arena' is .*make_game with n_agents=2 already; got .*make_game with n_agents=3"
    )
    with pytest.raises(ValueError, match=message):
        register_task("acme/arena", of_function(partial(make_game, n_agents=3)))
    register_task("acme/line", of_function(lambda *_: make_game(*_)))
    with pytest.raises(ValueError, match=r"<lambda> \(line \d+\) already; got .*<lambda> \(line"):
        register_task("acme/line", of_function(lambda *_: None))


def test_a_function_is_told_the_time_limit_if_it_asks():
    entry = register_task("acme/timed", of_function(make_timed_game))
    assert a_limit(entry.get_task()) == 4
    words = ["algorithm=marl_td/qmix", "task=acme/timed", "task.max_steps=7"]
    assert a_limit(compose(words).task_config) == 7
    assert a_limit(of_function(make_game)) == 5
    assert a_limit(of_function(partial(make_timed_game, max_steps=9))) == 9


class Elsewhere(FunctionTask):
    def env_name(self):
        return "elsewhere"


def test_a_task_of_a_function_cannot_have_another_namespace():
    task = Elsewhere("arena", make_game, max_steps=4)
    with pytest.raises(ValueError, match=r"Elsewhere\.env_name\(\) makes it 'elsewhere/arena'"):
        register_task("acme/arena", task)
    with pytest.raises(ValueError, match="is not a name of the form namespace/name"):
        register_task("acme/a/arena", task)
    assert register_task("elsewhere/arena", task).get_task().env_name() == "elsewhere"


PLUGIN = """
from marl_td.extend import register_algorithm
from marl_td.algorithms.vdn import VdnConfig

register_algorithm("acme/vdn", VdnConfig)

def set_up():
    pass
"""


@pytest.mark.parametrize("entry", ["acme_plugin", "acme_plugin:set_up"])
@pytest.mark.parametrize("first", ["acme_plugin", "marl_td"])
def test_a_plug_in_may_be_imported_first_and_have_a_colon(entry, first, tmp_path):
    (tmp_path / "acme_plugin.py").write_text(PLUGIN)
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[marl_td]\nacme = {entry}\n")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {first}, marl_td, warnings\n"
    )
    program += (
        "marl_td.register()\nfrom benchmarl.algorithms import algorithm_config_registry as known\n"
        "print('acme/vdn' in known)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr
    assert "plug-in" not in done.stderr
