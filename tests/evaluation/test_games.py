"""What factorisations learn of payoff tables: the known tables, closed forms, messages."""

import math

import pytest
import torch
from tensordict import TensorDict

from marl_td.evaluation.games import (
    game_algorithm,
    game_algorithms,
    one_step_batch,
    payoff_table,
    train_game,
)
from marl_td.evaluation.table_fit import fit, seeded_losses
from marl_td.losses.functional.action_values import masked_argmax
from marl_td.tasks.two_step import TwoStep, TwoStepParams, TwoStepState

QTRAN = [[8.0, -12.0, -12.0], [-12.0, 0.0, 0.0], [-12.0, 0.0, 0.0]]
LEARNED_BY_QMIX = torch.tensor([[-8.0, -8.0, -8.0], [-8.0, 0.0, 0.0], [-8.0, 0.0, 0.0]])
GAMMA = 0.99


def additive(payoff: torch.Tensor) -> torch.Tensor:
    """The least-squares sum of one number per agent and action: mean plus the deviations."""
    mean = payoff.mean()
    total = mean.expand_as(payoff)
    for agent in range(payoff.ndim):
        others = [other for other in range(payoff.ndim) if other != agent]
        own = payoff.mean(others, keepdim=True) if others else payoff
        total = total + own - mean
    return total


def tables(payoff, algorithm: str, n_seeds: int, **options) -> torch.Tensor:
    """Learned tables ``[n_seeds, ..]``."""
    runs = train_game(payoff, algorithm, range(n_seeds), **options)
    return torch.tensor([run.table for run in runs])


# ------------------------------------------------------------------ known tables
def test_qmix_learns_its_known_table_on_every_seed():
    """QTRAN's game (Son et al. 2019, Table 1): the local optimum that QMIX is known for."""
    runs = train_game(QTRAN, "qmix", range(32), n_steps=400)
    assert [run.seed for run in runs] == list(range(32))
    for run in runs:
        torch.testing.assert_close(torch.tensor(run.table), LEARNED_BY_QMIX, rtol=0.0, atol=0.1)
        assert run.squared_error == pytest.approx(320.0, abs=1.0)
        assert run.greedy_payoff == 0.0


@pytest.mark.parametrize(
    "payoff",
    [
        QTRAN,
        [[11.0, -30.0, 0.0], [-30.0, 7.0, 0.0], [0.0, 6.0, 5.0]],
        [[1.0, 2.0, 3.0], [5.0, 0.0, 4.0]],
        [[[0.0, 1.0], [2.0, -3.0]], [[4.0, 0.0], [1.0, 9.0]]],
        [3.0, -1.0],
    ],
    ids=["QTRAN", "climbing", "2 x 3", "three agents", "one agent"],
)
def test_a_sum_learns_the_least_squares_table(payoff):
    expected = additive(torch.tensor(payoff))
    for run in train_game(payoff, "vdn", range(32 if payoff is QTRAN else 2)):
        torch.testing.assert_close(torch.tensor(run.table), expected, rtol=1e-2, atol=0.1)
        squared = (expected - torch.tensor(payoff)).square().sum().item()
        assert run.squared_error == pytest.approx(squared, rel=1e-2, abs=1e-2)
        assert run.greedy_payoff == payoff_at_best(expected, torch.tensor(payoff))


@pytest.mark.parametrize("algorithm", ["qatten", "pqn_vdn"])
def test_these_learn_the_same_table(algorithm):
    """Qatten's attention has nothing to tell agents apart by (Yang et al. 2020); PQN-VDN is a sum."""
    expected = additive(torch.tensor(QTRAN))
    for run in train_game(QTRAN, algorithm, range(32), n_steps=400):
        torch.testing.assert_close(torch.tensor(run.table), expected, rtol=0.0, atol=0.1)
        assert run.greedy_payoff == 0.0


@pytest.mark.parametrize(
    ("n_seeds", "n_steps"), [(4, 600), pytest.param(32, 1000, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ("algorithm", "elsewhere"),
    [("cw_qmix", -6.0), ("ow_qmix", -12.0 * 0.1 / 1.1)],
)
def test_weighting_finds_the_best_joint_action(algorithm, elsewhere, n_seeds, n_steps):
    """The weighted least squares: 8 at the best joint action, one number elsewhere.

    CW-QMIX (weights all alpha elsewhere): the mean of -12 four times and 0 four times. OW-QMIX (weight 1 for
    the zeros above it, alpha for the -12 below it): -12 alpha / (1 + alpha), alpha = 0.1.
    """
    expected = torch.full((3, 3), elsewhere)
    expected[0, 0] = 8.0
    for run in train_game(QTRAN, algorithm, range(n_seeds), n_steps=n_steps):
        torch.testing.assert_close(torch.tensor(run.table), expected, rtol=0.0, atol=0.1)
        joint = torch.tensor(run.joint_table)
        torch.testing.assert_close(joint, torch.tensor(QTRAN), rtol=0.0, atol=0.1)
        assert run.greedy_payoff == 8.0


@pytest.mark.parametrize("n_seeds", [4, pytest.param(32, marks=pytest.mark.slow)])
@pytest.mark.parametrize("algorithm", ["qtran_base", "qtran_alt"])
def test_qtran_finds_the_best_joint_action(algorithm, n_seeds):
    """Son et al. 2019, Theorem 1: the sum equals Q_jt at the greedy joint action, and lies above elsewhere.

    QTRAN-alt ties it to Q_jt for each agent's own actions too: the smallest gap of each row and column is 0.
    """
    payoff = torch.tensor(QTRAN)
    for run in train_game(QTRAN, algorithm, range(n_seeds), n_steps=600):
        total, joint = torch.tensor(run.table), torch.tensor(run.joint_table)
        torch.testing.assert_close(joint, payoff, rtol=0.0, atol=0.1)
        assert run.greedy_payoff == 8.0
        assert total[0, 0].item() == pytest.approx(8.0, abs=0.1)
        assert (total - joint > -0.1).all()
        if algorithm == "qtran_alt":
            gap = total - joint
            smallest = torch.cat([gap.amin(0), gap.amin(1)])
            torch.testing.assert_close(smallest, torch.zeros(6), rtol=0.0, atol=0.1)


def test_shaq_does_not_solve_the_game():
    """Nearly all seeds settle for 0, many of them at the least-squares sum."""
    runs = train_game(QTRAN, "shaq", range(32), n_steps=400)
    payoffs = [run.greedy_payoff for run in runs]
    assert payoffs.count(0.0) >= 26
    sums = [run for run in runs if run.squared_error == pytest.approx(455.1, abs=3.0)]
    expected = additive(torch.tensor(QTRAN))
    assert len(sums) >= 8
    for run in sums:
        torch.testing.assert_close(torch.tensor(run.table), expected, rtol=0.0, atol=1.0)


def test_qplex_represents_the_table_that_a_monotone_mixer_cannot():
    """The values are given, with the right best actions. What it learns alone: `docs/algorithms/qplex.md`."""
    sizes = {"n_states": 1, "n_agents": 2, "n_actions": 3}
    batch = one_step_batch(torch.tensor(QTRAN))
    losses = seeded_losses(game_algorithm("qplex"), range(2), **sizes)
    for loss in losses:
        loss.network.table.data.copy_(torch.tensor([5.0, 3.0, 2.0]).expand(1, 2, 3))
        loss.network.table.requires_grad_(False)
    with torch.no_grad():
        fitted = [loss.team_value(batch) for loss in fit(losses, batch, n_steps=400)]
    payoff = batch["next", "reward"].squeeze(-1)
    assert min((value - payoff).square().sum().item() for value in fitted) < 1e-2


def payoff_at_best(values: torch.Tensor, payoff: torch.Tensor) -> float:
    return payoff.flatten()[values.argmax()].item()


def test_a_monotone_payoff_is_learned_exactly():
    """By three agents, where a sum cannot: 9 if all coordinate, 3 if all play safe, else less."""
    count = torch.cartesian_prod(*[torch.arange(2)] * 3).sum(-1).reshape(2, 2, 2)
    payoff = torch.tensor([0.0, 0.5, 1.0, 9.0])[count]
    for run in train_game(payoff.tolist(), "qmix", range(2)):
        torch.testing.assert_close(torch.tensor(run.table), payoff, rtol=0.0, atol=0.1)
        assert run.greedy_payoff == 9.0
    assert not torch.allclose(additive(payoff), payoff, atol=1.0)


@pytest.mark.parametrize("scale", [0.01, 1000.0])
def test_the_unit_of_the_payoff_does_not_matter(scale):
    scaled = [[scale * value for value in row] for row in QTRAN]
    learned = tables(scaled, "vdn", 2, n_steps=50) / scale
    torch.testing.assert_close(learned, tables(QTRAN, "vdn", 2, n_steps=50))


def test_seeds_differ_and_repeat_and_leave_the_global_stream_alone():
    before = torch.random.get_rng_state()
    first = tables(QTRAN, "qmix", 2, n_steps=5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, tables(QTRAN, "qmix", 2, n_steps=5))
    assert not torch.equal(first[0], first[1])
    alone = train_game(QTRAN, "marl_td/qmix", [1], n_steps=5)
    torch.testing.assert_close(torch.tensor(alone[0].table), first[1])


# --------------------------------------------------------------- two-step game
def two_step_batch() -> tuple[TensorDict, TensorDict]:
    """Every transition of the two-step game once, ``[12]``, and its three states ``[3]``."""
    task = TwoStep(TwoStepParams())
    where = torch.arange(3).repeat_interleave(4)
    action = torch.cartesian_prod(torch.arange(2), torch.arange(2)).repeat(3, 1)
    state = TwoStepState(where)
    stepped = task.step(state, {"agents": action}, {})
    after = TensorDict(
        {
            "state": task.team_state(stepped.state),
            "reward": stepped.reward["agents"][:, :1],
            "terminated": stepped.terminated.unsqueeze(-1),
            "done": torch.ones(
                12, 1, dtype=torch.bool
            ),  # no transition is followed by the next one
        },
        [12],
    )
    agents = TensorDict({"action": action}, [12, 2])
    batch = TensorDict({"agents": agents, "state": task.team_state(state), "next": after}, [12])
    return batch, batch[::4].select("state")


@pytest.mark.parametrize(
    ("algorithm", "first", "table_2b", "total"),
    [
        ("qmix", [GAMMA * 7, GAMMA * 8], [[0.0, 1.0], [1.0, 8.0]], 8.0),
        ("vdn", [GAMMA * 7, GAMMA * 6.5], [[-1.5, 2.5], [2.5, 6.5]], 7.0),
        ("pqn_vdn", [GAMMA * 7, GAMMA * 6.5], [[-1.5, 2.5], [2.5, 6.5]], 7.0),
    ],
)
def test_the_two_step_game_on_every_seed(algorithm, first, table_2b, total):
    """QMIX (Rashid et al. 2018, Table 2) finds 8; a sum misjudges table 2B and takes the sure 7."""
    make_loss = game_algorithm(algorithm)
    losses = seeded_losses(make_loss, range(16), n_states=3, n_agents=2, n_actions=2)
    batch, states = two_step_batch()
    for loss in fit(losses, batch):
        with torch.no_grad():
            learned = loss.team_value(batch).reshape(3, 2, 2)
            greedy = masked_argmax(loss.network(states.clone())["agents", "action_value"])
        expected = torch.tensor(first).unsqueeze(-1).expand(2, 2)
        torch.testing.assert_close(learned[0], expected, rtol=0.0, atol=0.1)
        torch.testing.assert_close(learned[1], torch.full((2, 2), 7.0), rtol=0.0, atol=0.1)
        torch.testing.assert_close(learned[2], torch.tensor(table_2b), rtol=0.0, atol=0.1)
        table = 1 + int(greedy[0, 0])
        reward = batch["next", "reward"].reshape(3, 2, 2)
        assert reward[table][tuple(greedy[table])] == total


# --------------------------------------------------------------------- batch
def test_a_batch_holds_every_joint_action_once():
    batch = one_step_batch(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    actions = batch["agents", "action"].tolist()
    assert actions == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert batch["next", "reward"].flatten().tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    mask = batch["agents", "action_mask"]
    assert mask[0].tolist() == [[True, True, False], [True, True, True]]
    assert batch["next", "terminated"].all()


# ------------------------------------------------------------------ messages
@pytest.mark.parametrize(
    ("payoff", "message"),
    [
        (
            [[1, 2], [3]],
            "nested lists of numbers, one level per agent, all lists of a level of equal",
        ),
        ([["a"]], "nested lists of numbers"),
        ([[None, 1.0]], "nested lists of numbers"),
        ([], "one level per agent; got none"),
        (3.0, "one level per agent; got none"),
        ([[1.0, math.nan]], "must hold finite numbers only; got .*nan"),
        ([[1.0, math.inf]], "must hold finite numbers only; got .*inf"),
        ([[0.0] * 65] * 64, "4160 joint actions; at most 4096 are trained"),
    ],
)
def test_bad_payoffs_are_named(payoff, message):
    with pytest.raises(ValueError, match=message):
        payoff_table(payoff)


def test_unknown_algorithms_and_empty_runs_are_named():
    with pytest.raises(
        ValueError, match=r"no value-based algorithm 'qmx' for games\. Did you mean 'qmix'"
    ):
        train_game(QTRAN, "qmx", [0])
    with pytest.raises(ValueError, match="no value-based algorithm 'mappo'"):
        train_game(QTRAN, "mappo", [0])
    for seeds, n_steps in (([], 10), ([0], 0)):
        with pytest.raises(ValueError, match=f"got {len(seeds)} seeds, n_steps={n_steps}"):
            train_game(QTRAN, "qmix", seeds, n_steps=n_steps)


@pytest.mark.parametrize("name", game_algorithms())
def test_every_algorithm_trains_and_reports_each_step(name):
    steps = []
    (run,) = train_game([[0.0, 0.0]], name, [3], n_steps=4, on_step=lambda: steps.append(1))
    assert len(steps) == 4
    assert run.seed == 3
    assert run.greedy_payoff == 0.0
