"""How episodes of adapted PettingZoo environments end, who is alive, what is legal."""

import gymnasium.spaces as spaces
import numpy as np
import pytest
import torch
from toy_parallel import Toy, act, play

from marl_td.tasks.adapters import from_pettingzoo


def flags(steps, key):
    return [bool(step[key].item()) for step in steps]


def alive(steps, group):
    return [step[group, "mask"].squeeze(0).tolist() for step in steps]


# ------------------------------------------------------------------------------------------ ends
def test_a_time_limit_truncates_and_all_are_still_alive():
    steps = play(from_pettingzoo(Toy(limit=3)), 3)
    assert flags(steps, "truncated") == flags(steps, "done") == [False, False, True]
    assert not any(flags(steps, "terminated"))
    assert alive(steps, "cat")[-1] == [True, True] and alive(steps, "mouse")[-1] == [True]


def test_all_agents_ending_terminates():
    ends = dict.fromkeys(["cat_0", "cat_1", "mouse_0"], (2, "terminated"))
    steps = play(from_pettingzoo(Toy(ends=ends)), 2)
    assert flags(steps, "terminated") == flags(steps, "done") == [False, True]
    assert not any(flags(steps, "truncated"))
    assert alive(steps, "cat")[-1] == [False, False]


def test_a_death_leaves_the_others_in_the_game():
    toy = Toy(ends={"cat_0": (2, "terminated")}, limit=4)
    steps = play(from_pettingzoo(toy), 4)
    assert alive(steps, "cat") == [[True, True], [False, True], [False, True], [False, True]]
    assert flags(steps, "done") == [False, False, False, True]
    assert flags(steps, "truncated")[-1] and not flags(steps, "terminated")[-1]
    rewards = [step["cat", "reward"].flatten().tolist() for step in steps]
    assert rewards == [[11, 11], [21, 21], [0, 31], [0, 41]]
    assert (steps[2]["cat", "observation"][0, 0] == 0).all()
    assert (steps[2]["cat", "observation"][0, 1] != 0).all()
    assert ["cat_0" in actions for actions in toy.received] == [True, True, False, False]


def test_the_last_survivor_s_death_terminates():
    ends = {"cat_0": (1, "terminated"), "cat_1": (2, "terminated"), "mouse_0": (3, "terminated")}
    steps = play(from_pettingzoo(Toy(ends=ends)), 3)
    assert flags(steps, "terminated") == flags(steps, "done") == [False, False, True]
    assert not any(flags(steps, "truncated"))


def own(steps, group, key):
    return [step[group, key].flatten().tolist() for step in steps]


def test_an_agent_that_is_cut_off_alone_acts_no_more_and_its_step_says_so():
    toy = Toy(ends={"cat_0": (2, "truncated")}, limit=4)
    steps = play(from_pettingzoo(toy), 4)
    assert alive(steps, "cat") == [[True, True], [False, True], [False, True], [False, True]]
    assert own(steps, "cat", "truncated") == [[0, 0], [1, 0], [0, 0], [0, 1]]
    assert own(steps, "cat", "terminated") == [[0, 0], [0, 0], [1, 0], [1, 0]]
    assert own(steps, "cat", "done") == [[0, 0], [1, 0], [1, 0], [1, 1]]
    assert own(steps, "mouse", "truncated") == [[0], [0], [0], [1]]
    assert flags(steps, "done") == flags(steps, "truncated") == [False, False, False, True]
    assert (steps[1]["cat", "observation"][0, 0] != 0).all()  # its value is bootstrapped
    assert (steps[2]["cat", "observation"][0, 0] == 0).all()
    assert ["cat_0" in actions for actions in toy.received] == [True, True, False, False]


@pytest.mark.parametrize("kind", ["terminated", "both"])
def test_an_agent_that_ends_alone_is_terminated_from_then_on(kind):
    steps = play(from_pettingzoo(Toy(ends={"cat_0": (2, kind)}, limit=3)), 3)
    assert own(steps[:2], "cat", "done") == [[0, 0], [1, 0]]
    assert own(steps, "cat", "terminated") == [[0, 0], [1, 0], [1, 0]]
    assert own(steps, "cat", "truncated") == [[0, 0], [0, 0], [0, 1]]


def test_our_time_limit_cuts_off_those_who_are_still_there():
    ends = {"cat_0": (1, "truncated"), "mouse_0": (2, "terminated")}
    steps = play(from_pettingzoo(Toy(ends=ends, limit=50), max_steps=2), 2)
    assert own(steps, "cat", "truncated") == [[1, 0], [0, 1]]
    assert own(steps, "mouse", "truncated") == [[0], [0]]
    assert own(steps, "mouse", "terminated") == [[0], [1]]
    assert alive(steps, "cat") == [[False, True], [False, True]]


def test_ends_are_those_of_the_episode_that_is_played():
    env = from_pettingzoo(Toy(ends={"cat_0": (1, "terminated")}, limit=3))
    td = env.rollout(6, break_when_any_done=False)
    ended = td["next", "cat", "terminated"][0, :, 0].flatten().tolist()
    assert ended == [True] * 6
    assert not td["cat", "done"][0, 3].any()  # where the second begins
    assert td["cat", "mask"][0, 3].all()


def test_who_is_cut_off_without_an_observation_is_valued_where_it_was_seen_last():
    toy = Toy(ends={"cat_0": (2, "truncated")}, mask="observation")
    plain = toy.step

    def step(actions):
        seen, *rest = plain(actions)
        return {agent: seen[agent] for agent in toy.agents}, *rest

    toy.step = step
    first, second, third, _ = play(from_pettingzoo(toy), 4)
    for key in ("observation", "action_mask"):
        assert torch.equal(second["cat", key][0, 0], first["cat", key][0, 0])
    assert (third["cat", "observation"][0, 0] == 0).all()


class Saved(Toy):
    def state_dict(self):
        return {"count": self.count, "agents": self.agents}

    def load_state_dict(self, state):
        self.count, self.agents = state["count"], state["agents"]


@pytest.mark.parametrize("old", [False, True])
def test_own_ends_are_saved(old):
    """What was saved before there were any starts without."""
    ends = {"cat_0": (1, "terminated")}
    env, other = (from_pettingzoo(Saved(ends=ends)) for _ in range(2))
    play(env, 2)
    other.reset()
    state = env.snapshot()
    if old:
        del state["ends"]
    other.restore(state)
    step = other.step(act(other))["next"]
    assert step["cat", "mask"].tolist() == [[False, True]]
    assert step["cat", "terminated"].flatten().tolist() == [not old, False]


def test_one_end_for_all_needs_no_entries_for_each():
    env = from_pettingzoo(Toy(), mortal=False)
    assert set(env.full_done_spec.keys(True, True)) == {"done", "terminated", "truncated"}


def test_a_real_end_at_the_time_limit_terminates():
    ends = dict.fromkeys(["cat_0", "cat_1", "mouse_0"], (2, "both"))
    steps = play(from_pettingzoo(Toy(ends=ends)), 2)
    assert flags(steps, "terminated") == [False, True] and not any(flags(steps, "truncated"))
    assert alive(steps, "cat")[-1] == [False, False]


def test_our_time_limit_truncates_too():
    steps = play(from_pettingzoo(Toy(limit=50), max_steps=2), 2)
    assert flags(steps, "truncated") == [False, True] and not any(flags(steps, "terminated"))
    ends = dict.fromkeys(["cat_0", "cat_1", "mouse_0"], (2, "terminated"))
    steps = play(from_pettingzoo(Toy(ends=ends), max_steps=2), 2)
    assert flags(steps, "terminated") == [False, True] and not any(flags(steps, "truncated"))
    td = from_pettingzoo(Toy(limit=50), max_steps=2).rollout(6, break_when_any_done=False)
    assert td["next", "truncated"].flatten().tolist() == [False, True] * 3
    with pytest.raises(ValueError, match="max_steps must be at least 1; got 0"):
        from_pettingzoo(Toy(), max_steps=0)


def test_deaths_without_a_mask_are_an_error_with_the_remedy():
    env = from_pettingzoo(Toy(ends={"cat_0": (1, "terminated")}), mortal=False)
    assert ("cat", "mask") not in env.full_observation_spec.keys(True, True)
    with pytest.raises(
        ValueError, match=r"terminated \['cat_0'\], truncated \[\], still.*mortal=T"
    ):
        env.step(env.reset().update(act(env)))
    mixed = Toy(ends={"cat_0": (1, "terminated")}, limit=1)
    env = from_pettingzoo(mixed, mortal=False)
    with pytest.raises(ValueError, match=r"truncated \['cat_1', 'mouse_0'\], still there \[\]"):
        env.step(env.reset().update(act(env)))


# -------------------------------------------------------------------------------- several copies
def test_copies_reset_one_by_one_and_only_the_finished_ones():
    limits = iter([2, 3])
    env = from_pettingzoo(lambda: Toy(limit=next(limits)), n_envs=2)
    td = env.rollout(6, break_when_any_done=False)
    ends = td["next", "truncated"].squeeze(-1).tolist()
    assert ends == [[False, True] * 3, [False, False, True] * 2]
    resets = [len(copy.env.seeds) - 1 for copy in env.copies]  # one is spent on the layout
    assert resets == [3, 2]
    final, start = td["next", "cat", "observation"][0, 1], td["cat", "observation"][0, 2]
    assert not torch.equal(final, start)


def test_a_finished_copy_waits_until_it_is_reset():
    limits = iter([1, 5])
    env = from_pettingzoo(lambda: Toy(limit=next(limits)), n_envs=2)
    first, second = play(env, 2)
    assert first["done"].flatten().tolist() == second["done"].flatten().tolist() == [True, False]
    assert len(env.copies[0].env.received) == 1 and len(env.copies[1].env.received) == 2
    assert (second["cat", "reward"][0] == 0).all() and (second["cat", "reward"][1] == 21).all()
    assert torch.equal(second["cat", "observation"][0], first["cat", "observation"][0])


def test_what_was_returned_does_not_change_later():
    first, second = play(from_pettingzoo(Toy()), 2)
    assert not torch.equal(first["cat", "observation"], second["cat", "observation"])
    assert (first["cat", "reward"] == 11).all()


# ----------------------------------------------------------------------------------------- masks
@pytest.mark.parametrize("where", ["observation", "info"])
def test_action_masks(where):
    toy = Toy(mask=where, ends={"cat_0": (2, "terminated")})
    env = from_pettingzoo(toy)
    start = env.reset()["cat", "action_mask"][0].tolist()
    assert start == [[False, True, True]] * 2
    steps = [step["cat", "action_mask"][0].tolist() for step in play(env, 3)]
    dead = [True, False, False]  # a dead agent has one action, so that every row has one
    assert steps[0] == [[True, False, True]] * 2
    assert steps[1] == [dead, [True, True, False]]
    assert steps[2] == [dead, [False, True, True]]


def test_info_starts_at_zero():
    env = from_pettingzoo(Toy(), info_keys=["cost"])
    assert play(env, 1)[0]["info", "cost"].item() == 1.0
    assert env.reset()["info", "cost"].item() == 0.0


def test_no_mask_no_key():
    env = from_pettingzoo(Toy())
    assert ("cat", "action_mask") not in env.full_observation_spec.keys(True, True)


def test_random_actions_are_legal():
    env = from_pettingzoo(lambda: Toy(mask="info", limit=30), n_envs=4)
    td = env.rollout(30)
    action = td["cat", "action"].unsqueeze(-1)
    assert td["cat", "action_mask"].gather(-1, action).all()
    assert (td["mouse", "action"] >= -1).all() and (td["mouse", "action"] <= 2).all()


def test_a_mask_of_a_wrong_length_is_named():
    toy = Toy(mask="info")
    env = from_pettingzoo(toy)
    toy.legal = lambda: np.ones(4, dtype=np.int8)
    with pytest.raises(ValueError, match=r"mask of agent 'cat_0' has shape \(4,\); it has 3 act"):
        env.reset()


# --------------------------------------------------------------------------------- wrong numbers
def test_an_observation_that_does_not_fit_its_space_is_named():
    toy = Toy()
    toy.seen["mouse_0"] = spaces.Box(-np.inf, np.inf, (5,), dtype=np.float32)
    toy.observe = lambda agents: {agent: np.zeros(2, dtype=np.float32) for agent in agents}
    with pytest.raises(ValueError, match=r"'mouse_0' has shape \(2,\), but its space says \(5,\)"):
        from_pettingzoo(toy).reset()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_named(bad):
    toys = []
    env = from_pettingzoo(lambda: toys.append(Toy(limit=9)) or toys[-1], n_envs=2)
    td = env.step(env.reset().update(act(env)))["next"].clone()
    plain = toys[1].observe

    def broken(agents):
        out = plain(agents)
        out["cat_1"][1] = bad
        return out

    toys[1].observe = broken
    message = rf"observation of agent 'cat_1' is {bad} at index \[1\] \(copy 1, step 2\)"
    with pytest.raises(ValueError, match=message):
        env.step(td.update(act(env)))


def test_a_reward_that_is_not_a_number_is_named():
    toy = Toy()
    env = from_pettingzoo(toy)
    plain = toy.step

    def broken(actions):
        seen, rewards, *rest = plain(actions)
        return seen, rewards | {"mouse_0": np.nan}, *rest

    toy.step = broken
    with pytest.raises(ValueError, match=r"reward of agent 'mouse_0' is nan.*copy 0, step 1"):
        env.step(env.reset().update(act(env)))


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (
            {"cat": 3},
            ValueError,
            r"group 'cat' must hold indices in \[0, 3\); got 3 from agent 0 of environment 0\.",
        ),
        (
            {"cat": -1},
            ValueError,
            r"group 'cat' must hold indices in \[0, 3\); got -1 from agent 0 of environment 0\.",
        ),
        ({"cat": 1.0}, TypeError, r"'cat' must hold indices of .*, int64; got torch.float32"),
        (
            {"mouse": torch.nan},
            ValueError,
            r"'mouse' must hold finite numbers; got nan from agent 0 of environment 0\.",
        ),
        ({"mouse": 1}, TypeError, r"'mouse' must hold continuous actions, floats; got torch.int64"),
    ],
)
def test_an_action_that_is_none_is_named_and_not_taken(action, error, message):
    toy = Toy()
    env = from_pettingzoo(toy)
    td = env.reset().update(act(env, **action))
    with pytest.raises(error, match=message):
        env.step(td)
    assert not toy.received


def test_a_wrong_action_shape_is_named():
    env = from_pettingzoo(Toy, n_envs=2)
    action = act(from_pettingzoo(Toy()))
    td = env.reset().update(act(env))
    td["cat"] = action["cat"].expand(2, 2).clone().update({"action": torch.ones(2, 2, 3)})
    with pytest.raises(ValueError, match=r"'cat' must have shape \[2, 2\].*got \[2, 2, 3\]"):
        env.step(td)


# ----------------------------------------------------------------------------------------- state
def test_the_state_can_be_left_out_or_asked_for():
    assert "state" not in from_pettingzoo(Toy(state=True), state=False).reset().keys()
    assert "state" not in from_pettingzoo(Toy()).reset().keys()
    with pytest.raises(NotImplementedError):
        from_pettingzoo(Toy(), state=True)
    other = Toy()
    other.state = {"cat_0": 1}  # as in PettingZoo's rock, paper, scissors
    assert "state" not in from_pettingzoo(other).reset().keys()


def test_rendering_needs_a_render_mode():
    toy = Toy()
    env = from_pettingzoo(toy)
    env.reset()
    with pytest.raises(ValueError, match="render_mode='rgb_array' to render it"):
        env.render()
    toy.render_mode = "rgb_array"
    assert env.render().shape == (4, 4, 3)
    with pytest.raises(ValueError, match="render mode must be 'rgb_array'; got 'human'"):
        env.render("human")
