"""Fields of registered classes: those that they make themselves, and names that are misspelt."""

import re
from dataclasses import dataclass, field

import pytest
from own_names import forgotten
from toy_tasks import Hunt, HuntParams

from marl_td.algorithms.vdn import VdnConfig
from marl_td.benchmarl_tasks import FunctionTask
from marl_td.extend import register_algorithm, register_model, register_task
from marl_td.models.gru import StatefulGruConfig
from marl_td.tasks import make_env, make_task
from marl_td.training.compose import compose


@dataclass
class MadeModel(StatefulGruConfig):
    made: int = field(init=False)
    fixed: int = field(init=False, default=4)

    def __post_init__(self):
        super().__post_init__()
        self.made = 3


@dataclass
class MadeParams(HuntParams):
    made: int = field(init=False)
    fixed: int = field(init=False, default=4)

    def __post_init__(self):
        super().__post_init__()
        self.made = 2 * self.n_hunters


class MadeHunt(Hunt):
    Params = MadeParams
    levels = {"easy": {"n_hunters": 2}}  # noqa: RUF012


@dataclass
class BoldConfig(VdnConfig):
    boldness: float = 0.5


def arena(n_envs, continuous, seed, device):
    """A matrix game."""
    return make_env("matrix_game", n_envs, seed=seed)


@pytest.fixture(autouse=True)
def names():
    with forgotten():
        register_model("acme/made", MadeModel)
        register_algorithm("acme/bold", BoldConfig)
        task = FunctionTask("arena", arena, max_steps=4, continuous=False, discrete=True)
        register_task("acme/arena", task)
        yield


def test_a_model_may_make_fields_itself():
    settings = compose([*GIVEN, "model=layers/acme/made", "model.hidden_size=7"])
    found = settings.model_config
    assert (found.hidden_size, found.made, found.fixed) == (7, 3, 4)
    with pytest.raises(ValueError, match=r"there is no setting 'model\.made'"):
        compose([*GIVEN, "model=layers/acme/made", "model.made=5"])


def test_a_task_may_too():
    entry = register_task("acme/made", MadeHunt)
    words = ["algorithm=marl_td/mappo", "task=acme/made", "task.n_hunters=5"]
    for task in (compose(words).task_config, entry.get_task({"n_hunters": 5, "made": 1})):
        params = task.get_env_fun(2, True, 0, "cpu")().task.params
        assert (params.n_hunters, params.made, params.fixed) == (5, 10, 4)
    assert entry.get_task().get_env_fun(2, True, 0, "cpu")().task.params.made == 6


GIVEN = ["algorithm=acme/bold", "task=acme/arena"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["algorithm.boldnes=1"], "there is no setting 'algorithm.boldnes'. Did you mean 'boldness'"),
        (["task.max_step=3"], "there is no setting 'task.max_step'. Did you mean 'max_steps'?"),
        (["model=layers/acme/made", "model.hidden_siz=3"], "Did you mean 'hidden_size'?"),
        (["boldnes=1"], "Did you mean 'algorithm.boldness'?"),
        (["model=layers/acme/mad"], "for 'model'. Did you mean 'layers/acme/made'?"),
        (["critic_model=layers/acme/mad"], "for 'critic_model'. Did you mean 'layers/acme/made'?"),
        (["model=layers/marl_td/gur"], "for 'model'. Did you mean 'layers/marl_td/gru'?"),
    ],
)  # fmt: skip
def test_what_a_misspelt_setting_could_mean(words, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        compose([*GIVEN, *words])


def test_what_a_misspelt_level_could_mean():
    register_task("acme/made", MadeHunt)
    with pytest.raises(ValueError, match=r"'level'\. Did you mean 'acme/made_easy'\?"):
        compose(["algorithm=marl_td/mappo", "level=acme/made_eazy"])
    with pytest.raises(ValueError, match=r"'level'\. Did you mean 'pursuit_easy' or"):
        compose(["algorithm=marl_td/mappo", "level=pursuit_eazy"])


def test_what_a_misspelt_parameter_in_python_could_mean():
    entries = {name: register_task(f"acme/{name}", Hunt) for name in ("hunt", "line")}
    arena_entry = register_task("acme/arena", FunctionTask("arena", arena, max_steps=4))
    message = r"task '{}' has no parameter '{}'\. Did you mean '{}'"
    with pytest.raises(ValueError, match=message.format("hunt", "n_hunter", "n_hunters")):
        make_task("acme/hunt", n_hunter=3)
    with pytest.raises(ValueError, match=message.format("acme/hunt", "n_hunter", "n_hunters")):
        entries["hunt"].get_task({"n_hunter": 3})
    with pytest.raises(ValueError, match=message.format("acme/arena", "max_step", "max_steps")):
        arena_entry.get_task({"max_step": 3})
    assert arena_entry.get_task({}).config == {"max_steps": 4}
