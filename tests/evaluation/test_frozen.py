"""A task with frozen players inside goes as the whole task goes, step by step and as one graph."""

from __future__ import annotations

import pytest
import torch
from hunting import HIDDEN, make_policy, make_transforms
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.envs import TransformedEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import MultiAgentMLP
from toy_tasks import Hunt, HuntParams

from marl_td.collect.chunk import Chunk
from marl_td.collect.collector import CompiledCollector
from marl_td.evaluation.cross_play import Player, Teams, random_player, teams_env
from marl_td.evaluation.frozen import against_frozen
from marl_td.models.compiling import NotCompilable
from marl_td.tasks.specs import RandomActions
from marl_td.tasks.vector_env import VectorEnv

N_ENVS, N_STEPS = 5, 15
SEEN = [("prey", "observation"), ("prey", "action"), "state"]
AFTER = [("prey", "observation"), ("prey", "reward"), "state", "terminated", "truncated", "done"]


SLOW_PREY = {"linear": [{"weights": {"prey": [1.0, 0.0]}, "limit": 0.05, "scope": "own"}]}


class Waiting(nn.Module):
    """Logits of a hunter that walks until it remembers enough steps, and then strikes when it can."""

    def forward(self, observation, hidden, is_init):
        hidden = torch.where(is_init.unsqueeze(-1), 0.0, hidden)
        strikes = hidden > 2 + observation[..., :1]
        logits = torch.cat([torch.full_like(hidden, -1.0), ~strikes * 1.0, strikes * 1.0], -1)
        return logits, hidden + 1


def waiting_policy():
    """The policy of both groups whose hunters wait."""
    _, *others = make_policy()
    reads = [("hunter", "observation"), HIDDEN, "is_init"]
    writes = [("hunter", "logits"), ("next", *HIDDEN)]
    return TensorDictSequential(TensorDictModule(Waiting(), reads, writes), *others)


def at_best(act):
    """``act`` with its most likely actions, whatever the mode outside is."""

    def best(tensordict):
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            return act(tensordict)

    return best


def player(policy, group, task):
    """The part of ``policy`` that acts for ``group``, which was trained under the transforms."""
    env = TransformedEnv(VectorEnv(task, 2), make_transforms())
    part = policy.select_subsequence(out_keys=[(group, "action")])
    return Player(group, {group: part}, env)


def hunt(**params):
    return Hunt(HuntParams(max_steps=6, prey_life=2.0, **params))


@pytest.mark.parametrize("safety", [None, SLOW_PREY])
def test_it_goes_as_the_whole_task_goes(safety):
    """Over resets at different times; the frozen hunters remember, and their memory starts anew."""
    torch.manual_seed(1)
    task, policy = hunt(safety=safety), waiting_policy()
    teams = {group: player(policy, group, task) for group in task.groups}
    whole = teams_env(task, N_ENVS, teams)
    part = against_frozen(task, N_ENVS, "prey", teams, deterministic=True)
    acts = Teams(task, teams), teams["prey"].policies["prey"]
    with set_exploration_type(ExplorationType.RANDOM), torch.no_grad():
        expected, found = (
            env.rollout(N_STEPS, at_best(act), break_when_any_done=False)
            for env, act in zip((whole, part), acts, strict=True)
        )
    assert not found["next", "done"].all(0).any() and found["next", "done"].sum() > N_ENVS
    assert expected[HIDDEN].any()
    for key in SEEN:
        torch.testing.assert_close(found[key], expected[key], rtol=0, atol=0)
    for key in (*AFTER, ("info", "damage")):
        torch.testing.assert_close(found["next", key], expected["next", key], rtol=0, atol=0)
    assert "hunter" not in found.keys() and HIDDEN not in found.keys(True)


def test_no_gradient_goes_through_frozen_players():
    task = hunt()
    teams = {"prey": player(make_policy(), "prey", task)}
    seen = against_frozen(task, N_ENVS, "hunter", teams, deterministic=True).rollout(3)
    assert not seen["next", "state"].requires_grad


@pytest.mark.parametrize("frozen", ["remembers", "at random"])
@pytest.mark.parametrize("draws", [False, True])
def test_its_rollout_is_one_graph_and_equals_uncompiled_steps(frozen, draws):
    task = hunt()
    policy = make_policy()
    learner = policy.select_subsequence(out_keys=[("prey", "action")])
    other = player(policy, "hunter", task) if frozen == "remembers" else random_player()

    def collector():
        env = against_frozen(task, N_ENVS, "prey", {"hunter": other}, deterministic=not draws)
        made = CompiledCollector(
            env, learner, frames_per_batch=N_ENVS * N_STEPS, n_starts=N_STEPS, backend="aot_eager"
        )
        made.exploration = ExplorationType.DETERMINISTIC
        return made

    compiled, plain = collector(), collector()
    plain._compiled = Chunk(plain.bookkeeping, learner, plain.starts.number)
    batches = []
    for made in (plain, compiled):
        torch.manual_seed(1)
        batches.append([made.rollout() for _ in range(2)])
    assert len(compiled._compiled.graphs) == 1
    for expected, found in zip(*batches, strict=True):
        torch.testing.assert_close(found.to_dict(), expected.to_dict(), rtol=1e-5, atol=1e-6)


def test_a_network_that_cannot_be_compiled_is_named():
    network = MultiAgentMLP(
        4,
        3,
        3,
        centralized=False,
        share_params=True,
        depth=1,
        num_cells=8,
        activation_class=nn.PReLU,
    )
    act = nn.Sequential(network, nn.Softmax(-1))
    module = TensorDictModule(
        lambda seen: act(seen).argmax(-1), [("hunter", "observation")], [("hunter", "action")]
    )
    module.register_module("network", network)
    env = against_frozen(hunt(), N_ENVS, "prey", {"hunter": Player("odd", {"hunter": module})})
    assert env.rollout(3)["next", "prey", "reward"].isfinite().all()
    with pytest.raises(NotCompilable, match=r"the frozen network network \(MultiAgentMLP\) swaps"):
        CompiledCollector(env, env.rand_action, frames_per_batch=10)


def test_players_at_random_take_all_available_actions_and_no_others():
    task = hunt()
    env = VectorEnv(task, 500)
    td = env.rollout(4, RandomActions(task.groups, task.device), break_when_any_done=False)
    hunters, mask = td["hunter", "action"], td["hunter", "action_mask"]
    assert mask.gather(-1, hunters.unsqueeze(-1)).all() and not mask.all()
    rested = hunters[mask.all(-1)]
    assert (rested.bincount(minlength=3) / len(rested) - 1 / 3).abs().max() < 0.04
    prey = td["prey", "action"]
    low, high = torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 2.0])
    assert (prey >= low).all() and (prey <= high).all()
    torch.testing.assert_close(prey.mean((0, 1, 2)), torch.zeros(2), rtol=0, atol=0.1)
    torch.testing.assert_close(prey.std((0, 1, 2)), (high - low) / 12**0.5, rtol=0.05, atol=0)
