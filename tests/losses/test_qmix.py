"""The Q-mixing loss on single steps: its limits, hand numbers, masks, graphs, compilation, messages."""

import copy

import pytest
import torch
from small_qmix import (
    D_OBS,
    D_STATE,
    N_ACTIONS,
    make_batch,
    make_episodes,
    network,
    perturb_targets,
    recurrent_loss,
    small_loss,
)
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.data import Categorical
from torchrl.modules import QValueActor, QValueModule
from torchrl.modules.models.multiagent import QMixer as TorchRLQMixer
from torchrl.modules.models.multiagent import VDNMixer
from torchrl.objectives import DQNLoss, QMixerLoss, ValueEstimators

from marl_td.losses.q_mixing import QMixingLoss
from marl_td.losses.targets import TargetUpdater
from marl_td.models.mixers import SumMixer

GAMMA = 0.9
# The tests move TorchRL's target networks themselves.
pytestmark = pytest.mark.filterwarnings("ignore:No target network updater:UserWarning")


def parameters_of(*modules: nn.Module) -> list[torch.Tensor]:
    return [parameter for module in modules for parameter in module.parameters()]


def gradients(loss: QMixingLoss, batch: TensorDict) -> list[torch.Tensor]:
    live = parameters_of(loss.network, loss.mixer)
    return list(torch.autograd.grad(loss(batch.clone())["loss_value"], live))


class FreeValues(nn.Module):
    """Action values that are parameters, the same for every entry: ``[n_agents, n_actions]``."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values.clone())

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return self.values.expand(*observation.shape[:-1], -1)


def free_loss(live: torch.Tensor, target: torch.Tensor, **options) -> QMixingLoss:
    """A loss with a sum mixer whose live and target action values are given numbers."""
    free = TensorDictModule(
        FreeValues(live), [("agents", "observation")], [("agents", "action_value")]
    )
    loss = QMixingLoss(free, SumMixer(len(live)), gamma=GAMMA, **options)
    loss.target_network.module.values.data.copy_(target)
    return loss


# -------------------------------------------------------------------- limits
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("loss_function", ["l2", "smooth_l1"])
def test_one_agent_is_dqn_step_for_step(double, loss_function):
    """Losses, gradients and parameters over several Adam steps equal TorchRL's DQN."""
    net = nn.Sequential(nn.Linear(D_OBS, 8), nn.Tanh(), nn.Linear(8, N_ACTIONS))
    ours = QMixingLoss(
        TensorDictModule(
            copy.deepcopy(net), [("agents", "observation")], [("agents", "action_value")]
        ),
        SumMixer(1),
        gamma=GAMMA,
        double_q=double,
        loss_function=loss_function,
    )
    actor = QValueActor(net, in_keys=["observation"], spec=Categorical(N_ACTIONS))
    theirs = DQNLoss(
        actor, loss_function=loss_function, double_dqn=double, action_space="categorical"
    )
    theirs.make_value_estimator(ValueEstimators.TD0, gamma=GAMMA)
    our_live, our_target = parameters_of(ours.network), parameters_of(ours.target_network)
    their_live = list(theirs.value_network_params.values(True, True))
    their_target = list(theirs.target_value_network_params.values(True, True))
    order = [next(i for i, x in enumerate(our_live) if torch.equal(x, y)) for y in their_live]
    our_live, our_target = [our_live[i] for i in order], [our_target[i] for i in order]
    adams = [torch.optim.Adam(live, lr=1e-2) for live in (our_live, their_live)]
    updater = TargetUpdater(ours.target_pairs(), tau=0.5)
    for _ in range(4):
        batch = make_batch((16,), n_agents=1)
        flat = TensorDict(
            {
                "observation": batch["agents", "observation"].squeeze(1),
                "action": batch["agents", "action"].squeeze(1),
                "next": batch["next"].exclude("agents"),
            },
            [16],
        )
        flat["next", "observation"] = batch["next", "agents", "observation"].squeeze(1)
        our_value, their_value = ours(batch)["loss_value"], theirs(flat)["loss"]
        torch.testing.assert_close(our_value, their_value)
        for adam, value in zip(adams, (our_value, their_value), strict=True):
            adam.zero_grad()
            value.backward()
            adam.step()
        for our, their in zip(our_live, their_live, strict=True):
            torch.testing.assert_close(our.grad, their.grad)
            torch.testing.assert_close(our, their)
        updater.step()
        torch._foreach_lerp_([t.data for t in their_target], [x.data for x in their_live], 0.5)
    assert not torch.equal(our_target[0], our_live[0])


def torchrl_mixer(kind: str, n_agents: int) -> TensorDictModule:
    """TorchRL's mixer with our keys."""
    local = [("agents", "chosen_action_value")]
    if kind == "sum":
        return TensorDictModule(VDNMixer(n_agents, "cpu"), local, ["global_value"])
    net = TorchRLQMixer((D_STATE,), 6, n_agents, "cpu")
    return TensorDictModule(net, [*local, "state"], ["global_value"])


@pytest.mark.parametrize("kind", ["sum", "qmix"])
@pytest.mark.parametrize("share", [True, False])
def test_without_double_q_it_is_torchrls_loss(kind, share):
    """VDN and QMIX: same loss, gradients and (squared) priority with TorchRL's own mixers."""
    net, mix = network(3, share), torchrl_mixer(kind, 3)
    ours = QMixingLoss(copy.deepcopy(net), copy.deepcopy(mix), gamma=GAMMA, double_q=False)
    spec = Categorical(N_ACTIONS, shape=(3,))
    names = [("agents", name) for name in ("action", "action_value", "chosen_action_value")]
    chooser = QValueModule(
        action_value_key=("agents", "action_value"), out_keys=names, spec=spec, action_space=None
    )
    theirs = QMixerLoss(TensorDictSequential(net, chooser), mix, action_space=spec)
    theirs.set_keys(
        action=("agents", "action"),
        action_value=("agents", "action_value"),
        local_value=("agents", "chosen_action_value"),
        global_value="global_value",
        priority="td_error",
    )
    theirs.make_value_estimator(ValueEstimators.TD0, gamma=GAMMA)
    batch, their_batch = (make_batch((16,), 3),) * 2
    batch = batch.clone()
    value, their_value = ours(batch)["loss_value"], theirs(their_batch)["loss"]
    torch.testing.assert_close(value, their_value)
    torch.testing.assert_close(batch["agents", "td_error"][:, 0].square(), their_batch["td_error"])
    value.backward()
    their_value.backward()
    their_live = {
        **dict(theirs.local_value_network_params.flatten_keys(".").items()),
        **dict(theirs.mixer_network_params.flatten_keys(".").items()),
    }
    ours_sum = sum(p.grad.square().sum() for p in parameters_of(ours.network, ours.mixer))
    theirs_sum = sum(p.grad.square().sum() for p in their_live.values() if p.grad is not None)
    torch.testing.assert_close(ours_sum, theirs_sum)


def test_one_step_by_hand():
    live = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    target = torch.tensor([[10.0, 20.0, 30.0], [40.0, 60.0, 50.0]])
    batch = make_batch((2,))
    batch["agents", "action"] = torch.tensor([[0, 1], [2, 2]])
    batch["next", "reward"] = torch.tensor([[1.0], [-1.0]])
    batch["next", "terminated"] = torch.tensor([[False], [True]])
    # Live maxima are the third actions: 30 + 50. The target's own maxima: 30 + 60.
    for double, next_value in ((True, 80.0), (False, 90.0)):
        loss = free_loss(live, target, double_q=double)
        error = [1.0 + 5.0 - (1.0 + GAMMA * next_value), 3.0 + 6.0 - (-1.0)]
        out = loss(batch)
        expected = torch.tensor(error)
        torch.testing.assert_close(out["loss_value"], expected.square().mean())
        torch.testing.assert_close(out["td_error"], expected.abs().mean())
        torch.testing.assert_close(out["global_value"], torch.tensor(7.5))
        torch.testing.assert_close(out["chosen_action_value"], torch.tensor(3.75))
        torch.testing.assert_close(
            out["target_value"], torch.tensor((1.0 + GAMMA * next_value - 1.0) / 2)
        )


@pytest.mark.parametrize(
    ("loss_function", "options", "expected"),
    [
        ("l2", {}, 9.0),
        ("l1", {}, 3.0),
        ("smooth_l1", {}, 2.5),
        ("huber", {}, 2.5),
        ("huber", {"huber_delta": 2.0}, 4.0),
        ("huber", {"huber_delta": 10.0}, 4.5),
    ],
)
def test_loss_functions_by_hand(loss_function, options, expected):
    loss = free_loss(
        torch.full((2, 3), 1.0), torch.zeros(2, 3), loss_function=loss_function, **options
    )
    batch = make_batch((4,))
    batch["next", "reward"] = torch.full((4, 1), -1.0)
    torch.testing.assert_close(loss(batch)["loss_value"], torch.tensor(expected))


# --------------------------------------------------------------------- masks
@pytest.mark.parametrize("double", [True, False])
def test_an_unavailable_action_is_never_the_next_one(double):
    """The best action of both networks is masked away: what remains is the second best."""
    values = torch.tensor([[1.0, 5.0, 99.0], [2.0, 98.0, 3.0]])
    loss = free_loss(values, values, double_q=double)
    batch = make_batch((4,))
    mask = torch.tensor([[True, True, False], [True, False, True]])
    batch["next", "agents", "action_mask"] = mask.expand(4, 2, 3)
    batch["next", "terminated"] = torch.zeros(4, 1, dtype=torch.bool)
    batch["next", "reward"] = torch.zeros(4, 1)
    torch.testing.assert_close(loss(batch)["target_value"], torch.tensor(GAMMA * (5.0 + 3.0)))


def test_terminated_stops_bootstrapping_and_done_does_not():
    loss = free_loss(torch.zeros(2, 3), torch.ones(2, 3))
    batch = make_batch((2,))
    batch["next", "reward"] = torch.zeros(2, 1)
    batch["next", "done"] = torch.ones(2, 1, dtype=torch.bool)
    batch["next", "terminated"] = torch.tensor([[False], [True]])
    loss(batch)
    expected = torch.tensor([2.0 * GAMMA, 0.0])
    torch.testing.assert_close(batch["agents", "td_error"][:, 0, 0], expected)


@pytest.mark.parametrize("kind", ["sum", "qmix"])
def test_a_dead_agent_counts_as_zero_and_learns_nothing(kind):
    loss = small_loss(kind, share=False)
    batch = make_batch((16,))
    alive = torch.tensor([True, False]).expand(16, 2)
    batch["agents", "mask"] = batch["next", "agents", "mask"] = alive
    before = loss(batch.clone())["loss_value"]
    before.backward()
    for parameter in loss.network.parameters():
        assert parameter.grad[0].abs().sum() > 0
        assert torch.equal(parameter.grad[1], torch.zeros_like(parameter.grad[1]))
    changed = batch.clone()
    changed["agents", "observation"][:, 1] += 1.0
    changed["next", "agents", "observation"][:, 1] += 1.0
    changed["agents", "action"][:, 1] = (changed["agents", "action"][:, 1] + 1) % N_ACTIONS
    assert torch.equal(loss(changed)["loss_value"], before)
    if kind == "sum":
        survivor = small_loss("sum", n_agents=1, share=False)
        for pair, source in zip(survivor.target_pairs(), loss.target_pairs(), strict=True):
            for mine, theirs in zip(pair, source, strict=True):
                for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
                    p.data.copy_(q.data[:1])
        alone = batch.exclude("agents", ("next", "agents"))
        alone["agents"] = batch["agents"][:, :1]
        alone["next", "agents"] = batch["next", "agents"][:, :1]
        torch.testing.assert_close(survivor(alone)["loss_value"], before)


def test_padding_and_importance_weights_by_hand():
    loss = free_loss(torch.zeros(2, 3), torch.zeros(2, 3))
    batch = make_batch((4,))
    batch["next", "reward"] = torch.tensor([[1.0], [2.0], [3.0], [float("nan")]])
    batch["step_mask"] = torch.tensor([[True], [True], [True], [False]])
    torch.testing.assert_close(loss(batch)["loss_value"], torch.tensor((1.0 + 4.0 + 9.0) / 3))
    batch["priority_weight"] = torch.tensor([1.0, 0.5, 2.0, 7.0])
    out = loss(batch)
    torch.testing.assert_close(out["loss_value"], torch.tensor((1.0 + 2.0 + 18.0) / 3))
    torch.testing.assert_close(out["td_error"], torch.tensor(2.0))
    out["loss_value"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in loss.parameters())


# ------------------------------------------------------------------- symmetry
def test_reordered_agents_give_the_same_team_value():
    """Shared networks and a sum: the team's value does not change, the agents' values move along."""
    loss, batch, order = small_loss("sum", 3), make_batch((8,), 3), [2, 0, 1]
    moved = batch.clone()
    moved["agents"] = batch["agents"][:, order]
    moved["next", "agents"] = batch["next", "agents"][:, order]
    torch.testing.assert_close(loss(moved)["loss_value"], loss(batch)["loss_value"])
    key = ("agents", "action_value")
    values, moved_values = (loss.network(b.clone())[key] for b in (batch, moved))
    torch.testing.assert_close(moved_values, values[:, order])


# --------------------------------------------------------------------- graphs
@pytest.mark.parametrize("make", [small_loss, recurrent_loss])
def test_targets_take_no_gradient_and_everything_live_does(make):
    loss = make()
    batch = make_batch() if make is small_loss else make_episodes()
    out = loss(batch)
    out["loss_value"].backward()
    assert all(p.grad is not None for p in parameters_of(loss.network, loss.mixer))
    targets = parameters_of(loss.target_network, loss.target_mixer)
    assert all(p.grad is None and not p.requires_grad for p in targets)
    assert set(out.keys()) == set(loss.out_keys)
    assert [key for key in out.keys() if out[key].requires_grad] == ["loss_value"]


@pytest.mark.parametrize(("moved", "follows"), [("target_mixer", True), ("mixer", False)])
def test_the_target_is_mixed_by_the_target_mixer(moved, follows):
    loss, batch = small_loss(), make_batch()
    before = loss(batch)["target_value"]
    with torch.no_grad():
        for parameter in getattr(loss, moved).parameters():
            parameter.add_(0.5)
    assert torch.equal(loss(batch)["target_value"], before) is not follows


def test_the_priority_is_written_where_the_buffer_reads_it_and_nothing_else_changes():
    loss, batch = small_loss(), make_batch(masked=True, mortal=True)
    before = batch.clone()
    out = loss(batch)
    priority = batch["agents", "td_error"]
    assert priority.shape == (16, 2, 1)
    assert torch.equal(priority[:, 0], priority[:, 1])
    torch.testing.assert_close(priority[:, 0].mean(), out["td_error"])
    assert torch.equal(batch["agents", "priority"], priority)
    added = {("agents", "td_error"), ("agents", "priority")}
    assert (batch.exclude(*added) == before).all()
    assert set(batch.keys(True, True)) - set(before.keys(True, True)) == added


def test_two_losses_with_other_keys_do_not_disturb_each_other():
    first, batch = small_loss("sum"), make_batch()
    second = small_loss("sum")
    second.load_state_dict(first.state_dict())
    second.set_keys(reward=("team", "reward"), priority=("agents", "priority"))
    batch["next", "team"] = TensorDict({"reward": batch["next", "reward"] + 1.0}, [16])
    one, two = first(batch), second(batch)
    torch.testing.assert_close(two["target_value"], one["target_value"] + 1.0)
    assert {"td_error", "priority"} <= set(batch["agents"].keys())
    assert "reward" in first.in_keys
    assert ("team", "reward") in second.in_keys


def test_state_dict_holds_targets_too():
    loss, other, batch = small_loss(), small_loss(), make_batch()
    assert loss(batch)["loss_value"] != other(batch)["loss_value"]
    other.load_state_dict(loss.state_dict())
    assert torch.equal(loss(batch)["loss_value"], other(batch)["loss_value"])


def test_team_value_is_what_the_loss_regresses():
    loss, batch = small_loss(), make_batch(mortal=True)
    torch.testing.assert_close(loss.team_value(batch).mean(), loss(batch)["global_value"])


# -------------------------------------------------------------------- compile
def masked_loss() -> QMixingLoss:
    return small_loss(share=False)


def masked_batch() -> TensorDict:
    return make_batch(masked=True, mortal=True)


# tensordict 0.11's own: a retired setting of torch, and its locks under the compiler.
@pytest.mark.filterwarnings("ignore:Using lock_:UserWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*inline_inbuilt_nn_modules:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function:DeprecationWarning")
@pytest.mark.parametrize(
    ("loss", "batch", "backend"),
    [
        (masked_loss, masked_batch, "eager"),
        pytest.param(masked_loss, masked_batch, "inductor", marks=pytest.mark.slow),
        (
            lambda: small_loss("sum", lmbda=0.5, sequences=True),
            lambda: make_episodes((3, 1), 3, (True, False)),
            "eager",
        ),
        pytest.param(
            lambda: recurrent_loss(lmbda=0.5),
            lambda: make_episodes((3, 1), 3, (True, False)),
            "aot_eager",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["masked", "masked, all of the compiler", "episodes", "recurrent episodes"],
)
def test_compiles_whole_and_equals_eager(loss, batch, backend):
    torch._dynamo.reset()
    loss, batch = loss(), batch()
    live = parameters_of(loss.network, loss.mixer)
    compiled = torch.compile(loss.compute, fullgraph=True, backend=backend)
    results = []
    for function in (loss.compute, compiled):
        out = function(batch)
        results.append([*out.values(), *torch.autograd.grad(out["loss_value"], live)])
    for eager, fast in zip(*results, strict=True):
        torch.testing.assert_close(eager, fast, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------- messages
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1.5}, r"`gamma` must lie in \[0, 1\]; got 1.5"),
        ({"lmbda": -0.1, "sequences": True}, r"`lmbda` must lie in \[0, 1\]; got -0.1"),
        (
            {"loss_function": "l3"},
            "`loss_function` must be one of l2, l1, smooth_l1, huber; got 'l3'",
        ),
        ({"huber_delta": 0.0}, "`huber_delta` must be above 0; got 0.0"),
        ({"lmbda": 0.5}, r"`lmbda` = 0.5 needs whole episodes; set sequences=True"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small_loss(**options)


def test_a_missing_entry_is_named():
    message = r"no entry .*next.*reward.*; it holds .*\. `marl_td.signals.team_signals` .*set_keys"
    with pytest.raises(KeyError, match=message):
        small_loss()(make_batch().exclude(("next", "reward")))


def test_a_team_reward_per_agent_is_refused():
    batch = make_batch()
    batch["next", "reward"] = torch.randn(16, 2, 1)
    with pytest.raises(ValueError, match="must have the shape of `reward`"):
        small_loss()(batch)


def test_perturbed_targets_differ():
    """The tests above compare live with target values: they must not be equal by construction."""
    loss = perturb_targets(small_loss())
    assert not torch.equal(*(parameters_of(m)[0] for m in (loss.network, loss.target_network)))
