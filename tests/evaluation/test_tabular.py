"""Independent learners with tables: what they find, many runs at once, several steps, messages."""

import pytest
import torch

from marl_td.evaluation.games import game_algorithm
from marl_td.evaluation.tabular import ListedGame, one_step_game, play, train_tabular
from marl_td.evaluation.tabular_methods import METHODS
from marl_td.evaluation.tabular_settings import TabularSettings

CLIMBING = [[11.0, -30.0, 0.0], [-30.0, 7.0, 6.0], [0.0, 0.0, 5.0]]
PENALTY = [[10.0, 0.0, -100.0], [0.0, 2.0, 0.0], [-100.0, 0.0, 10.0]]
PUBLISHED = TabularSettings()  # the schedule of Matignon et al. 2012 in units of these payoffs


def share_of_best(payoff, method, n_runs, n_trials=3000, settings=PUBLISHED, **options):
    runs = train_tabular(
        payoff, method, range(n_runs), n_trials=n_trials, settings=settings, **options
    )
    best = torch.tensor(payoff).max().item()
    return sum(run.greedy_payoff == best for run in runs) / n_runs


# --------------------------------------------------------------------- learning
@pytest.mark.parametrize("method", ["distributed_q", "hysteretic_q"])
def test_optimists_find_the_best_joint_action(method):
    """Published: 100 % of the runs in both games (Matignon et al. 2012)."""
    n_trials = {"distributed_q": 1500, "hysteretic_q": 3000}[method]
    assert share_of_best(CLIMBING, method, 200, n_trials) >= 0.97
    assert share_of_best(PENALTY, method, 200, n_trials) >= 0.97


def test_decentralised_q_learning_rarely_climbs_and_mostly_escapes_the_penalty():
    """Published: 16 % and 97 % of the runs (Matignon et al. 2012)."""
    assert 0.05 <= share_of_best(CLIMBING, "iql_tabular", 200) <= 0.3
    assert share_of_best(PENALTY, "iql_tabular", 200) >= 0.9


@pytest.mark.slow
def test_an_optimist_is_fooled_by_a_payoff_that_is_sometimes_high():
    """14 or 0 in the middle: the maximum says 14, the mean 7 is below the 11 in the corner."""
    high, low = [[list(row) for row in CLIMBING] for _ in range(2)]
    high[1][1], low[1][1] = 14.0, 0.0
    shares = {}
    for method in ("distributed_q", "hysteretic_q"):
        runs = train_tabular(high, method, range(50), other_payoffs=[low], settings=PUBLISHED)
        shares[method] = sum(run.greedy_payoff == 11.0 for run in runs) / 50
    assert shares["distributed_q"] <= 0.3
    assert shares["hysteretic_q"] >= 0.6


@pytest.mark.parametrize("method", METHODS)
def test_one_agent_finds_its_best_action_and_many_agents_the_obvious_one(method):
    quick = TabularSettings(temperature_init=100.0, temperature_decay=0.98, epsilon=0.3)
    options = {"n_trials": 500, "settings": quick}
    (run,) = train_tabular([1.0, -2.0, 3.0], method, [0], **options)
    assert run.greedy_action == [2]
    payoff = torch.zeros(2, 3, 2)
    payoff[1, 2, 0] = 5.0
    for run in train_tabular(payoff.tolist(), method, range(3), **options):
        assert (run.greedy_action, run.greedy_payoff) == ([1, 2, 0], 5.0)
        assert [len(values) for values in run.values] == [2, 3, 2]
        assert torch.tensor(run.table).shape == (2, 3, 2)


def test_the_table_is_the_mean_of_the_agents_values():
    (run,) = train_tabular([[0.0, 4.0], [2.0, 0.0]], "iql_tabular", [5], n_trials=20)
    one, two = torch.tensor(run.values)
    expected = (one.unsqueeze(1) + two) / 2
    torch.testing.assert_close(torch.tensor(run.table), expected)
    error = (expected - torch.tensor([[0.0, 4.0], [2.0, 0.0]])).square().sum().item()
    assert run.squared_error == pytest.approx(error)


def test_one_trial_is_one_update_by_hand():
    """Every joint action pays 5: the chosen entries go from 0 to 0.1 * 5, the others stay."""
    (run,) = train_tabular([[5.0, 5.0], [5.0, 5.0]], "iql_tabular", [0], n_trials=1)
    for values in run.values:
        assert sorted(values) == pytest.approx([0.0, 0.5])


def test_distributed_q_ends_at_the_best_of_each_row():
    (run,) = train_tabular(CLIMBING, "distributed_q", [0], n_trials=1500)
    assert run.values == [[11.0, 7.0, 5.0], [11.0, 7.0, 6.0]]


# ------------------------------------------------------------------------ runs
@pytest.mark.parametrize("method", METHODS)
def test_a_run_is_the_same_alone_and_repeats_and_seeds_differ(method):
    before = torch.random.get_rng_state()
    three = train_tabular(CLIMBING, method, [3, 4, 5], n_trials=100)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert three[1:2] == train_tabular(CLIMBING, method, [4], n_trials=100)
    assert len({str(run.values) for run in three}) > 1


def test_the_unit_of_the_payoff_does_not_matter():
    scaled = [[64.0 * value for value in row] for row in CLIMBING]
    for method in METHODS:
        (one,) = train_tabular(CLIMBING, method, [0], n_trials=100)
        (other,) = train_tabular(scaled, method, [0], n_trials=100)
        assert other.greedy_action == one.greedy_action
        expected = 64.0 * torch.tensor(one.values)
        torch.testing.assert_close(torch.tensor(other.values), expected)


def test_steps_are_reported():
    steps = []
    train_tabular(CLIMBING, "fmq", [0], n_trials=7, on_step=lambda: steps.append(1))
    assert len(steps) == 7


# ---------------------------------------------------------------- several steps
def two_step() -> ListedGame:
    """QMIX's two-step game: agent 1 picks table 2A (all 7) or 2B (0, 1; 1, 8)."""
    second = [[0.0] * 4, [7.0] * 4, [0.0, 1.0, 1.0, 8.0]]
    following = [[1, 1, 2, 2], [0] * 4, [0] * 4]
    terminated = torch.tensor([False, True, True]).unsqueeze(-1).expand(3, 4)
    return ListedGame(torch.tensor([second]), torch.tensor(following), terminated, (2, 2))


def test_several_steps_bootstrap_from_the_next_state():
    """With optimists both agents know what every action is worth: 0.9 * 7 or 0.9 * 8 first."""
    game = two_step()
    method = METHODS["distributed_q"](TabularSettings(gamma=0.9, epsilon=0.5), game.mask)
    played = play(game, method, range(5), 2000)
    values = played.tables["action_value"]
    assert values.shape == (5, 3, 2, 2)
    expected = torch.tensor([[[6.3, 7.2], [7.2, 7.2]], [[7.0] * 2] * 2, [[1.0, 8.0]] * 2])
    torch.testing.assert_close(values, expected.expand(5, 3, 2, 2))
    assert (played.greedy_action[:, 0, 0] == 1).all()
    assert (played.greedy_action[:, 2] == 1).all()


def test_values_of_actions_that_an_agent_lacks_are_not_bootstrapped_from():
    """Agent 2 has one action; its table's second entry stays at its start."""
    game = ListedGame(
        reward=torch.full((1, 2, 2), -1.0),
        next_state=torch.tensor([[1, 1], [0, 0]]),
        terminated=torch.tensor([[False, False], [True, True]]),
        n_actions=(2, 1),
    )
    method = METHODS["iql_tabular"](TabularSettings(gamma=1.0, alpha=0.5), game.mask)
    played = play(game, method, range(3), 400)
    values = played.tables["action_value"]
    assert (values[:, :, 1, 1] == 0.0).all()
    torch.testing.assert_close(values[:, 0, 1, 0], torch.full((3,), -2.0), rtol=0.0, atol=1e-3)


# -------------------------------------------------------------------- messages
def test_messages():
    with pytest.raises(ValueError, match=r"no tabular method 'hysteretic'\. Did you mean 'hyst"):
        train_tabular(CLIMBING, "hysteretic", [0])
    with pytest.raises(ValueError, match="got 0 seeds, n_trials=5"):
        train_tabular(CLIMBING, "fmq", [], n_trials=5)
    with pytest.raises(ValueError, match="got 1 seeds, n_trials=0"):
        train_tabular(CLIMBING, "fmq", [0], n_trials=0)
    with pytest.raises(ValueError, match=r"payoff tables of one shape.*\(3, 3\), \(2,\)"):
        train_tabular(CLIMBING, "fmq", [0], other_payoffs=[[1.0, 2.0]])
    with pytest.raises(ValueError, match="at least one; got"):
        one_step_game([])
    with pytest.raises(ValueError, match=r"'fmq' learns no team value: use .*train_tabular"):
        game_algorithm("fmq")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": 1.1}, r"alpha must lie in \[0, 1\]; got 1.1"),
        ({"beta": 0.2}, "beta must be at most alpha; got 0.2 and 0.1"),
        ({"delta_win": 0.5}, "delta_win must be at most delta_lose; got 0.5 and 0.04"),
        ({"temperature_init": 0.0}, "temperature_init must be above 0; got 0.0"),
        ({"temperature_decay": 0.0}, "temperature_decay must be above 0"),
        ({"fmq_weight": -1.0}, "fmq_weight must be at least 0; got -1.0"),
        (
            {"exploration": "greedy"},
            "exploration must be boltzmann or epsilon_greedy; got 'greedy'",
        ),
    ],
)
def test_settings_out_of_range_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        TabularSettings(**wrong)


def test_the_temperature_falls_to_its_end():
    settings = TabularSettings(temperature_init=8.0, temperature_decay=0.5, temperature_end=1.0)
    assert [settings.temperature(step) for step in range(5)] == [8.0, 4.0, 2.0, 1.0, 1.0]
