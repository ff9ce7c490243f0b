"""Settings that are built in Python are of the types that their dataclass says, or refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from enum import Enum
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from marl_td.algorithms.mappo import MappoConfig
from marl_td.algorithms.masac import MasacConfig
from marl_td.algorithms.qmix import QmixConfig
from marl_td.field_types import check_fields, check_type, field_types, fits, named
from marl_td.models.gru import StatefulGruConfig
from marl_td.tasks import make_env, make_task
from marl_td.tasks.banking.params import BankingParams


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (MappoConfig, {"chunk_length": 2.5}, "chunk_length must be a whole number; got 2.5"),
        (MappoConfig, {"chunk_length": True}, "chunk_length must be a whole number; got True"),
        (MappoConfig, {"mask_dead_values": "no"}, "mask_dead_values must be true or false; got 'no'"),
        (MappoConfig, {"share_param_critic": 1}, "share_param_critic must be true or false; got 1"),
        (MappoConfig, {"lmbda": "0.9"}, "lmbda must be a number; got '0.9'"),
        (MappoConfig, {"lmbda": None}, "lmbda must be a number; got None"),
        (MappoConfig, {"value_norm": None}, "value_norm must be text; got None"),
        (MasacConfig, {"max_alpha": "1"}, "max_alpha must be a number or null; got '1'"),
        (QmixConfig, {"n_steps": np.float64(3.0)}, r"n_steps must be a whole number; got 3\.0"),
        (StatefulGruConfig, {"encoder_cells": [64, 2.5]},
         r"encoder_cells must be a list of whole numbers; got \[64, 2\.5\]"),
        (BankingParams, {"servers": "many"}, "servers must be a list of whole numbers; got 'many'"),
        (BankingParams, {"max_steps": "9" * 99}, r"max_steps must be a whole number; got '9{56}\.\.\."),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(config, settings, message):
    with pytest.raises(ValueError, match=rf"^{config.__name__}\.{message}"):
        config(**settings)


def test_tasks_refuse_it_too():
    with pytest.raises(
        ValueError, match=r"^RetailParams\.n_agents must be a whole number; got '3'"
    ):
        make_task("retail", n_agents="3")
    with pytest.raises(ValueError, match=r"^n_envs must be a whole number; got '4'"):
        make_env("retail", n_envs="4")


def test_what_fits_is_taken():
    config = MasacConfig(alpha_init=1, max_alpha=2, min_alpha=None)  # whole numbers are numbers
    assert (config.alpha_init, config.max_alpha, config.min_alpha) == (1, 2, None)
    assert make_env("matrix_game", n_envs=np.int64(3)).batch_size == (3,)


def test_numbers_and_arrays_of_other_libraries_become_plain():
    config = QmixConfig(n_steps=np.int64(3), huber_delta=np.float32(0.5), double_q=np.bool_(False))
    found = [config.n_steps, config.huber_delta, config.double_q]
    assert found == [3, 0.5, False]
    assert list(map(type, found)) == [int, float, bool]
    params = BankingParams(
        price=np.array([1.0, 2.0, 4.0]),
        servers=OmegaConf.create([1, 2, 3]),
        capacity=torch.tensor([5, 6, 7]),
        arrival_rate=1,
        risk=(np.float64(0.125), 0.25, 0.5),
    )
    assert params.price == [1.0, 2.0, 4.0]
    assert (params.servers, params.capacity) == ([1, 2, 3], [5, 6, 7])
    assert params.risk == (0.125, 0.25, 0.5)
    assert type(params.risk[0]) is float


@dataclass
class Settings:
    kind: Literal["a", "b"] = "a"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)


def test_mappings_and_choices():
    options = Settings("b", OmegaConf.create({"n": [3]})).options
    assert (options, type(options), type(options["n"])) == ({"n": [3]}, dict, list)
    with pytest.raises(ValueError, match=r"Settings\.kind must be one of a, b; got 'c'"):
        Settings("c")
    with pytest.raises(ValueError, match=r"Settings\.options must be a mapping; got \['n'\]"):
        Settings(options=["n"])


@pytest.mark.parametrize(
    "annotation", ["Unknown", "np.ndarrray", "list[", "3 | 'x'", "Unknown[int]"]
)
def test_of_what_cannot_be_read_only_that_field_is_not_checked(annotation):
    Hidden = make_dataclass(
        "Hidden", [("unknown", annotation, None), ("known", "int", 1)], bases=(Settings,)
    )
    assert Hidden(unknown=object).unknown is object
    with pytest.raises(ValueError, match=r"Hidden\.kind must be one of a, b; got 'c'"):
        Hidden(kind="c")
    with pytest.raises(ValueError, match=r"Hidden\.known must be a whole number; got 'c'"):
        Hidden(known="c")
    assert field_types(Hidden)["options"] == dict[str, Any]


class Colour(str, Enum):
    RED = "r"
    BLUE = "b"


class Level(Enum):
    LOW = 1


@dataclass
class Rich:
    colour: Colour = Colour.RED
    level: Level | None = None
    raw: bytes = b"x"
    pair: tuple[int, str] = (1, "a")
    sizes: tuple[int, ...] = ()
    names: frozenset[str] = frozenset()
    weights: dict[str, float] = field(default_factory=dict)
    table: list[list[float]] = field(default_factory=list)
    layer: type[torch.nn.Module] = torch.nn.Linear
    array: type[Any] = np.ndarray
    tensor: torch.Tensor | None = None
    numbers: npt.NDArray[np.float64] | None = None
    span: Sequence[int] = ()
    made: int = field(init=False)

    def __post_init__(self) -> None:
        check_fields(self)


def test_defaults_of_all_kinds_fit():
    rich = Rich(sizes=(3, 4), names={"a"}, weights={"a": 1}, table=[[1, 2.5]])
    assert (rich.colour, rich.raw, rich.pair, rich.array) == (
        Colour.RED,
        b"x",
        (1, "a"),
        np.ndarray,
    )


def test_arrays_stay_where_they_are_asked_for_and_ranges_become_lists():
    tensor, numbers = torch.ones(2), np.ones(2)
    rich = Rich(tensor=tensor, numbers=numbers, span=range(3))
    assert rich.tensor is tensor and rich.numbers is numbers and rich.span == [0, 1, 2]


def test_members_are_taken_by_name():
    rich = Rich(colour="BLUE", level="LOW")
    assert rich.colour is Colour.BLUE and rich.level is Level.LOW


def test_frozen_dataclasses_are_checked_too():
    @dataclass(frozen=True)
    class Frozen:
        size: int = 1

        def __post_init__(self) -> None:
            check_fields(self)

    assert type(Frozen(np.int64(3)).size) is int


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"colour": "green"}, "colour must be one of RED, BLUE; got 'green'"),
        ({"raw": "x"}, "raw must be bytes; got 'x'"),
        ({"pair": (1, 2)}, r"pair must be a list of 2: a whole number, text; got \(1, 2\)"),
        ({"pair": (1, "a", "b")}, "pair must be a list of 2: a whole number, text; got"),
        ({"sizes": (1, "a")}, "sizes must be a list of whole numbers; got"),
        ({"names": 3}, "names must be a set of texts; got 3"),
        ({"names": {3}}, "names must be a set of texts; got \\{3\\}"),
        ({"weights": {"a": "x"}}, "weights must be a mapping of texts to numbers; got {'a': 'x'}"),
        ({"table": [1.0]}, r"table must be a list of lists of numbers; got \[1\.0\]"),
        ({"level": True}, "level must be one of LOW or null; got True"),
    ],
)
def test_what_does_not_fit_them_is_refused(settings, message):
    with pytest.raises(ValueError, match=rf"^Rich\.{message}"):
        Rich(**settings)


@pytest.mark.parametrize(
    ("text", "written"),
    [("1e-4", "1.0e-4"), ("2.5e3", "2.5e+3"), ("-1E5", "-1.0e+5"), ("3.e2", "3.e+2")],
)
def test_numbers_that_yaml_takes_for_text(text, written):
    assert isinstance(yaml.safe_load(text), str) and isinstance(yaml.safe_load(written), float)
    sentence = f"lr must be a number; got '{text}'. In a YAML file that is text: write {written}."
    with pytest.raises(ValueError) as error:
        check_type("lr", text, float)
    assert str(error.value) == sentence
    with pytest.raises(ValueError, match=f"^n must be a whole number; got '{text}'\\.$"):
        check_type("n", text, int)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int, "a whole number"),
        (float | None, "a number or null"),
        (list[Any], "a list"),
        (list[float], "a list of numbers"),
        (Sequence[int], "a list of whole numbers"),
        (dict[str, Any], "a mapping"),
        (Literal["x", 3], "one of x, 3"),
        (list[list[float]], "a list of lists of numbers"),
        (list[bool], "a list of true or false"),
        (list[dict[str, int]], "a list of mappings of texts to whole numbers"),
        (set[int], "a set of whole numbers"),
        (list[set[int]], "a list of sets of whole numbers"),
        (tuple[int, ...], "a list of whole numbers"),
        (tuple[int, str], "a list of 2: a whole number, text"),
        (type[torch.nn.Module], "a class"),
        (torch.Tensor, "a Tensor"),
        (Colour, "one of RED, BLUE"),
    ],
)
def test_types_are_named_in_words(kind, words):
    assert named(kind) == words


def test_classes_that_files_have_no_values_of_are_not_looked_at():
    assert fits(3, type[torch.nn.Module])
    assert fits(3, torch.nn.Module)
