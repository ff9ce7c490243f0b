"""The three forms of Q(lambda): by brute force, their limits, and in every loss of the family."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_qmix import SmallGru, loss_of, make_episodes, network, perturb_targets
from tensordict import TensorDict

from marl_td.evaluation.games import game_algorithms
from marl_td.losses.functional.action_values import chosen_action_value, masked_argmax
from marl_td.losses.functional.returns import lambda_return, one_step_target
from marl_td.losses.independent_q import IndependentQLoss
from marl_td.losses.multi_step import Q_LAMBDAS, Returns
from marl_td.losses.q_mixing import QMixingLoss
from marl_td.models.mixers import SumMixer
from marl_td.registry import ALGORITHMS, algorithm_config

NAMES = [name for name in game_algorithms() if not algorithm_config(name).on_policy()]
N_STEPS = 7


def trajectory(seed: int) -> dict[str, torch.Tensor]:
    """Random steps with ends of both kinds; half of the next actions are greedy."""
    generator = torch.Generator().manual_seed(seed)
    shape = (N_STEPS,)
    reward, next_value, below = torch.randn((3, *shape), generator=generator, dtype=torch.float64)
    done, terminated, keeps = torch.rand((3, *shape), generator=generator)
    keeps = keeps < 0.5
    return {
        "reward": reward,
        "next_value": next_value,
        "done": done < 0.3,
        "terminated": (done < 0.3) & (terminated < 0.5),
        "keeps": keeps,
        "next_chosen_value": torch.where(keeps, next_value, next_value - below.abs()),
    }


def ends(steps: dict[str, torch.Tensor], k: int) -> bool:
    return bool(steps["done"][k]) or k == N_STEPS - 1


def corrected(steps: dict[str, torch.Tensor], gamma: float, lmbda: float) -> torch.Tensor:
    """``Q + sum_k (gamma lmbda)^(k-t) delta_k`` with ``delta_k = r_k + gamma v'_k - Q_k``.

    Q_t, of the step that the sum starts with, drops out: it may be anything.
    """
    out = torch.zeros(N_STEPS, dtype=torch.float64)
    for t in range(N_STEPS):
        value, total, weight = torch.tensor(3.21), torch.tensor(3.21, dtype=torch.float64), 1.0
        for k in range(t, N_STEPS):
            bootstrap = 0.0 if steps["terminated"][k] else gamma * steps["next_value"][k]
            total = total + weight * (steps["reward"][k] + bootstrap - value)
            weight *= gamma * lmbda
            value = steps["next_chosen_value"][k]
            if ends(steps, k):
                break
        out[t] = total
    return out


def watkins(steps: dict[str, torch.Tensor], gamma: float, lmbda: float) -> torch.Tensor:
    """Mixtures of the n-step returns that end before an action that is not greedy."""
    out = torch.zeros(N_STEPS, dtype=torch.float64)
    for t in range(N_STEPS):
        rewards, discount, weight = 0.0, 1.0, 1.0
        for k in range(t, N_STEPS):
            rewards = rewards + discount * steps["reward"][k]
            discount *= gamma
            n_step = rewards + discount * steps["next_value"][k] * ~steps["terminated"][k]
            last = ends(steps, k) or not steps["keeps"][k]
            out[t] += (weight if last else weight * (1.0 - lmbda)) * n_step
            weight *= lmbda
            if last:
                break
    return out


FORMS = {"keeps": watkins, "next_chosen_value": corrected}


def given_to(steps: dict[str, torch.Tensor], *extra: str) -> dict[str, torch.Tensor]:
    names = ("reward", "next_value", "done", "terminated", *extra)
    return {name: steps[name] for name in names}


@pytest.mark.parametrize("form", FORMS)
@given(seed=st.integers(0, 10_000), gamma=st.floats(0, 1), lmbda=st.floats(0, 1))
def test_the_recursion_is_the_sum_it_is_defined_by(form, seed, gamma, lmbda):
    steps = trajectory(seed)
    found = lambda_return(**given_to(steps, form), gamma=gamma, lmbda=lmbda)
    torch.testing.assert_close(found, FORMS[form](steps, gamma, lmbda))


@pytest.mark.parametrize("form", FORMS)
def test_limits(form):
    """Greedy actions: the lambda-return; lambda 0: one step; and neither is so otherwise."""
    steps = trajectory(1)
    plain = lambda_return(**given_to(steps), gamma=0.9, lmbda=0.8)
    one_step = one_step_target(steps["reward"], steps["next_value"], steps["terminated"], gamma=0.9)
    given_steps = given_to(steps, form)
    torch.testing.assert_close(lambda_return(**given_steps, gamma=0.9, lmbda=0.0), one_step)
    assert not torch.allclose(lambda_return(**given_steps, gamma=0.9, lmbda=0.8), plain)
    greedy = {"keeps": torch.ones(N_STEPS).bool(), "next_chosen_value": steps["next_value"]}
    given_steps[form] = greedy[form]
    torch.testing.assert_close(lambda_return(**given_steps, gamma=0.9, lmbda=0.8), plain)


def test_never_keeping_is_one_step():
    steps = trajectory(2)
    steps["keeps"] = torch.zeros(N_STEPS).bool()
    one_step = one_step_target(steps["reward"], steps["next_value"], steps["terminated"], gamma=0.9)
    found = lambda_return(**given_to(steps, "keeps"), gamma=0.9, lmbda=0.8)
    torch.testing.assert_close(found, one_step)


def test_corrected_by_hand():
    """v' = 10, then 20; the second action is worth 4: G_1 = 2 + 10, G_0 = 1 + (10 + (12 - 4) / 2) / 2."""
    no = torch.tensor([False, False])
    found = lambda_return(
        torch.tensor([1.0, 2.0]),
        torch.tensor([10.0, 20.0]),
        no,
        no,
        gamma=0.5,
        lmbda=0.5,
        next_chosen_value=torch.tensor([4.0, 99.0]),
    )
    assert found.tolist() == [8.0, 12.0]


# ----------------------------------------------------------------- in the losses
def targets(loss, batch: TensorDict) -> torch.Tensor:
    """Mean target and the error of every step."""
    out = loss(batch)
    steps = batch["agents", "td_error"][batch["step_mask"].squeeze(-1)]
    return torch.cat([out["target_value"].reshape(1), steps.flatten()])


def three(make, batch: TensorDict) -> list[torch.Tensor]:
    """What the same weights make of a batch by the three forms."""
    losses = [make(lmbda=0.7, q_lambda=form, sequences=True) for form in Q_LAMBDAS]
    for loss in losses[1:]:
        loss.load_state_dict(losses[0].state_dict())
    return [targets(loss, batch.clone()) for loss in losses]


@torch.no_grad()
def act_greedily(batch: TensorDict, loss) -> TensorDict:
    """Every action replaced by the greedy available one."""
    values = loss.network(batch.clone())["agents", "action_value"]
    mask = batch.get(("agents", "action_mask"), None)
    return batch.clone().set(("agents", "action"), masked_argmax(values, mask))


def same_targets(loss):
    """``loss`` with target networks equal to the live ones."""
    for source, target in loss.target_pairs():
        target.load_state_dict(source.state_dict())
    return loss


@pytest.mark.parametrize("name", [*NAMES, "iql"])
def test_on_greedy_actions_the_three_are_one_and_else_they_are_not(name):
    torch.manual_seed(0)

    def make(**options):
        if name == "iql":
            return IndependentQLoss(network(), **options)
        return same_targets(loss_of(name, **options))

    batch = make_episodes(masked=True, mortal=True)
    if name == "iql":
        for key in ("reward", "done", "terminated"):
            own = batch["next", key].unsqueeze(-2).expand(-1, -1, 2, -1)
            batch["next", "agents", key] = own.clone()
    first = make(lmbda=0.7, sequences=True)
    state = first.state_dict()

    def again(**options):
        loss = make(**options)
        loss.load_state_dict(state)
        return loss

    peng, *others = three(again, act_greedily(batch, first))
    for found in others:
        torch.testing.assert_close(found, peng)
    peng, *others = three(again, batch)
    for found in others:
        assert not torch.allclose(found, peng)


@pytest.mark.parametrize("form", ["watkins", "corrected"])
@pytest.mark.parametrize("recurrent", [False, True])
def test_the_teams_target_is_the_sum_it_is_defined_by(form, recurrent):
    """VDN with target networks of their own: masks, deaths, ends of both kinds, padding."""
    torch.manual_seed(3)
    options = {"gamma": 0.9, "lmbda": 0.7, "q_lambda": form, "sequences": True}
    loss = perturb_targets(
        QMixingLoss(SmallGru() if recurrent else network(), SumMixer(2), **options)
    )
    lengths, terminated = (N_STEPS, N_STEPS), (True, False)
    batch = make_episodes(lengths, N_STEPS, terminated, masked=True, mortal=True)
    values = loss._action_values(batch)
    alive, mask = batch["agents", "mask"], batch["agents", "action_mask"]
    alive_next = batch["next", "agents", "mask"]
    greedy_next = masked_argmax(values.choosing, batch["next", "agents", "action_mask"])
    v = (chosen_action_value(values.evaluated, greedy_next) * alive_next).sum(-1)
    chosen = (chosen_action_value(values.target_now, batch["agents", "action"]) * alive).sum(-1)
    is_best = batch["agents", "action"] == masked_argmax(values.now, mask)
    keeps = (is_best | ~alive).all(-1)
    assert 0 < keeps[:, 1:].sum() < keeps[:, 1:].numel()
    live = (chosen_action_value(values.now, batch["agents", "action"]) * alive).sum(-1)
    loss(batch)
    brute = watkins if form == "watkins" else corrected
    for row in range(2):
        steps = {
            "reward": batch["next", "reward"][row, :, 0],
            "next_value": v[row],
            "done": batch["next", "done"][row, :, 0],
            "terminated": batch["next", "terminated"][row, :, 0],
            "keeps": keeps[row].roll(-1),
            "next_chosen_value": chosen[row].roll(-1),
        }
        expected = (live[row] - brute(steps, 0.9, 0.7)).abs()
        found = batch["agents", "td_error"][row, :, 0, 0].double()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# --------------------------------------------------------------------- messages
def test_messages():
    with pytest.raises(ValueError, match="`q_lambda` must be one of peng, watkins, corrected; got"):
        Returns(0.5, q_lambda="retrace")
    steps = given_to(trajectory(0))
    with pytest.raises(ValueError, match="`keeps` must have the shape of `reward`"):
        lambda_return(**steps, keeps=steps["done"][:2], gamma=0.9, lmbda=0.5)
    names = [n for n in ALGORITHMS if hasattr(algorithm_config(n), "q_lambda")]
    assert set(names) == {*NAMES, "iql"}
    for name in names:
        with pytest.raises(ValueError, match="q_lambda=watkins changes what lmbda does, and lmbda"):
            algorithm_config(name)(q_lambda="watkins")
        with pytest.raises(ValueError, match="q_lambda must be one of peng, watkins, corrected"):
            algorithm_config(name)(q_lambda="sarsa", lmbda=0.5)
