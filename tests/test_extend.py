"""What can be registered, and what is refused with a sentence."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from own_names import forgotten
from toy_tasks import Hunt

import marl_td
from marl_td.algorithms.vdn import VdnConfig
from marl_td.benchmarl_tasks import FunctionTask, MarlTdTask
from marl_td.extend import register_algorithm, register_model, register_task
from marl_td.models.gru import StatefulGruConfig
from marl_td.tasks import Task, make_env, make_task
from marl_td.tasks.base import TaskParams
from marl_td.training.compose import compose


@pytest.fixture(autouse=True)
def names():
    with forgotten():
        yield


@dataclass
class QuickVdnConfig(VdnConfig):
    """VDN that bootstraps less."""

    boldness: float = 0.5
    """Has no effect."""


@dataclass
class SmallGruConfig(StatefulGruConfig):
    """A small GRU."""

    hidden_size: int = 4


def make_hunt(n_envs, continuous, seed, device):
    """A hunt."""
    raise NotImplementedError


def hunt_function():
    return FunctionTask("acme/hunt", make_hunt, max_steps=4)


def test_all_three_are_chosen_by_name_with_their_settings():
    register_task("acme/hunt", Hunt)
    register_algorithm("acme/quick", QuickVdnConfig)
    register_model("acme/small", SmallGruConfig)
    words = ["algorithm=acme/quick", "algorithm.boldness=0.25", "task=marl_td/two_step"]
    settings = compose([*words, "model=layers/acme/small", "model.n_layers=2"])
    assert settings.algorithm_config == QuickVdnConfig(boldness=0.25)
    assert settings.model_config == SmallGruConfig(hidden_size=4, n_layers=2)
    words = ["algorithm=marl_td/mappo", "task=acme/hunt", "task.n_hunters=5"]
    with pytest.raises(
        ValueError, match=r"there is no setting 'task.n_hunter'\. Did you mean 'n_hunt"
    ):
        compose([*words, "task.n_hunter=2"])
    assert compose(words).task_config.config["n_hunters"] == 5


def test_an_entry_makes_the_task_of_an_experiment(tmp_path):
    entry = register_task("acme/hunt", Hunt)
    task = entry.get_task()
    assert (task.env_name(), task.name) == ("acme", "hunt") and task.config["n_hunters"] == 3
    env = task.get_env_fun(2, True, 0, "cpu")()
    assert env.group_map == make_env("acme/hunt", 2).group_map
    assert task.max_steps(env) == 6
    (tmp_path / "hunt.yaml").write_text("n_hunters: 7\n")
    assert entry.get_from_yaml(str(tmp_path / "hunt.yaml")).config["n_hunters"] == 7
    assert make_task("acme/hunt", n_hunters=2).params.n_hunters == 2


def test_a_function_s_task_is_not_the_built_in_one_of_its_name():
    task = FunctionTask("retail", make_hunt, max_steps=4)
    assert (task.env_name(), task.name) == ("own", "retail")
    assert MarlTdTask.RETAIL.get_task().env_name() == "marl_td"
    entry = register_task("acme/arena", task)
    named = entry.get_task({"max_steps": 9})
    assert (named.env_name(), named.name, named.config["max_steps"]) == ("acme", "arena", 9)
    assert (task.env_name(), task.config["max_steps"]) == ("own", 4)  # the one given stays


def test_the_same_may_be_registered_again_and_another_may_not():
    register_task("acme/hunt", Hunt)
    again = type("Hunt", (Hunt,), {"__module__": Hunt.__module__, "__qualname__": "Hunt"})
    register_task("acme/hunt", again)  # as a cell of a notebook that is run again
    assert type(make_task("acme/hunt")) is again
    other = type("Hunt2", (Hunt,), {})
    with pytest.raises(ValueError, match=r"'acme/hunt' is toy_tasks.Hunt already; got .*Hunt2"):
        register_task("acme/hunt", other)
    with pytest.raises(ValueError, match=r"'acme/hunt' is toy_tasks.Hunt already; got .*make_hunt"):
        register_task("acme/hunt", hunt_function())


@pytest.mark.parametrize("name", ["hunt", "Acme/hunt", "acme/a/hunt", "acme/", "acme/hunt.x", "/a"])
def test_a_name_has_two_parts(name):
    with pytest.raises(ValueError, match="is not a name of the form namespace/name"):
        register_task(name, Hunt)


@pytest.mark.parametrize(
    ("register", "name", "what"),
    [
        (register_task, "marl_td/retail", Hunt),
        (register_task, "marl_td/anything", Hunt),
        (register_task, "vmas/balance", Hunt),
        (register_algorithm, "marl_td/vdn", QuickVdnConfig),
        (register_model, "marl_td/gru", SmallGruConfig),
    ],
)
def test_no_name_is_taken_from_others(register, name, what):
    with pytest.raises(ValueError, match=f"'{name}' is not free; take another namespace"):
        register(name, what)


class Unfinished(Task[TaskParams, Any]):
    name = "unfinished"
    Params = TaskParams


class Nameless(Hunt):
    name = None


class Unset(Hunt):
    Params = dict


class NoDataclass(VdnConfig):
    boldness: float = 0.5


@dataclass
class OddParams(TaskParams):
    odd: set = field(default_factory=set)


class Odd(Hunt):
    Params = OddParams


@pytest.mark.parametrize(
    ("register", "what", "message"),
    [
        (
            register_task,
            make_hunt,
            "takes a subclass of marl_td.tasks.Task or a FunctionTask; got <fu",
        ),
        (register_task, Unfinished, "Unfinished does not have groups, observe, reset, step"),
        (register_task, Nameless, "Nameless has no name"),
        (register_task, Unset, "Unset.Params must be its dataclass of settings"),
        (register_task, Odd, r"its settings cannot be given on a command line: .*odd"),
        (register_algorithm, Hunt, "a dataclass that extends AlgorithmConfig; got <class"),
        (register_algorithm, NoDataclass, "a dataclass that extends AlgorithmConfig; got <class"),
        (
            register_algorithm,
            VdnConfig(),
            "a dataclass that extends AlgorithmConfig; got VdnConfig",
        ),
        (register_model, VdnConfig, "a dataclass that extends ModelConfig; got <class"),
    ],
)
def test_what_is_not_complete_is_refused_and_leaves_nothing(register, what, message):
    marl_td.register()
    with pytest.raises(ValueError, match=message):
        register("acme/new", what)
    with pytest.raises(ValueError, match=r"unknown (task|algorithm) 'acme/new'"):
        compose(["algorithm=acme/new", "task=acme/new"])
    register_task("acme/new", Hunt)  # the name is still free
