"""Steps of the particle tasks with two kinds of agents, and of their rules, worked out by hand."""

import pytest
import torch
from tensordict import TensorDict

from marl_td.tasks import make_env, make_task
from marl_td.tasks.particle.chase import ChaseAndFlee
from marl_td.tasks.particle.decoys import DecoysAndGuess
from marl_td.tasks.particle.guide import Guide
from marl_td.tasks.particle.simple_adversary import AdversaryState
from marl_td.tasks.particle.simple_speaker_listener import SpeakerListenerState
from marl_td.tasks.particle.simple_tag import TagState, outside_penalty


def one(kind, *parts):
    """One environment as a state."""
    return kind(*(torch.tensor([part]) for part in parts))


def observed(task, state):
    """What the agents see, as an environment hands it to a policy."""
    groups = {
        group: TensorDict({"observation": seen}, batch_size=seen.shape[:2])
        for group, seen in task.observe(state).items()
    }
    return TensorDict({**groups, "state": task.team_state(state)}, batch_size=[1])


# --------------------------------------------------------------------------------------- speaker
def speaker(word=(0.0, 0.0, 0.0), goal=1):
    marks = [float(i == goal) for i in range(3)]
    places = [[0.0, 1.0], [3.0, 4.0], [-1.0, 0.0]]
    return one(SpeakerListenerState, [[0.0, 0.0]], [[1.0, 0.0]], places, marks, list(word))


def test_a_word_is_heard_after_the_step_and_only_the_listener_moves():
    task = make_task("simple_speaker_listener", continuous=False)
    action = {"speaker": torch.tensor([[2]]), "listener": torch.tensor([[4]])}
    step = task.step(speaker(), action, {})
    torch.testing.assert_close(step.state.position, torch.tensor([[[0.1, 0.0]]]))
    torch.testing.assert_close(step.state.velocity, torch.tensor([[[0.75, 0.5]]]))
    squared = 2.9**2 + 4.0**2
    for group in ("speaker", "listener"):
        torch.testing.assert_close(step.reward[group], torch.tensor([[-squared]]))
    assert step.info["distance"].item() == pytest.approx(squared**0.5)
    assert step.info["reached"].item() == 0.0
    seen = task.observe(step.state)
    torch.testing.assert_close(seen["speaker"], torch.tensor([[[0.15, 0.65, 0.15]]]))
    heard = torch.tensor([[[0.75, 0.5, -0.1, 1.0, 2.9, 4.0, -1.1, 0.0, 0.0, 0.0, 1.0]]])
    torch.testing.assert_close(seen["listener"], heard)


def test_a_continuous_word_is_clipped():
    task = make_task("simple_speaker_listener")
    action = {"speaker": torch.tensor([[[-1.0, 0.3, 2.0]]]), "listener": torch.zeros(1, 1, 5)}
    word = task.step(speaker(), action, {}).state.word
    torch.testing.assert_close(word, torch.tensor([[0.0, 0.3, 1.0]]))


def test_the_guide_names_the_goal_and_the_listener_follows_the_word():
    task = make_task("simple_speaker_listener", continuous=False)
    rule = Guide(continuous=False)
    said = rule(observed(task, speaker(word=(0.1, 0.0, 0.9))))
    assert said["speaker", "action"].item() == 1
    assert said["listener", "action"].item() == 1  # left, to landmark 2
    silent = rule(observed(task, speaker()))
    assert silent["listener", "action"].item() == 4  # up, to the middle of the landmarks


# ------------------------------------------------------------------------------------------- tag
def tag(position, velocity=None, landmark=((9.0, 9.0), (9.0, -9.0))):
    velocity = velocity or [[0.0, 0.0]] * len(position)
    return one(TagState, position, velocity, [list(place) for place in landmark])


def push(task, adversaries=(0, 0, 0), good=(0,)):
    return {"adversary": torch.tensor([list(adversaries)]), "agent": torch.tensor([list(good)])}


APART = [[0.0, 0.0], [2.0, 0.0], [4.0, 0.0], [6.0, 0.0]]


def test_kinds_have_forces_and_speed_limits_of_their_own():
    task = make_task("simple_tag", continuous=False)
    velocity = [[0.0, 0.0], [1.2, 1.6], [0.0, 0.0], [2.4, 3.2]]
    step = task.step(tag(APART, velocity), push(task, (2, 0, 3), (0,)), {})
    expected = torch.tensor([[[0.3, 0.0], [0.6, 0.8], [0.0, -0.3], [0.78, 1.04]]])
    torch.testing.assert_close(step.state.velocity, expected)
    slow = task.step(tag(APART), push(task, good=(1,)), {}).state.velocity
    torch.testing.assert_close(slow[0, 3], torch.tensor([-0.4, 0.0]))


def test_every_adversary_is_paid_for_every_touch():
    task = make_task("simple_tag", continuous=False)
    place = [[0.0, 0.0], [0.2, 0.0], [0.5, 0.0], [0.1, 0.0]]
    step = task.step(tag(place), push(task), {})
    torch.testing.assert_close(step.reward["adversary"], torch.full((1, 3), 20.0))
    torch.testing.assert_close(step.reward["agent"], torch.full((1, 1), -20.0))
    assert step.info["touches"].item() == 2.0
    assert task.score({"touches": torch.tensor([7.0])}).item() == 7.0
    pushed = step.state.velocity[0]  # 100 (0.125 - 0.1) 0.1 s, from both sides of the good agent
    torch.testing.assert_close(pushed[:2, 0], torch.tensor([-0.25, 0.25]))
    assert pushed[3].abs().max() < 1e-5


def test_obstacles_push_and_do_not_move():
    task = make_task("simple_tag", continuous=False, n_obstacles=1)
    step = task.step(tag(APART, landmark=((6.15, 0.0),)), push(task), {})
    torch.testing.assert_close(step.state.velocity[0, 3], torch.tensor([-1.0, 0.0]))
    assert step.state.landmark[0, 0].tolist() == pytest.approx([6.15, 0.0])


def test_what_leaving_the_area_costs():
    place = torch.tensor([0.0, -0.9, 0.95, -1.0, 1.5, 30.0])
    cost = torch.tensor([0.0, 0.0, 0.5, 1.0, torch.e, 10.0])
    torch.testing.assert_close(outside_penalty(place), cost)
    task = make_task("simple_tag", continuous=False)
    step = task.step(tag([*APART[:3], [0.95, -1.5]]), push(task), {})
    torch.testing.assert_close(step.reward["agent"], torch.tensor([[-0.5 - torch.e]]))


@pytest.mark.parametrize("continuous", [True, False])
def test_adversaries_chase_and_good_agents_flee_to_where_there_is_room(continuous):
    task = make_task("simple_tag", continuous=continuous)
    rule = ChaseAndFlee(task.params, continuous)
    inside = rule(observed(task, tag([[-0.5, 0.0], [0.0, 0.6], [0.0, -0.9], [0.0, 0.0]])))
    border = rule(observed(task, tag([[0.7, 0.1], [0.0, 5.0], [0.0, 6.0], [0.9, 0.0]])))
    if continuous:
        assert inside["adversary", "action"][0, 0].tolist() == [0.0, 0.0, 1.0, 0.0, 0.0]
        assert inside["agent", "action"][0, 0].tolist() == [0.0, 0.0, 1.0, 0.0, 0.0]
        assert border["agent", "action"][0, 0].tolist() == [0.0, 0.0, 0.0, 1.0, 0.0]
    else:
        assert inside["adversary", "action"].tolist() == [[2, 3, 4]]
        assert inside["agent", "action"].tolist() == [[2]]
        assert border["agent", "action"].tolist() == [[3]]  # down, not outside


def test_the_nearest_of_several_good_agents_is_chased():
    task = make_task("simple_tag", continuous=False, n_adversaries=1, n_good=2)
    state = tag([[0.0, 0.0], [-0.5, 0.0], [0.3, 0.0]])
    assert ChaseAndFlee(task.params, False)(observed(task, state))["adversary", "action"] == 2


# ------------------------------------------------------------------------------------- adversary
def adversary(position, goal=0, landmark=((0.0, 0.0), (1.0, 0.0))):
    still = [[0.0, 0.0]] * len(position)
    marks = [float(i == goal) for i in range(len(landmark))]
    return one(AdversaryState, position, still, [list(place) for place in landmark], marks)


def test_good_agents_gain_what_the_adversary_is_farther():
    task = make_task("simple_adversary", continuous=False)
    state = adversary([[0.0, 2.0], [0.5, 0.0], [9.0, 0.0]])
    action = {"adversary": torch.tensor([[4]]), "agent": torch.tensor([[0, 0]])}
    step = task.step(state, action, {})
    torch.testing.assert_close(step.reward["adversary"], torch.tensor([[-2.0]]))
    torch.testing.assert_close(step.reward["agent"], torch.tensor([[1.5, 1.5]]))
    torch.testing.assert_close(step.state.velocity[0, 0], torch.tensor([0.0, 0.5]))
    score = task.score({name: value.double() for name, value in step.info.items()})
    assert score.item() == pytest.approx(1.5)
    seen = task.observe(step.state)
    expected = torch.tensor([[[0.0, -2.0, 1.0, -2.0, 0.5, -2.0, 9.0, -2.0]]])
    torch.testing.assert_close(seen["adversary"], expected)
    goal_first = torch.tensor([-0.5, 0.0, -0.5, 0.0, 0.5, 0.0, -0.5, 2.0, 8.5, 0.0])
    torch.testing.assert_close(seen["agent"][0, 0], goal_first)


def test_the_adversary_does_not_see_the_goal():
    task = make_task("simple_adversary")
    place = [[0.3, 0.2], [0.5, 0.0], [0.9, 0.0]]
    seen = [task.observe(adversary(place, goal)) for goal in (0, 1)]
    assert torch.equal(seen[0]["adversary"], seen[1]["adversary"])
    assert not torch.equal(seen[0]["agent"], seen[1]["agent"])


def test_decoys_take_a_landmark_each_and_the_adversary_goes_where_one_stands():
    task = make_task("simple_adversary", continuous=False)
    rule = DecoysAndGuess(task.params, False)
    state = adversary([[0.5, 0.0], [0.4, 0.0], [1.0, 0.0]])
    moved = rule(observed(task, state))
    assert moved["agent", "action"].tolist() == [[1, 0]]  # the second is there
    assert moved["adversary", "action"].tolist() == [[2]]


def test_worlds_of_one_pair_and_no_obstacle_run():
    env = make_env("simple_tag", 2, continuous=False, n_adversaries=1, n_good=1, n_obstacles=0)
    td = env.rollout(3, ChaseAndFlee(env.task.params, False))
    assert td["next", "adversary", "reward"].isfinite().all()
