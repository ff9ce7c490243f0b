"""Reward, done and terminated in agent and team shape, from every form an environment gives them in."""

import pytest
import torch
from tensordict import TensorDict

from marl_td.signals import agent_signals, join_groups, shared_signals, team_signals

TRUE, FALSE = True, False


def batch(root: dict | None = None, group: dict | None = None) -> TensorDict:
    """Two steps of two agents ``[2]``; values are nested lists without the trailing 1."""
    following = {key: torch.tensor(value).unsqueeze(-1) for key, value in (root or {}).items()}
    agents = {key: torch.tensor(value).unsqueeze(-1) for key, value in (group or {}).items()}
    return TensorDict(
        {
            "agents": TensorDict({}, [2, 2]),
            "next": TensorDict({**following, "agents": TensorDict(agents, [2, 2])}, [2]),
        },
        [2],
    )


ROOT = {"reward": [1.0, 2.0], "done": [FALSE, TRUE], "terminated": [FALSE, FALSE]}


def of(data: TensorDict, *key: str) -> list:
    return data[("next", *key)].squeeze(-1).tolist()


def test_team_signals_are_given_to_every_agent():
    out = agent_signals(batch(ROOT), "agents")
    assert of(out, "agents", "reward") == [[1, 1], [2, 2]]
    assert of(out, "agents", "done") == [[FALSE, FALSE], [TRUE, TRUE]]
    assert of(out, "agents", "terminated") == [[FALSE, FALSE], [FALSE, FALSE]]
    out["next", "agents", "reward"][0, 0] = 7.0  # memory of its own, not a view of the team's
    assert of(out, "reward") == [1, 2]


def test_agents_keep_their_own_signals():
    own = {
        "reward": [[1.0, 2.0], [3.0, 4.0]],
        "done": [[FALSE, TRUE], [FALSE, TRUE]],
        "terminated": [[FALSE, TRUE], [FALSE, FALSE]],
    }
    out = agent_signals(batch(group=own), "agents")
    for key, value in own.items():
        assert of(out, "agents", key) == value


def test_a_reset_ends_every_agents_trajectory():
    """The environment is done because one agent is: nothing may leak over the reset for the others."""
    own = {"done": [[FALSE, FALSE], [FALSE, TRUE]], "terminated": [[FALSE, FALSE], [FALSE, FALSE]]}
    out = agent_signals(batch(ROOT, own), "agents")
    assert of(out, "agents", "done") == [[FALSE, FALSE], [TRUE, TRUE]]
    assert of(out, "agents", "terminated") == [[FALSE, FALSE], [FALSE, FALSE]]


def test_an_agents_death_is_kept_while_the_team_goes_on():
    own = {"done": [[TRUE, FALSE], [TRUE, FALSE]], "terminated": [[TRUE, FALSE], [TRUE, FALSE]]}
    out = agent_signals(batch({**ROOT, "done": [FALSE, FALSE]}, own), "agents")
    assert of(out, "agents", "done") == own["done"]
    assert of(out, "agents", "terminated") == own["terminated"]


@pytest.mark.parametrize(("how", "expected"), [("mean", [1.5, 3.5]), ("sum", [3.0, 7.0])])
def test_team_reward_of_agents_rewards(how, expected):
    own = {"reward": [[1.0, 2.0], [3.0, 4.0]]}
    root = {key: ROOT[key] for key in ("done", "terminated")}
    assert of(team_signals(batch(root, own), "agents", how), "reward") == expected


def test_the_team_is_done_when_all_its_agents_are():
    own = {
        "reward": [[0.0, 0.0], [0.0, 0.0]],
        "done": [[FALSE, TRUE], [TRUE, TRUE]],
        "terminated": [[FALSE, TRUE], [TRUE, FALSE]],
    }
    out = team_signals(batch(group=own), "agents")
    assert of(out, "done") == [FALSE, TRUE]
    assert of(out, "terminated") == [FALSE, FALSE]


def test_the_environments_own_word_comes_first():
    own = {"done": [[TRUE, TRUE], [FALSE, FALSE]], "terminated": [[TRUE, TRUE], [FALSE, FALSE]]}
    out = team_signals(batch(ROOT, own), "agents")
    assert of(out, "done") == ROOT["done"]
    assert of(out, "terminated") == ROOT["terminated"]
    assert of(out, "reward") == ROOT["reward"]


# ------------------------------------------------------------------------------ who was cut off
def cut_off(**ends: list) -> TensorDict:
    """Two steps; in the first agent 1 leaves for good, in the second agent 0 meets a time limit."""
    own = {"truncated": [[FALSE, FALSE], [TRUE, TRUE]], "reward": [[0.0, 0.0], [0.0, 0.0]]}
    out = batch({**ROOT}, {**own, **ends})
    out["agents", "mask"] = torch.tensor([[TRUE, TRUE], [TRUE, FALSE]])
    out["next", "agents", "mask"] = torch.tensor([[TRUE, FALSE], [FALSE, FALSE]])
    return out


def joined(data: TensorDict, group: str) -> TensorDict:
    """The batch with the group's mask where critics over several groups find it."""
    return join_groups(data, {group: ["mask"]})


@pytest.mark.parametrize("function", [agent_signals, team_signals, shared_signals, joined])
def test_who_is_only_cut_off_lives_in_what_the_step_reaches(function):
    data = cut_off()
    if function is not agent_signals:
        del data["next", "reward"]
    before = data["agents", "mask"].clone()
    out = function(data, "agents")
    assert out["next", "agents", "mask"].tolist() == [[TRUE, FALSE], [TRUE, FALSE]]
    assert out["agents", "mask"].equal(before)
    if function is joined:
        assert out["next", "joint", "agents", "mask"].tolist()[1] == [TRUE, FALSE]
    again = agent_signals(out.clone(), "agents") if function is agent_signals else out
    assert again["next", "agents", "mask"].tolist() == [[TRUE, FALSE], [TRUE, FALSE]]


def test_who_died_in_the_step_of_the_time_limit_is_dead():
    ends = [[FALSE, TRUE], [TRUE, TRUE]]
    out = agent_signals(cut_off(terminated=ends, done=ends), "agents")
    assert out["next", "agents", "mask"].tolist() == [[TRUE, FALSE], [FALSE, FALSE]]


@pytest.mark.parametrize("change", [lambda m: m.unsqueeze(-1), lambda m: m.float()])
def test_a_mask_that_losses_refuse_is_left_as_it_is(change):
    data = cut_off()
    for place in (data, data["next"]):
        place["agents", "mask"] = change(place["agents", "mask"])
    kept = data["next", "agents", "mask"].clone()
    assert agent_signals(data, "agents")["next", "agents", "mask"].equal(kept)


def two_teams() -> TensorDict:
    groups = {}
    for number, name in enumerate(("cat", "dog")):
        groups[name] = {"reward": torch.full((5, 2, 1), float(number))}
    ends = {key: torch.zeros(5, 1, dtype=torch.bool) for key in ("done", "terminated")}
    here = {name: {"observation": torch.zeros(5, 2, 3)} for name in groups}
    return TensorDict({**here, "next": {**groups, **ends}}, [5])


def test_a_second_team_does_not_replace_the_reward_of_the_first():
    batch = team_signals(two_teams(), "cat")
    with pytest.raises(
        ValueError, match=r"rewards of \['cat', 'dog'\]: that of 'dog' would replace"
    ):
        team_signals(batch, "dog")
    assert not batch["next", "reward"].any()
    # What the message says to do.
    copy = batch.exclude("cat", ("next", "cat"), ("next", "reward"))
    assert team_signals(copy, "dog")["next", "reward"].eq(1.0).all()
    assert not batch["next", "reward"].any()


@pytest.mark.parametrize("function", [agent_signals, team_signals])
def test_a_missing_signal_is_named(function):
    with pytest.raises(KeyError, match=r"neither \('next', 'agents', 'terminated'\) nor"):
        function(batch({key: ROOT[key] for key in ("reward", "done")}), "agents")


def test_groups_are_joined_with_what_is_named_now_and_next():
    batch = TensorDict({"next": {"cat": {}, "dog": {}}, "cat": {}, "dog": {}}, batch_size=[5])
    for number, key in enumerate([("cat",), ("dog",), ("next", "cat"), ("next", "dog")]):
        batch[(*key, "observation")] = torch.full((5, 2, 3), number)
        batch[(*key, "mask")] = torch.ones(5, 2, dtype=torch.bool)
    batch["dog", "action"] = torch.zeros(5, 2)
    join_groups(batch, {"cat": ["observation"], "dog": ["observation", "action"]})
    joint = batch["joint"]
    assert joint["cat"].sorted_keys == ["observation"]
    assert joint["dog"].sorted_keys == ["action", "observation"]
    assert batch["next", "joint", "dog"].sorted_keys == ["observation"]  # there is no action
    for place, (cat, dog) in (("joint", (0, 1)), (("next", "joint"), (2, 3))):
        assert batch[place]["cat", "observation"].eq(cat).all()
        assert batch[place]["dog", "observation"].eq(dog).all()


def test_joined_groups_keep_their_action_masks():
    batch = TensorDict({"next": {"cat": {}}, "cat": {}}, batch_size=[5])
    for place in ((), ("next",)):
        batch[(*place, "cat", "action_mask")] = torch.ones(5, 2, 3, dtype=torch.bool)
    join_groups(batch, {"cat": []})
    assert batch["joint", "cat", "action_mask"].all()
    assert batch["next", "joint", "cat", "action_mask"].all()


@pytest.mark.parametrize("reached", [{}, {"dog": {}}])
def test_a_group_that_is_not_there_is_named_and_nothing_changed(reached):
    here = {} if reached else {"dog": {}}  # missing now, or in what is reached
    batch = TensorDict({"cat": {}, **here, "next": {"cat": {}, **reached}}, batch_size=[5])
    with pytest.raises(KeyError, match="the batch has no group 'dog'"):
        join_groups(batch, {"cat": [], "dog": []})
    assert "joint" not in batch.keys()
