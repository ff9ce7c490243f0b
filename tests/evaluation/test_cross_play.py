"""Teams of different origin in one environment."""

import itertools

import pytest
import torch
from short_runs import short_experiment
from tensordict import TensorDict
from toy_tasks import Hunt, HuntParams

from marl_td.evaluation.cross_play import (
    Match,
    Player,
    Teams,
    cross_play,
    play,
    random_player,
    rule_player,
    strength,
    teams_env,
    trained_player,
)
from marl_td.evaluation.scores import evaluate_episodes
from marl_td.evaluation.statistics import Interval
from marl_td.tasks import make_task
from marl_td.training.trained import load_run

pytestmark = pytest.mark.filterwarnings(
    "ignore:The default behavior of TransformedEnv:FutureWarning"  # BenchMARL wraps twice
)

TAG = {"max_steps": 6}
GROUPS = ("adversary", "agent")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with hidden states, one with others, one with last actions; all trained on the same task."""
    folder = tmp_path_factory.mktemp("runs")
    gru = ("model=layers/marl_td/gru", "model.encoder_cells=[8]")
    on_policy = (
        "experiment.on_policy_collected_frames_per_batch=20",
        "experiment.on_policy_n_envs_per_worker=10",
        "experiment.on_policy_minibatch_size=10",
        "experiment.on_policy_n_minibatch_iters=1",
        "model.num_cells=[8]",
    )
    kinds = {
        "memory": ("algorithm=marl_td/qmix", *gru, "model.hidden_size=5", "seed=1"),
        "other": ("algorithm=marl_td/vdn", *gru, "model.hidden_size=7", "seed=2"),
        "last": ("algorithm=marl_td/qmix", "algorithm.last_action=true", "seed=3"),
        "ppo": ("algorithm=marl_td/mappo", *on_policy, "seed=4"),
        "history": ("algorithm=marl_td/belief_ppo", *on_policy, "seed=5"),
        "longer": (
            "algorithm=marl_td/belief_ppo",
            "algorithm.history_length=3",
            *on_policy,
            "seed=6",
        ),
        "ensemble": ("algorithm=marl_td/maddpg", "algorithm.ensemble_size=2", "seed=7"),
    }
    players = []
    for name, overrides in kinds.items():
        common = ["task=marl_td/simple_tag", "task.max_steps=6", "experiment.evaluation=false"]
        common.append("experiment.off_policy_collected_frames_per_batch=60")
        drop = ["model.num_cells"] if "gru" in str(overrides) else []
        experiment = short_experiment(
            folder / name,
            *common,
            "experiment.prefer_continuous_actions=false",
            *overrides,
            without=drop,
        )
        experiment.run()
        players.append(trained_player(name, load_run(folder / name, 4)))
    return {player.name: player for player in players}


def always(action):
    """Every agent of every group takes the same action, in whatever it is given."""

    def policy(tensordict):
        for group in GROUPS:
            shape = tensordict[group].batch_size
            tensordict.set((group, "action"), torch.full(shape, action))
        return tensordict

    return policy


@pytest.mark.parametrize("name", ["memory", "last", "ppo", "history", "ensemble"])
def test_a_run_against_itself_is_the_run(trained, name):
    """Everything that its policies need is set up for them: hidden states, last actions."""
    task, player = make_task("simple_tag", continuous=False, **TAG), trained[name]
    episodes = play(task, dict.fromkeys(GROUPS, player), 4, seed=3)
    whole = evaluate_episodes(
        player.env, lambda td: player.policies["agent"](player.policies["adversary"](td)), 4, seed=3
    )
    for group in GROUPS:
        torch.testing.assert_close(episodes.group_return[group], whole.group_return[group])
    assert episodes.group_return["agent"].unique().numel() > 1


def test_every_pairing_of_different_kinds_is_played(trained):
    task = make_task("simple_tag", continuous=False, **TAG)
    rule = rule_player("rule", task.baselines()["chase_and_flee"], GROUPS)
    learned = [player for name, player in trained.items() if name != "longer"]
    players = [*learned, rule, random_player()]
    skip = {("memory", "other"), ("random", "random")}
    matches = list(cross_play(task, players, 3, seed=0, skip=skip))
    names = [player.name for player in players]
    pairs = [pair for pair in itertools.product(names, names) if pair not in skip]
    assert [(match.first, match.second) for match in matches] == pairs
    for match in matches:
        assert list(match.group_return) == list(GROUPS)
        assert all(value.low <= value.value <= value.high for value in match.group_return.values())


def test_hidden_states_are_those_of_the_player(trained):
    task = make_task("simple_tag", continuous=False, **TAG)
    teams = {"adversary": trained["memory"], "agent": trained["other"]}
    td = teams_env(task, 2, teams).reset()
    hidden = {g: next(k for k in td[g].keys() if k.startswith("hidden")) for g in GROUPS}
    assert td["adversary", hidden["adversary"]].shape == (2, 3, 1, 5)
    assert td["agent", hidden["agent"]].shape == (2, 1, 1, 7)
    assert td["is_init"].all()
    alone = teams_env(task, 2, {"adversary": trained["last"], "agent": random_player()}).reset()
    assert ("adversary", "last_action") in alone.keys(True)
    assert ("agent", "last_action") not in alone.keys(True)


def test_a_player_acts_for_its_own_group_only():
    task = make_task("simple_tag", continuous=False, **TAG)
    left, right = (rule_player(name, always(a), GROUPS) for name, a in (("left", 1), ("right", 2)))
    env = teams_env(task, 2, {"adversary": left, "agent": right})
    policy = Teams(task, {"agent": right, "adversary": left})
    given = env.reset()
    before = given.clone()
    acted = policy(given)
    assert acted["adversary", "action"].eq(1).all() and acted["agent", "action"].eq(2).all()
    assert (given == before).all()


def test_rules_beat_random_players_on_both_sides():
    task = make_task("simple_tag", continuous=False)
    rule = rule_player("rule", task.baselines()["chase_and_flee"], GROUPS)
    matches = list(cross_play(task, [rule, random_player()], 200, seed=0))
    against = {
        (match.first, match.second): {g: v.value for g, v in match.group_return.items()}
        for match in matches
    }
    assert against["rule", "random"]["adversary"] > 4 * against["random", "random"]["adversary"]
    assert against["random", "rule"]["agent"] > against["random", "random"]["agent"] / 3
    chasers = strength(matches, "adversary")
    assert chasers["rule"] == pytest.approx(against["rule", "random"]["adversary"])
    assert chasers["random"] == pytest.approx(against["random", "rule"]["adversary"])


def test_a_random_player_takes_available_actions():
    task = Hunt(HuntParams())
    episodes = play(task, dict.fromkeys(task.groups, random_player()), 20, seed=0)
    assert episodes.totals["damage"].max() > 0


def matches_of(table):
    """Matches of players "a" and "b" in groups "x" and "y": what x gets, and y the opposite."""
    return [
        Match(a, b, {"x": Interval(v, v, v), "y": Interval(-v, -v, -v)})
        for (a, b), v in table.items()
    ]


def test_strength_is_the_mean_over_the_opponents_that_count():
    table = {("a", "a"): 100.0, ("a", "b"): 1.0, ("b", "a"): 4.0, ("b", "b"): 200.0}
    matches = matches_of(table)
    assert strength(matches, "x") == {"a": 1.0, "b": 4.0}
    assert strength(matches, "y") == {"b": -1.0, "a": -4.0}
    everybody = strength(matches, "x", lambda own, other: True)
    assert everybody == {"a": 50.5, "b": 102.0}
    against_a = strength(matches, "y", lambda own, other: other == "a")
    assert against_a == {"a": -100.0, "b": -1.0}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda task: play(task, {"agent": random_player()}, 2, 0),
            r"every group needs a player: task 'simple_tag' has \['adversary', 'agent'\], got",
        ),
        (
            lambda task: cross_play(task, [Player("a"), Player("a")], 2, 0),
            r"every player needs a name of its own; got \['a', 'a'\]",
        ),
        (lambda task: cross_play(task, [], 1, 0), "at least 2 episodes, for an interval; got 1"),
        (
            lambda task: cross_play(make_task("simple_spread"), [], 2, 0),
            r"a task of two groups; 'simple_spread' has \['agents'\]",
        ),
        (lambda task: strength(matches_of({("a", "b"): 1.0}), "z"), "no group 'z'; the matches"),
        (lambda task: strength(matches_of({("a", "a"): 1.0}), "x"), "no match counts"),
    ],
)
def test_what_cannot_be_played_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(make_task("simple_tag", continuous=False))


def test_histories_of_different_kinds_are_refused(trained):
    task = make_task("simple_tag", continuous=False, **TAG)
    teams = {"adversary": trained["history"], "agent": trained["longer"]}
    with pytest.raises(ValueError, match=r"histories of different kinds .* lengths \[3, \d+\]"):
        play(task, teams, 2, 0)


def test_players_of_other_tasks_are_refused(trained):
    kinds = "Its 'adversary' was trained with discrete actions, this task has continuous ones"
    for other, hint in (
        (make_task("simple_tag", continuous=True), kinds),
        (make_task("simple_tag", continuous=False, n_obstacles=3), r"must be the same\.$"),
    ):
        teams = {"adversary": trained["ppo"], "agent": random_player()}
        message = f"'ppo' was not trained on a task like 'simple_tag'.*{hint}"
        with pytest.raises(ValueError, match=message):
            play(other, teams, 2, 0)


def test_what_is_no_task_or_player_is_refused():
    with pytest.raises(TypeError, match="`task` must be a task, such as make_task"):
        cross_play("simple_tag", [random_player()], 2, seed=0)
    with pytest.raises(
        TypeError, match=r"got str\. Of a run make one with `trained_player\(name, run"
    ):
        cross_play(make_task("simple_tag"), ["run"], 2, seed=0)


def test_a_policy_s_entries_at_the_root_stay_its_own():
    """What a team writes beside its group is no other team's business."""
    task = make_task("simple_tag", continuous=False, **TAG)

    def chatty(tensordict: TensorDict) -> TensorDict:
        assert "rumour" not in tensordict.keys()
        return always(0)(tensordict.set("rumour", torch.ones(tensordict.batch_size)))

    play(task, dict.fromkeys(GROUPS, rule_player("chatty", chatty, GROUPS)), 2, seed=0)
