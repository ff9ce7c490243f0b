"""The punishment test: what rules whose answer is known do after a cut."""

import pytest
import torch

from marl_td.evaluation.punishment import BEFORE, cut_price, punishment
from marl_td.tasks import make_env
from marl_td.tasks.pricing.optimum import price_points

SHORT = {"cut_at": 5, "n_after": 6}


def outcome_of(rule, *, continuous=True, **options):
    env = make_env("pricing", 3, n_agents=2, max_steps=12, continuous=continuous)
    found = punishment(env, env.task.baselines()[rule], **{**SHORT, **options})
    return env.task, found


def profits(task, *price):
    return task.market.profit(torch.tensor(price))


def test_a_grim_trigger_takes_back_more_than_the_cut_earned():
    task, found = outcome_of("grim_trigger", deviator=1, gamma=0.9)
    nash, joint = (float(p[0]) for p in price_points(task.params))
    assert found.price.shape == (BEFORE + 7, 2)
    assert found.calm_price.flatten().tolist() == pytest.approx([joint] * 20)
    cut = float(task.market.best_response(torch.tensor([joint, joint]))[0])
    assert found.price[BEFORE].tolist() == pytest.approx([joint, cut])
    assert found.price[BEFORE + 1 :].flatten().tolist() == pytest.approx([nash] * 12)
    assert found.cut == pytest.approx((joint - cut) / (joint - nash), rel=1e-4)
    assert found.answer.tolist() == pytest.approx([1.0] * 6, rel=1e-4)
    calm = float(profits(task, joint, joint)[1])
    gain = float(profits(task, joint, cut)[1]) - calm
    lost = calm - float(profits(task, nash, nash)[1])
    assert found.gain == pytest.approx(gain, rel=1e-3)
    expected = gain - lost * sum(0.9**k for k in range(1, 7))
    assert found.net_gain == pytest.approx(expected, rel=1e-3) and expected < 0


def test_who_does_not_look_does_not_punish():
    _, found = outcome_of("monopoly")
    assert found.net_gain == pytest.approx(found.gain) and found.gain > 0.05
    assert found.answer.abs().max() < 1e-6


@pytest.mark.parametrize("continuous", [True, False])
def test_at_the_competitive_price_there_is_nothing_to_gain(continuous):
    _, found = outcome_of("static_nash", continuous=continuous)
    assert abs(found.gain) < 1e-4 and abs(found.cut) < 1e-3


def test_the_cut_is_the_best_answer_to_the_same_step_and_touches_one_store():
    env = make_env("pricing", 2, n_agents=3, continuous=False)
    td = env.rand_action(env.reset())
    before = td["agents", "action"].clone()
    after = cut_price(env.task, td, 1)["agents", "action"]
    assert torch.equal(after[:, [0, 2]], before[:, [0, 2]])
    for action in range(15):
        tried = after.clone()
        tried[:, 1] = action
        earned = [env.task.market.profit(env.task.prices(a))[:, 1] for a in (after, tried)]
        assert (earned[0] >= earned[1] - 1e-7).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deviator": 2}, "there is no store 2 of 2, from 0"),
        (
            {"cut_at": 2},
            "cut_at must be at least 3, n_after at least 1 and their sum below max_steps 12",
        ),
        ({"n_after": 7}, "got 5 and 7"),
        ({"gamma": 1.5}, r"gamma must be in \[0, 1\]; got 1.5"),
    ],
)
def test_what_cannot_be_tested_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        outcome_of("monopoly", **options)


def test_other_tasks_are_refused():
    for env in (make_env("recall", 1), make_env("pricing", 1, inventory=True)):
        with pytest.raises(ValueError, match="needs the task 'pricing' without inventory"):
            punishment(env, lambda td: td)
