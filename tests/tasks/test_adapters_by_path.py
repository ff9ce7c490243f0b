"""Environments by import path: what is wrong with a path is one sentence."""

import re
import sys

import pytest
from torchrl.envs.utils import check_env_specs

from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.tasks.adapters.by_name import PettingZooParams, action_kinds, adapted_env
from marl_td.tasks.adapters.by_path import env_factory

MODULE = """
from pettingzoo.utils import parallel_to_aec
from toy_parallel import Toy

def make(limit=4, **more):
    return Toy(limit=limit, **more)

def strict(limit):
    return Toy(limit=limit)

def nothing():
    return None

def broken():
    raise RuntimeError("no map\\nin the cellar.")

def turns(together=True):
    env = parallel_to_aec(Toy())
    env.metadata = {"name": "turns", "is_parallelizable": together}
    return env

class Nested:
    toy = Toy

number = 3
"""


@pytest.fixture(autouse=True)
def own_modules(tmp_path, monkeypatch):
    """A folder with modules of a user's, as the current one; what is imported is forgotten after."""
    files = {
        "own_env": MODULE,
        "own_typo": "def make(:\n",
        "own_bug": "x = 1\ny = undefined\n",
        "own_need": "import no_such_package_here\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield
    for name in files:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("path", ["own_env:make", "own_env:Nested.toy", "own_env:turns"])
def test_a_path_in_the_current_folder_builds_new_environments(path):
    build = env_factory(path, {})
    assert build() is not build()
    check_env_specs(adapted_env("pettingzoo", 2, env=path))


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("", {}, "no environment was given in task.env; write it as package.module:function"),
        ("own_env", {}, "'own_env' is not an import path; write it as package.module:function"),
        ("own_env.make", {}, "'own_env.make' is not an import path"),
        ("own_env:", {}, "'own_env:' is not an import path"),
        (".own_env:make", {}, "'.own_env:make' is not an import path"),
        ("own env:make()", {}, "'own env:make()' is not an import path"),
        ("no_env:make", {}, "there is no module 'no_env' in the current folder or in this Python"),
        ("own_env.sub:make", {}, "there is no module 'own_env.sub' in the current folder"),
        (
            "own_need:make",
            {},
            "'own_need' needs the module 'no_such_package_here', which is not in",
        ),
        ("own_typo:make", {}, "importing 'own_typo' failed: SyntaxError: invalid syntax (own_typo"),
        ("own_bug:make", {}, "NameError: name 'undefined' is not defined (own_bug.py, line 2)."),
        ("own_env:mak", {}, "'own_env' has no 'mak'. Did you mean 'make'?"),
        ("own_env:number", {}, "'own_env:number' is of type int, not a function or class"),
        ("own_env:nothing", {}, "own_env:nothing() gave a builtins.NoneType, not a PettingZoo"),
        (
            "own_env:broken",
            {},
            "own_env:broken() failed: RuntimeError: no map in the cellar (own_e",
        ),
        ("own_env:strict", {}, "does not fit 'own_env:strict(limit)': missing a required argument"),
        (
            "own_env:strict",
            {"limits": 3},
            "'own_env:strict' takes no 'limits'. Did you mean 'limit'",
        ),
        ("own_env:make", {"size": 3}, "own_env:make(size=3) failed: TypeError: Toy.__init__() got"),
        ("own_env:turns", {"together": False}, "toy is a turn-based AECEnv whose agents cannot"),
    ],
)
def test_a_wrong_path_is_one_sentence(path, options, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        env_factory(path, options)()
    assert "\n" not in str(caught.value) and str(caught.value).count("..") == 0


def test_settings_reach_the_environment():
    env = adapted_env(
        "pettingzoo",
        2,
        env="own_env:make",
        options={"limit": 9, "state": True},
        groups={"a": ["cat_1"], "b": ["cat_0"], "m": ["mouse_0"]},
        max_steps=3,
        seed=1,
    )
    assert env.batch_size == (2,) and list(env.group_map) == ["a", "b", "m"]
    assert env.rollout(9)["next", "truncated"].squeeze(-1).tolist() == [[False, False, True]] * 2
    assert env.reset()["state"].shape == (2, 4)
    assert "state" not in adapted_env("pettingzoo", 1, env="own_env:make", state=False).reset()
    default = adapted_env("pettingzoo", 1, env="own_env:make", options={"limit": 9})
    assert list(default.group_map) == ["cat", "mouse"] and default.max_steps == 1000
    with pytest.raises(ValueError, match="image_size must be at least 1 pixel; got 0"):
        PettingZooParams(image_size=0)


def test_a_task_has_the_actions_that_its_agents_have():
    assert action_kinds("pettingzoo", {"env": "own_env:make"}) == {"continuous", "discrete"}
    rps = {"env": "pettingzoo.classic.rps_v2:parallel_env"}
    task = MarlTdTask.PETTINGZOO.get_task(rps)
    assert task.supports_discrete_actions() and not task.supports_continuous_actions()
    assert task.needed_actions == {"discrete"}
    assert MarlTdTask.PETTINGZOO.get_task({}).needed_actions == set()
    assert MarlTdTask.RETAIL.get_task().needed_actions == set()
    drawn = rps | {"options": {"render_mode": "rgb_array"}}
    for settings, drawable in ((rps, False), (drawn, True)):
        task = MarlTdTask.PETTINGZOO.get_task(settings)
        assert task.has_render(task.get_env_fun(1, False, 0, "cpu")()) is drawable
