"""HAPPO and HATRPO in unchanged BenchMARL: every kind of task and network, turns, groups, resuming."""

import pytest
import torch
from benchmarl.environments import VmasTask
from benchmarl.experiment import Experiment
from benchmarl_runs import IGNORED, STATEFUL, THEIR_GRU, Metrics, assert_all_move
from discrete_teams import teams_task
from toy_games import meet_task

from marl_td.algorithms.happo import HappoConfig
from marl_td.algorithms.hatrpo import HatrpoConfig
from marl_td.registry import algorithm_config

pytestmark = IGNORED

NAMES = ["happo", "hatrpo"]
OWN_VALUES = {"share_param_critic": False, "advantage_norm": "agent"}
CASES = {
    "discrete": (teams_task(blue=0, masked=False, has_state=False), {}, {}),
    "masked, two groups, dead": (teams_task(mortal=True), {"value_norm": "running"}, {}),
    "masked, own group": (
        teams_task(has_state=False),
        {"critic_scope": "group", "turn_scope": "group", "value_norm": "none"},
        {},
    ),
    "masked, stateful chunks": (
        teams_task(mortal=True),
        {**OWN_VALUES, "chunk_length": 4},
        {"model": STATEFUL},
    ),
    "masked, BenchMARL's GRU": (teams_task(), {}, {"model": THEIR_GRU}),
    "continuous, two groups": (
        VmasTask.SIMPLE_TAG.get_from_yaml(),
        {"agent_specific_state": True},
        {},
    ),
    "continuous, unsquashed": (meet_task(), {"use_tanh_normal": False}, {}),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES)
def test_two_iterations_of_every_kind(case, name, small_experiment):
    """Every agent's parameters and the critic's move, each metric is finite, whatever sharing is set to."""
    task, options, settings = CASES[case]
    metrics = Metrics()
    config = algorithm_config(name)(**options)
    settings = {"on_policy_n_minibatch_iters": 3, **settings}
    experiment = small_experiment(config, task, callbacks=[metrics], **settings)
    assert_all_move(experiment, metrics)
    for group, loss in experiment.losses.items():
        for stack in loss.actor.parameters():
            assert stack.shape[0] == len(experiment.group_map[group])
    assert all(("accepted" in values) == (name == "hatrpo") for _, values in metrics.seen)


# ------------------------------------------------------------------ turns
@pytest.mark.parametrize("name", NAMES)
def test_agents_move_one_after_the_other_under_benchmarls_optimisers(name, small_experiment):
    """Six epochs of two minibatches for three agents: four steps each, in the order that was drawn."""
    experiment = small_experiment(
        algorithm_config(name)(), teams_task(red=3, blue=0), on_policy_n_minibatch_iters=6, lr=1e-2
    )
    loss = experiment.losses["red"]
    moved, loop = [], experiment._optimizer_loop

    def watched(group):
        before = [p.detach().clone() for p in loss.actor.parameters()]
        out = loop(group)
        now = zip(loss.actor.parameters(), before, strict=True)
        changed = torch.stack([(p != b).flatten(1).any(-1) for p, b in now]).any(0)
        moved.append(changed.nonzero().flatten().tolist())
        return out

    experiment._optimizer_loop = watched
    orders = []
    experiment.callbacks = [
        *experiment.callbacks,
        watcher(lambda: orders.append(loss.turns.order.tolist())),
    ]
    experiment.run()
    assert len(moved) == 24
    steps = 4 if name == "happo" else 2  # one pass over the minibatches
    for order, calls in zip(orders, (moved[:12], moved[12:]), strict=True):
        expected = [[agent] * (k < steps) for agent in order for k in range(4)]
        assert calls == expected
    assert int(loss.turns.n_batches) == 2


def watcher(look):
    """A callback that looks after each iteration's training."""
    from benchmarl.experiment import Callback

    class Watcher(Callback):
        def on_train_end(self, training_td, group):
            look()

    return Watcher()


def test_with_fewer_updates_than_agents_some_wait_for_the_next_batch(small_experiment):
    settings = {"on_policy_n_minibatch_iters": 1, "on_policy_minibatch_size": 24}
    experiment = small_experiment(
        HappoConfig(), teams_task(red=3, blue=0), max_n_iters=8, **settings
    )
    before = [p.detach().clone() for p in experiment.losses["red"].actor.parameters()]
    experiment.run()
    now = zip(experiment.losses["red"].actor.parameters(), before, strict=True)
    assert torch.stack([(p != b).flatten(1).any(-1) for p, b in now]).any(0).all()


def test_a_fixed_order_is_kept(small_experiment):
    experiment = small_experiment(HappoConfig(fixed_order=True), teams_task(red=3, blue=0))
    experiment.run()
    assert experiment.losses["red"].turns.order.tolist() == [0, 1, 2]


# ----------------------------------------------------------------- groups
@pytest.mark.parametrize("name", NAMES)
def test_the_second_group_counts_what_the_first_has_changed(name, small_experiment):
    """Its first agent's factor is that of the whole first group; with turn_scope=group it is 1."""
    deviation = {}
    for scope in ("environment", "group"):
        metrics = Metrics()
        small_experiment(
            algorithm_config(name)(turn_scope=scope),
            teams_task(mortal=True, has_state=False),
            callbacks=[metrics],
            on_policy_n_minibatch_iters=3,
            on_policy_minibatch_size=24,
            max_n_iters=1,
            lr=1e-2,
        ).run()
        seen = {group: values["factor_deviation"] for group, values in metrics.seen}
        assert seen["red"][0] == 0.0 < seen["red"][-1]
        deviation[scope] = seen["blue"]
    assert deviation["environment"][0] > 1e-3
    assert deviation["group"][0] == 0.0 < deviation["group"][-1]


# ------------------------------------------------------------------ resume
@pytest.mark.parametrize("name", NAMES)
def test_a_reloaded_run_goes_on_with_the_orders(name, small_experiment):
    experiment = small_experiment(
        algorithm_config(name)(), teams_task(red=3, blue=0), checkpoint_at_end=True, max_n_iters=3
    )
    experiment.run()
    (checkpoint,) = (experiment.folder_name / "checkpoints").glob("*.pt")
    reloaded = Experiment.reload_from_file(str(checkpoint), {"max_n_iters": 4})
    turns, theirs = (x.losses["red"].turns for x in (experiment, reloaded))
    assert int(theirs.n_batches) == 3
    assert theirs.order.tolist() == turns.order.tolist()
    reloaded.run()
    assert theirs.order.tolist() == turns.order_of(torch.tensor(3)).tolist()


# ---------------------------------------------------------------- settings
def test_settings_reach_the_loss(small_experiment):
    config = HatrpoConfig(
        kl_threshold=0.02,
        cg_iterations=7,
        cg_damping=0.2,
        line_search_steps=4,
        backtrack=0.6,
        accept_ratio=0.1,
        critic_coef=0.7,
    )
    loss = small_experiment(config, meet_task()).losses["agents"]
    assert (loss.kl_threshold, loss.cg_iterations, loss.cg_damping) == (0.02, 7, 0.2)
    assert (loss.line_search_steps, loss.backtrack, loss.accept_ratio) == (4, 0.6, 0.1)
    assert loss.critic_coeff == 0.7
    assert (loss.turns.n_updates, loss.steps_per_turn) == (4, 2)
    loss = small_experiment(HappoConfig(clip_epsilon=0.1), meet_task(), seed=3).losses["agents"]
    assert (loss.clip_epsilon, loss.turns.seed) == (0.1, 3)


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (HappoConfig, {"turn_scope": "all"}, "turn_scope must be one of environment, group"),
        (HappoConfig, {"clip_epsilon": 0.0}, "clip_epsilon must be in"),
        (HappoConfig, {"critic_scope": "all"}, "critic_scope must be one of"),
        (HatrpoConfig, {"kl_threshold": 0.0}, "kl_threshold must be at least 1e-09; got 0"),
        (HatrpoConfig, {"backtrack": 1.0}, r"backtrack must be in \[0.001, 0.999\]; got 1"),
        (HatrpoConfig, {"accept_ratio": -1.0}, r"accept_ratio must be in \[0, 1\]; got -1"),
        (HatrpoConfig, {"cg_damping": -0.1}, "cg_damping must be at least 0"),
        (HatrpoConfig, {"cg_iterations": 0}, "cg_iterations must be at least 1; got 0"),
        (HatrpoConfig, {"line_search_steps": 0}, "line_search_steps must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(config, options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)
