"""A compiled optimiser step changes what BenchMARL's loop changes, by the same amounts: all algorithms."""

from __future__ import annotations

import pytest
import torch
from benchmarl_runs import IGNORED, STATEFUL
from torch._functorch import config as functorch
from toy_games import recall_task
from update_runs import both, tensors, update_of

from marl_td.algorithms.belief_ppo import BeliefPpoConfig
from marl_td.algorithms.coma import ComaConfig
from marl_td.algorithms.facmac import FacmacConfig
from marl_td.algorithms.happo import HappoConfig
from marl_td.algorithms.hasac import HasacConfig
from marl_td.algorithms.iddpg import IddpgConfig
from marl_td.algorithms.isac import IsacConfig
from marl_td.algorithms.maddpg import MaddpgConfig
from marl_td.algorithms.mappo import MappoConfig
from marl_td.algorithms.masac import MasacConfig
from marl_td.algorithms.mat import MatConfig, MatDecConfig
from marl_td.algorithms.matd3 import Matd3Config
from marl_td.algorithms.pqn_vdn import PqnVdnConfig
from marl_td.algorithms.qmix import QmixConfig
from marl_td.benchmarl_tasks import MarlTdTask
from marl_td.models import compiling, products
from marl_td.registry import algorithm_config

pytestmark = IGNORED

N_UPDATES = 10
VALUE_BASED = (
    "iql",
    "vdn",
    "cw_qmix",
    "ow_qmix",
    "qtran_base",
    "qtran_alt",
    "qatten",
    "qplex",
    "shaq",
    "roma",
)
WINDOWS = {
    "sequence": "window",
    "window_length": 2,
    "burn_in": 1,
    "last_action": True,
    "agent_id": True,
}
SPREAD = {"task": MarlTdTask.SIMPLE_SPREAD.get_from_yaml()}
"""A team with continuous actions."""


RECALL = MarlTdTask.RECALL.get_from_yaml()
DISCRETE = {"prefer_continuous_actions": False}
DETERMINISTIC = {
    "iddpg": IddpgConfig,
    "matd3": Matd3Config,
    "facmac": FacmacConfig,
    "facmac, free": lambda: FacmacConfig(mixer_type="free"),
    "maddpg, inference": lambda: MaddpgConfig(infer_policies=True),
    "maddpg, ensembles": lambda: MaddpgConfig(ensemble_size=3),
}


ALGORITHMS = [
    pytest.param(lambda: MappoConfig(value_norm="popart"), {"clip_grad_norm": True}, id="mappo"),
    pytest.param(
        MaddpgConfig, {"clip_grad_norm": False, "prefer_continuous_actions": False}, id="maddpg"
    ),
    pytest.param(
        lambda: MaddpgConfig(share_param_critic=True),
        {"prefer_continuous_actions": False},
        id="maddpg, one critic",
    ),
    pytest.param(Matd3Config, DISCRETE, id="matd3, delayed actors"),
    pytest.param(
        lambda: MaddpgConfig(infer_policies=True, ensemble_size=2),
        DISCRETE,
        id="maddpg, inference and ensembles",
    ),
    *(
        pytest.param(algorithm, settings, id=f"{name} {kind}", marks=pytest.mark.slow)
        for name, algorithm in DETERMINISTIC.items()
        for kind, settings in {
            "discrete": DISCRETE,
            "continuous": {"task": RECALL, "prefer_continuous_actions": True},
            "GRU": {"model": STATEFUL, "critic_model": STATEFUL, **DISCRETE},
        }.items()
    ),
    pytest.param(QmixConfig, {"clip_grad_val": None}, id="qmix"),
    pytest.param(
        lambda: MasacConfig(min_alpha=0.01, n_steps=2),
        {"prefer_continuous_actions": False},
        id="masac",
    ),
    pytest.param(MasacConfig, SPREAD, id="masac, continuous", marks=pytest.mark.slow),
    pytest.param(
        lambda: IsacConfig(share_alpha=False),
        SPREAD,
        id="isac, continuous",
        marks=pytest.mark.slow,
    ),
    pytest.param(IsacConfig, {"model": STATEFUL}, id="isac, GRU", marks=pytest.mark.slow),
    pytest.param(
        lambda: HasacConfig(fixed_alpha=False),
        SPREAD,
        id="hasac, continuous",
        marks=pytest.mark.slow,
    ),
    pytest.param(
        HasacConfig,
        {"model": STATEFUL, "clip_grad_norm": False},
        id="hasac, GRU",
        marks=pytest.mark.slow,
    ),
    pytest.param(lambda: MappoConfig(chunk_length=4), {"model": STATEFUL}, id="mappo, GRU"),
    pytest.param(
        lambda: QmixConfig(lmbda=0.5, **WINDOWS),
        {"model": STATEFUL, "task": recall_task()},
        id="qmix, GRU, windows",
        marks=pytest.mark.slow,
    ),
    pytest.param(HappoConfig, {"on_policy_n_minibatch_iters": 4}, id="happo"),
    pytest.param(
        lambda: HappoConfig(chunk_length=4),
        {"model": STATEFUL, "on_policy_n_minibatch_iters": 4},
        id="happo, GRU",
        marks=pytest.mark.slow,
    ),
    pytest.param(PqnVdnConfig, {}, id="pqn_vdn"),
    pytest.param(lambda: ComaConfig(last_action=True), {}, id="coma"),
    pytest.param(lambda: MatConfig(embed_dim=8, actor_gain=1.0), {}, id="mat"),
    pytest.param(lambda: MatDecConfig(embed_dim=8), {}, id="mat_dec", marks=pytest.mark.slow),
    pytest.param(lambda: BeliefPpoConfig(belief_dim=2, actor_gain=1.0), {}, id="belief_ppo"),
    pytest.param(
        lambda: PqnVdnConfig(chunk_length=4),
        {"model": STATEFUL},
        id="pqn_vdn, GRU",
        marks=pytest.mark.slow,
    ),
    *(
        pytest.param(algorithm_config(name), {}, id=name, marks=pytest.mark.slow)
        for name in VALUE_BASED
    ),
]


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("algorithm", "settings"), ALGORITHMS)
def test_ten_updates_equal_benchmarls(algorithm, settings, backend, tmp_path):
    ours, theirs = both(tmp_path, algorithm(), **settings)
    before = tensors(ours)
    torch.manual_seed(7)
    expected = torch.stack([theirs._optimizer_loop("agents") for _ in range(N_UPDATES)])
    torch.manual_seed(7)
    with torch._inductor.config.patch(fallback_random=True):
        found = update_of(ours, backend).run(N_UPDATES)
    assert set(found.keys()) == set(expected.keys())
    for key, value in expected.items():
        due = slice(None)
        if (name := key.removeprefix("grad_norm_")) in ours.losses["agents"].delays and name != key:
            # Where an optimiser is not due its last norm is repeated.
            period = ours.losses["agents"].delays[name]
            due = slice(period - 1, None, period)
        torch.testing.assert_close(found[key][due], value.float()[due], rtol=1e-3, atol=1e-5)
    after, wanted = tensors(ours), tensors(theirs)
    assert after.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(after[key], value, rtol=1e-4, atol=1e-5)
    moved = [key for key in before if not torch.equal(before[key], after[key])]
    assert len(moved) > len(before) // 2


@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch was built without oneDNN"
)
@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        pytest.param(MaddpgConfig, DISCRETE, id="maddpg"),  # a critic for each agent
        pytest.param(MappoConfig, {}, id="mappo", marks=pytest.mark.slow),
        pytest.param(QmixConfig, {}, id="qmix", marks=pytest.mark.slow),
    ],
)
def test_updates_with_all_products_by_onednn_equal_benchmarls(
    algorithm, settings, tmp_path, monkeypatch
):
    replaced = []
    one = products._product
    monkeypatch.setattr(products, "_product", lambda *args: replaced.append(1) or one(*args))
    monkeypatch.setattr(products, "WORTHWHILE", 1)
    monkeypatch.setattr(compiling, "onednn_is_faster", lambda: True)
    uncached = {"fx_graph_cache": False, "fallback_random": True}
    with torch._inductor.config.patch(uncached), functorch.patch(enable_autograd_cache=False):
        test_ten_updates_equal_benchmarls(algorithm, settings, "inductor", tmp_path)
    assert replaced


PRIORITISED = [
    pytest.param(QmixConfig, {}, id="qmix"),
    pytest.param(lambda: QmixConfig(lmbda=0.5), {}, id="qmix, episodes"),
    pytest.param(MaddpgConfig, {"prefer_continuous_actions": False}, id="maddpg"),
    pytest.param(MasacConfig, {}, id="masac", marks=pytest.mark.slow),
    pytest.param(HasacConfig, {}, id="hasac", marks=pytest.mark.slow),
    *(
        pytest.param(algorithm_config(name), {}, id=name, marks=pytest.mark.slow)
        for name in VALUE_BASED
    ),
]


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("algorithm", "settings"), PRIORITISED)
def test_ten_prioritised_updates_equal_benchmarls(algorithm, settings, backend, tmp_path):
    """Weights go into the graph, priorities come out: the same draws, parameters and priorities."""
    settings = {**settings, "off_policy_use_prioritized_replay_buffer": True, "max_n_iters": 10}
    ours, theirs = both(tmp_path, algorithm(), **settings)
    torch.manual_seed(7)
    expected = torch.stack([theirs._optimizer_loop("agents") for _ in range(N_UPDATES)])
    torch.manual_seed(7)
    with torch._inductor.config.patch(fallback_random=True):
        found = update_of(ours, backend).run(N_UPDATES)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value.float(), rtol=1e-3, atol=1e-5)
    after, wanted = tensors(ours), tensors(theirs)
    for key, value in wanted.items():
        torch.testing.assert_close(after[key], value, rtol=1e-4, atol=1e-5)
    samplers = [run.replay_buffers["agents"].sampler for run in (ours, theirs)]
    mine, others = (sampler.priorities() for sampler in samplers)
    torch.testing.assert_close(mine, others, rtol=1e-4, atol=1e-5)
    assert len(mine.unique()) > 3
    assert samplers[0].beta == samplers[1].beta == pytest.approx(0.4 + 0.6 * N_UPDATES / 20)
