"""Learners against frozen players: the environment, and a game whose best responses are known."""

from dataclasses import replace
from typing import ClassVar, NamedTuple

import pytest
import torch
from short_runs import short_experiment
from tensordict import TensorDict
from torch import Tensor
from torchrl.envs.utils import check_env_specs
from toy_tasks import Hunt, HuntParams

from marl_td.evaluation.best_response import exploitability, respond
from marl_td.evaluation.cross_play import random_player, rule_player, trained_player
from marl_td.evaluation.frozen import against_frozen
from marl_td.tasks.base import Discrete, GroupSpec, Step, Task, TaskParams
from marl_td.training.compose import compose
from marl_td.training.trained import load_run

pytestmark = pytest.mark.filterwarnings(
    "ignore:The default behavior of TransformedEnv:FutureWarning"  # BenchMARL wraps twice
)


class Coin(NamedTuple):
    """The last throws, `[n_envs]`."""

    thrown: Tensor


class Pennies(Task[TaskParams, Coin]):
    """Matching pennies, a step long: `even` gets 1 where both show the same, `odd` where they do not."""

    name = "pennies"
    Params: ClassVar[type[TaskParams]] = TaskParams

    @property
    def groups(self):
        return dict.fromkeys(("even", "odd"), GroupSpec(1, 1, Discrete(2)))

    def reset(self, n_envs, noise):
        return Coin(torch.zeros(n_envs))

    def step(self, state, action, noise):
        same = (action["even"] == action["odd"]).float()
        over = torch.ones(same.shape[0], dtype=torch.bool)
        return Step(state, {"even": 2 * same - 1, "odd": 1 - 2 * same}, over, {})

    def observe(self, state):
        return dict.fromkeys(("even", "odd"), state.thrown[:, None, None])


def heads(share):
    """Shows heads (0) with probability `share`."""

    def policy(tensordict):
        for group in ("even", "odd"):
            shown = torch.rand(tensordict[group].batch_size) >= share
            tensordict.set((group, "action"), shown.long())
        return tensordict

    return rule_player(f"heads {share}", policy, ("even", "odd"))


SETTINGS = (
    "algorithm=marl_td/ippo",
    "task=marl_td/matrix_game",
    "model.num_cells=[8]",
    "critic_model.num_cells=[8]",
    "experiment.lr=0.02",
    "experiment.max_n_frames=4000",
    "experiment.on_policy_collected_frames_per_batch=200",
    "experiment.on_policy_n_envs_per_worker=100",
    "experiment.on_policy_minibatch_size=200",
    "experiment.on_policy_n_minibatch_iters=4",
    "experiment.prefer_continuous_actions=false",
)


@pytest.mark.parametrize(("share", "group", "value"), [(0.8, "even", 0.6), (0.8, "odd", 0.6)])
def test_the_response_to_a_biased_coin_is_found(tmp_path, share, group, value):
    """Against heads with probability q, always showing the better side makes |2 q - 1|."""
    teams = dict.fromkeys(("even", "odd"), heads(share))
    task = Pennies(TaskParams(max_steps=1), continuous=False)
    found = respond(
        task, teams, group, compose(list(SETTINGS)), tmp_path / "run", n_episodes=1500, seed=1
    )
    assert found.response.low < value + 0.02 and found.response.high > value - 0.02
    own = {"even": 0.36, "odd": -0.36}[group]  # both show the biased coin
    assert found.own.low - 0.02 < own < found.own.high + 0.02
    assert found.gain == found.response.value - found.own.value


def test_every_group_of_a_run_is_tried(tmp_path):
    """With hidden states and last actions too: the frozen group keeps them, the learner has its own."""
    experiment = short_experiment(
        tmp_path / "run",
        "algorithm=marl_td/qmix",
        "algorithm.last_action=true",
        "task=marl_td/simple_tag",
        "task.max_steps=6",
        "experiment.prefer_continuous_actions=false",
        "experiment.off_policy_collected_frames_per_batch=60",
        "experiment.evaluation=false",
        "model=layers/marl_td/gru",
        "model.encoder_cells=[8]",
        "model.hidden_size=5",
        without=["model.num_cells"],
    )
    experiment.run()
    run = load_run(tmp_path / "run", 4)
    folder = tmp_path / "responses"
    found = list(exploitability(run, folder, max_n_frames=120, n_episodes=4, seed=3))
    assert [response.group for response in found] == ["adversary", "agent"]
    assert all((folder / name / "metrics.csv").is_file() for name in ("adversary", "agent"))
    env = against_frozen(
        experiment.task.get_env_fun(2, False, 0, "cpu")().task,
        2,
        "agent",
        {"adversary": trained_player("frozen", run)},
    )
    td = env.rollout(8, break_when_any_done=False)
    assert "adversary" not in td.keys() and "hidden" not in str(td["agent"].keys())


def test_it_is_the_task_with_the_others_inside():
    """The learner's actions reach the task, the frozen ones are the players', partial resets are partial."""
    task = Hunt(HuntParams(max_steps=4))
    seen = []

    def strike(tensordict):
        seen.append(tensordict["hunter", "action_mask"].clone())
        available = tensordict["hunter", "action_mask"][..., 2]
        return tensordict.set(("hunter", "action"), torch.where(available, 2, 0))

    env = against_frozen(task, 5, "prey", {"hunter": rule_player("strike", strike, ["hunter"])})
    check_env_specs(env, seed=0)
    assert list(env.group_map) == ["prey"] and env.action_keys == [("prey", "action")]
    td = env.rollout(10, break_when_any_done=False)
    assert td["next", "info", "damage"].max() > 0 and len(seen) >= 10
    assert td["next", "done"].any(1).all()
    before = env.task.team_state(env.state).clone()
    env.reset(TensorDict({"_reset": torch.tensor([[True]] + [[False]] * 4)}, [5]))
    after = env.task.team_state(env.state)
    assert torch.equal(after[1:], before[1:])
    assert not torch.equal(after[0], before[0])
    mirror = against_frozen(task, 5, "hunter", {"prey": random_player()})
    action = mirror.rand_action(mirror.reset())
    assert action["hunter", "action_mask"].gather(-1, action["hunter", "action"][..., None]).all()


def test_what_cannot_be_answered_is_refused(tmp_path):
    task = Pennies(TaskParams(max_steps=1), continuous=False)
    with pytest.raises(ValueError, match=r"no group 'x'; it has \['even', 'odd'\]"):
        against_frozen(task, 2, "x", {})
    with pytest.raises(ValueError, match="every group needs a player"):
        against_frozen(task, 2, "even", {})
    with pytest.raises(RuntimeError, match="no state yet"):
        env = against_frozen(task, 2, "even", {"odd": random_player()})
        env.step(env.rand_action())
    settings = compose(list(SETTINGS))
    teams = dict.fromkeys(task.groups, random_player())
    with pytest.raises(ValueError, match="at least 2 episodes, for an interval; got 1"):
        respond(task, teams, "even", settings, tmp_path, n_episodes=1, seed=0)
    short_experiment(tmp_path / "run").run()
    run = load_run(tmp_path / "run", 2)
    with pytest.raises(ValueError, match="one of our tasks with several groups"):
        list(exploitability(replace(run), tmp_path / "out"))
