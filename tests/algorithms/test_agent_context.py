"""Last action and index as inputs of value-based agents: by hand, in every data path, what they are for."""

import pytest
import torch
from benchmarl_runs import IGNORED, STATEFUL
from discrete_teams import teams_task
from short_runs import short_experiment
from torchrl.collectors import Collector
from torchrl.envs.utils import ExplorationType, set_exploration_type
from toy_games import RECALL_RUN, rounds_task

from marl_td.collect.chunk import Chunk
from marl_td.collect.collector import CompiledCollector
from marl_td.collect.last_action import NO_ACTION
from marl_td.models.inputs import AgentContext
from marl_td.policies import CONTEXT
from marl_td.registry import algorithm_config
from marl_td.training.policy_files import policy_tensors
from marl_td.training.trained import load_run

pytestmark = IGNORED

BOTH = {"last_action": True, "agent_id": True}


def traced_collector(experiment, n_starts: int | None = None) -> CompiledCollector:
    """Ours, traced and run eagerly."""
    return CompiledCollector(
        experiment.env_func(),
        experiment.policy,
        frames_per_batch=4 * 12,
        n_starts=n_starts,
        backend="eager",
    )


def our_collector(experiment) -> CompiledCollector:
    """The same without tracing, which takes long; with a start state for each of the 12 steps."""
    collector = traced_collector(experiment, n_starts=12)
    chunk = Chunk(collector.bookkeeping, experiment.policy, collector.starts.number)
    collector._compiled = chunk  # type: ignore[assignment]
    return collector


def their_collector(experiment) -> Collector:
    return Collector(experiment.env_func, experiment.policy, frames_per_batch=4 * 12)


def check_last_actions(batch, group: str) -> None:
    """Of every step and of what it reaches: the action before, nothing at a start and for the dead."""
    action, after = batch[group, "action"], batch["next", group]
    alive = after["mask"]
    expected = torch.where(alive, action, NO_ACTION)
    assert torch.equal(after["last_action"], expected)
    first = batch["is_init"] if "is_init" in batch.keys() else None
    done = batch["next", "done"]
    starts = torch.cat([torch.ones_like(done[:, :1]), done[:, :-1]], 1)
    assert first is None or torch.equal(first, starts)
    before = torch.cat([expected[:, :1], expected[:, :-1]], 1)
    assert torch.equal(batch[group, "last_action"], torch.where(starts, NO_ACTION, before))
    assert starts[:, 1:].any() and not alive.all()


# ----------------------------------------------------------------------- module
def test_rows_by_hand():
    last = torch.tensor([[-1, 2], [0, 1]])
    both = AgentContext(2, 3, agent_id=True)
    assert both.width == 5
    assert both(last).tolist() == [
        [[0, 0, 0, 1, 0], [0, 0, 1, 0, 1]],
        [[1, 0, 0, 1, 0], [0, 1, 0, 0, 1]],
    ]
    assert torch.equal(AgentContext(2, 3, agent_id=False)(last), both(last)[..., :3])
    index = AgentContext(2, 0, agent_id=True, n_dims=3)
    assert torch.equal(index(torch.randn(4, 2, 5, 5)), torch.eye(2).expand(4, 2, 2))


# ------------------------------------------------------------------- data paths
@pytest.mark.parametrize(
    "make", [our_collector, their_collector, pytest.param(traced_collector, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("model", [None, STATEFUL])
@pytest.mark.parametrize("name", ["vdn", "pqn_vdn"])
def test_collected_last_actions(make, model, name, small_experiment):
    """In both collectors, in every group, over resets, deaths and batches; replayed data and fresh data."""
    config = algorithm_config(name)(**BOTH)
    task = teams_task(masked=False, mortal=True, max_steps=7)
    experiment = small_experiment(config, task, model=model)
    collector = make(experiment)
    batches = [batch.clone() for batch, _ in zip(collector, range(2), strict=False)]
    joined = torch.cat(batches, 1)
    for group, n_agents in (("red", 2), ("blue", 3)):
        check_last_actions(joined, group)
        context = joined[group, CONTEXT]
        assert torch.equal(context[..., 3:], torch.eye(n_agents).expand(4, 24, -1, -1))
        rows = torch.nn.functional.one_hot(joined[group, "last_action"] + 1, 4)[..., 1:]
        assert torch.equal(context[..., :3], rows.float())
    collector.shutdown()


def test_random_first_frames_are_last_actions_too(small_experiment):
    config = algorithm_config("vdn")(**BOTH)
    experiment = small_experiment(
        config, teams_task(mortal=True, max_steps=7), off_policy_init_random_frames=24
    )
    batches = [batch.clone() for batch, _ in zip(experiment.collector, range(4), strict=False)]
    check_last_actions(torch.cat(batches, 1), "red")
    experiment.close()


def test_the_loss_reads_it_now_and_next(small_experiment):
    """Values of the replayed steps are the collected ones, and change with the last action."""
    config = algorithm_config("qmix")(**BOTH)
    experiment = small_experiment(config, teams_task(mortal=True, max_steps=7))
    batch = next(iter(experiment.collector))
    seen = batch["red", "action_value"].clone()
    experiment._on_batch_collected(batch)
    data = batch.exclude(*experiment._get_excluded_keys("red"))
    data = experiment.algorithm.process_batch("red", data)
    assert ("red", CONTEXT) not in data.keys(True, True)
    loss = experiment.losses["red"]
    now, _, evaluated, _ = loss._action_values(data)
    torch.testing.assert_close(now, seen)
    goes_on = ~data["next", "done"][:, :-1, 0]
    target = loss.target_network(data.copy())["red", "action_value"]
    torch.testing.assert_close(evaluated[:, :-1][goes_on], target[:, 1:][goes_on])
    for place in (0, 1):
        other = data.clone()
        source = other if place == 0 else other["next"]
        source["red", "last_action"].fill_(NO_ACTION)
        values = loss._action_values(other)
        assert not torch.equal(values[0], now) if place == 0 else torch.equal(values[0], now)
        assert torch.equal(values[2], evaluated) is (place == 0)
    experiment.close()


def test_saved_policies_carry_it(tmp_path):
    """Evaluation during training, the signature, and the policy built again from the run's folder."""
    experiment = short_experiment(
        tmp_path / "run",
        "task=marl_td/two_step",
        "algorithm.last_action=true",
        "algorithm.agent_id=true",
    )
    experiment.run()
    text = (tmp_path / "run" / "policy" / "signature.json").read_text()
    assert '"last_action": {' in text
    again = load_run(tmp_path / "run", n_envs=5)
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        rollout = again.env.rollout(2, again.policy)
    last = rollout["agents", "last_action"]
    assert (last[:, 0] == NO_ACTION).all()
    assert torch.equal(last[:, 1], rollout["agents", "action"][:, 0])
    ours, theirs = policy_tensors(experiment.policy), policy_tensors(again.policy)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


# -------------------------------------------------------------- what it is for
@pytest.mark.parametrize(
    ("options", "best"),
    [({}, 0.5), ({"agent_id": True}, 1.0), ({"last_action": True}, 3.5), (BOTH, 4.0)],
)
def test_what_agents_must_be_told(options, best, small_experiment):
    """The returns of the game in closed form: none is above its bound, with both it is reached."""
    experiment = small_experiment(
        algorithm_config("iql")(**options), rounds_task(), **{**RECALL_RUN, "max_n_iters": 16}
    )
    experiment.run()
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        rollout = experiment.test_env.rollout(4, experiment.policy)
    total = rollout["next", "agents", "reward"].sum(1).mean().item()
    assert total <= best
    if options.get("last_action"):
        assert total >= best - (0.5 if options != BOTH else 0.0)
