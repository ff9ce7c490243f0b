"""Settings that are built in Python are of the types that their dataclass says, or refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from marl_td.algorithms.mappo import MappoConfig
from marl_td.algorithms.masac import MasacConfig
from marl_td.algorithms.qmix import QmixConfig
from marl_td.field_types import check_fields, fits, named
from marl_td.models.gru import StatefulGruConfig
from marl_td.tasks import make_env, make_task
from marl_td.tasks.banking.params import BankingParams

if TYPE_CHECKING:
    from somewhere import Unknown


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


def test_annotations_that_cannot_be_read_are_not_checked():
    @dataclass
    class Hidden(Settings):
        unknown: Unknown = None

    assert Hidden(kind="c").kind == "c"


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
    ],
)
def test_types_are_named_in_words(kind, words):
    assert named(kind) == words


def test_classes_that_files_have_no_values_of_are_not_looked_at():
    assert fits(3, type[torch.nn.Module])
    assert fits(3, torch.nn.Module)
