"""The PQN loss: its targets by brute force, its limits, masks, sequences with memory, compiling."""

import copy

import pytest
import torch
from brute_force import lambda_returns
from hypothesis import given
from hypothesis import strategies as st
from small_qmix import D_OBS, N_ACTIONS, SmallGru, make_batch, network
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn

from marl_td.losses import PqnLoss
from marl_td.losses.functional.action_values import chosen_action_value, masked_max
from marl_td.models.mixers import QMixer, SumMixer

GAMMA = 0.9
VALUES = ("agents", "action_value")


def small_loss(n_agents: int = 2, share: bool = True, **options) -> PqnLoss:
    return PqnLoss(network(n_agents, share), SumMixer(n_agents), gamma=GAMMA, **options)


def gradients(loss: PqnLoss, batch: TensorDict) -> list[torch.Tensor]:
    live = list(loss.network.parameters())
    return list(torch.autograd.grad(loss(batch.clone())["loss_value"], live))


def rows(n_rows: int = 4, n_steps: int = 7, **options) -> TensorDict:
    """Consecutive steps of several episodes a row, some ended by termination, some by a time limit."""
    batch = make_batch((n_rows, n_steps), masked=True, mortal=True, **options)
    done = batch["next", "done"]
    for key in (
        "observation",
        "action_mask",
        "mask",
    ):  # what a step reaches, the next one starts from
        now, reached = batch["agents", key], batch["next", "agents", key][:, :-1]
        goes_on = ~done[:, :-1].reshape(n_rows, n_steps - 1, *[1] * (now.ndim - 2))
        now[:, 1:] = torch.where(goes_on, reached, now[:, 1:])
    first = torch.ones_like(done[:, :1])
    batch["is_init"] = torch.cat([first, done[:, :-1]], dim=1)
    return batch


# ----------------------------------------------------------------------- targets
@given(seed=st.integers(0, 10_000), lmbda=st.floats(0, 1), padded=st.booleans())
def test_the_target_is_the_weighted_sum_of_n_step_returns(seed, lmbda, padded):
    """Over resets inside a row, ends of both kinds, unavailable actions, deaths and padding."""
    torch.manual_seed(seed)
    loss, batch = small_loss(lmbda=lmbda), rows()
    real = torch.ones(4, 7, 1, dtype=torch.bool)
    if padded:
        real[1, 4:] = real[2, 1:] = False
        batch["step_mask"] = real
    with torch.no_grad():
        values = loss.network(batch["next"].clone())[VALUES]
        best = masked_max(values, batch["next", "agents", "action_mask"])
        alive = batch["next", "agents", "mask"]
    target = loss.estimate(batch.clone())["value_target"]
    for row in range(4):
        length = int(real[row].sum())
        steps = {
            "reward": batch["next", "reward"][row, :length, 0],
            "next_value": (best * alive).sum(-1)[row, :length],
            "done": batch["next", "done"][row, :length, 0],
            "terminated": batch["next", "terminated"][row, :length, 0],
        }
        expected = lambda_returns(steps, GAMMA, lmbda).float()
        torch.testing.assert_close(target[row, :length, 0], expected, rtol=1e-4, atol=1e-4)


def test_estimated_steps_in_any_order_are_the_rows_they_were_made_of():
    """Same loss, metrics and gradients; so no gradient flows into the targets of whole rows either."""
    loss, batch = small_loss(), rows()
    whole = loss(batch.clone())
    flat = loss.estimate(batch.clone()).reshape(-1)[torch.randperm(28)]
    assert not flat["value_target"].requires_grad
    for key, value in loss(flat.clone()).items():
        torch.testing.assert_close(value, whole[key])
    for one, other in zip(gradients(loss, flat), gradients(loss, batch), strict=True):
        torch.testing.assert_close(one, other)


def test_targets_move_with_the_parameters_in_rows_and_stay_once_estimated():
    loss, batch = small_loss(), rows()
    estimated = loss.estimate(batch.clone())
    before = [loss(data.clone())["target_value"] for data in (batch, estimated)]
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.add_(0.3)
    after = [loss(data.clone())["target_value"] for data in (batch, estimated)]
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


def test_what_comes_after_a_reset_changes_nothing_before_it():
    loss, batch = small_loss(lmbda=0.9), rows(1)
    for name, values in (("done", [0, 0, 1, 0, 0, 0, 0]), ("terminated", [0] * 7)):
        batch["next", name] = torch.tensor(values).bool().reshape(1, 7, 1)
    before = loss.estimate(batch.clone())["value_target"]
    batch["next", "reward"][:, 3:] += 5.0
    after = loss.estimate(batch.clone())["value_target"]
    assert torch.equal(after[:, :3], before[:, :3])
    assert (after[:, 3:] != before[:, 3:]).all()


# ------------------------------------------------------------------------ limits
@pytest.mark.parametrize("estimated", [False, True])
def test_one_agent_and_one_step_is_q_learning_without_target(estimated):
    """r + gamma max Q, held constant: losses, gradients, parameters of several Adam steps."""
    net = nn.Sequential(nn.Linear(D_OBS, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, N_ACTIONS))
    theirs = copy.deepcopy(net)
    module = TensorDictModule(net, [("agents", "observation")], [VALUES])
    loss = PqnLoss(module, SumMixer(1), gamma=GAMMA, lmbda=0.0)
    adams = [torch.optim.Adam(part.parameters(), lr=1e-2) for part in (net, theirs)]
    for _ in range(5):
        batch = make_batch((8, 3), n_agents=1)
        now, reached = (data["agents", "observation"][..., 0, :] for data in (batch, batch["next"]))
        with torch.no_grad():
            goes_on = ~batch["next", "terminated"][..., 0]
            target = batch["next", "reward"][..., 0] + GAMMA * theirs(reached).amax(-1) * goes_on
        value = theirs(now).gather(-1, batch["agents", "action"])[..., 0]
        expected = (value - target).square().mean()
        data = loss.estimate(batch).reshape(-1) if estimated else batch
        found = loss(data)["loss_value"]
        torch.testing.assert_close(found, expected)
        for adam, error in zip(adams, (found, expected), strict=True):
            adam.zero_grad()
            error.backward()
            adam.step()
        for one, other in zip(net.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)
            torch.testing.assert_close(one, other)


def test_any_monotone_mixer_will_do():
    """Both the value and the target go through it, and it learns."""
    loss = PqnLoss(network(), QMixer(2, 5, d_embed=6), gamma=GAMMA, lmbda=0.0)
    batch = make_batch((6, 1))
    with torch.no_grad():
        values = loss.network(batch["next"].clone())[VALUES].amax(-1)
        goes_on = ~batch["next", "terminated"][..., 0]
        best = loss.mixer.mix(values, batch["next", "state"])
        expected = batch["next", "reward"][..., 0] + GAMMA * best * goes_on
    torch.testing.assert_close(loss.estimate(batch.clone())["value_target"][..., 0], expected)
    loss(batch)["loss_value"].backward()
    assert all(p.grad is not None for p in loss.parameters())


# ------------------------------------------------------------------------- masks
def test_a_dead_agent_counts_as_zero_and_learns_nothing():
    loss, batch = small_loss(share=False), rows()
    alive = torch.tensor([True, False]).expand(4, 7, 2)
    batch["agents", "mask"] = batch["next", "agents", "mask"] = alive
    before = loss(batch.clone())["loss_value"]
    before.backward()
    for parameter in loss.network.parameters():
        assert parameter.grad[0].abs().sum() > 0
        assert torch.equal(parameter.grad[1], torch.zeros_like(parameter.grad[1]))
    for data in (batch, batch["next"]):
        data["agents", "observation"][..., 1, :] += 1.0
    assert torch.equal(loss(batch.clone())["loss_value"], before)


def test_padding_changes_nothing():
    loss, batch = small_loss(), rows()
    real = torch.ones(4, 7, 1, dtype=torch.bool)
    real[1, 3:] = False
    batch["step_mask"] = real
    noisy = batch.clone()
    for key in (("agents", "observation"), ("next", "agents", "observation"), ("next", "reward")):
        noisy[key][1, 3:] = 99.0
    for key in (("next", "done"), ("next", "terminated")):
        noisy[key][1, 3:] = ~noisy[key][1, 3:]
    for one, other in zip(loss(noisy).values(), loss(batch.clone()).values(), strict=True):
        torch.testing.assert_close(one, other)


def test_importance_and_order_of_agents_do_not_matter():
    """Shared networks and a sum: agents may change places."""
    loss, batch, order = small_loss(3), rows(n_agents=3), [2, 0, 1]
    moved = batch.clone()
    for data, source in ((moved, batch), (moved["next"], batch["next"])):
        data["agents"] = source["agents"][:, :, order]
    for one, other in zip(loss(moved).values(), loss(batch).values(), strict=True):
        torch.testing.assert_close(one, other)


# ------------------------------------------------------------------------ memory
class StatefulCell(SmallGru):
    """The small GRU with a state that is kept with the data, under ``("agents", "hidden")``."""

    def __init__(self) -> None:
        super().__init__()
        self.state_key = ("agents", "hidden")
        self.in_keys = [*self.in_keys, self.state_key]

    def forward(self, tensordict):
        observation = tensordict["agents", "observation"]
        steps = observation.shape[:-2]
        time = steps[-1] if len(steps) > 1 else 1
        x = observation.reshape(-1, time, *observation.shape[-2:])
        first = tensordict["is_init"].reshape(-1, time, 1, 1)
        state = tensordict["agents", "hidden"].reshape(-1, time, x.shape[2], 6)[:, 0]
        after = []
        for t in range(time):
            state = torch.where(first[:, t], 0.0, state).flatten(0, 1)
            state = self.cell(x[:, t].flatten(0, 1), state).unflatten(0, (-1, x.shape[2]))
            after.append(state)
        after = torch.stack(after, 1).reshape(*steps, x.shape[2], 6)
        tensordict.set(("next", "agents", "hidden"), after)
        return tensordict.set(VALUES, self.head(after))


def recurrent_loss(**options) -> PqnLoss:
    net = StatefulCell()
    return PqnLoss(net, SumMixer(2), gamma=GAMMA, states=[net.state_key], **options)


def remembered(loss: PqnLoss, batch: TensorDict) -> TensorDict:
    """``batch`` with the states that the network has before each step."""
    batch = batch.clone()
    batch["agents", "hidden"] = torch.randn(*batch.shape, 2, 6)
    with torch.no_grad():
        after = loss.network(batch.clone())["next", "agents", "hidden"]
    batch["agents", "hidden"][:, 1:] = after[:, :-1]
    return batch


def test_chunks_start_from_the_state_they_had():
    """One-step targets: a row in two halves is the row; what each step reaches is one step further."""
    loss = recurrent_loss(lmbda=0.0)
    batch = remembered(loss, rows(n_steps=6))
    halves = torch.cat([batch[:, :3], batch[:, 3:]])
    for key, value in loss(halves.clone()).items():
        torch.testing.assert_close(value, loss(batch.clone())[key])
    forgotten = halves.clone()
    forgotten["agents", "hidden"].zero_()
    assert not torch.allclose(loss(forgotten)["loss_value"], loss(batch)["loss_value"])


def test_the_value_that_a_step_reaches_is_that_of_the_next_step():
    loss = recurrent_loss(lmbda=0.0)
    batch = remembered(loss, rows(2))
    batch["next", "done"].fill_(False)
    batch["next", "terminated"].fill_(False)
    batch["is_init"][:, 1:] = False
    for data in (batch, batch["next"]):
        data["agents", "mask"].fill_(True)
        data["agents", "action_mask"].fill_(True)
    batch["agents", "observation"][:, 1:] = batch["next", "agents", "observation"][:, :-1]
    values = loss.network(batch.clone())[VALUES].detach()
    target = loss.estimate(batch.clone())["value_target"][..., 0]
    expected = batch["next", "reward"][..., 0][:, :-1] + GAMMA * values.amax(-1).sum(-1)[:, 1:]
    torch.testing.assert_close(target[:, :-1], expected)


def test_a_memory_that_is_not_handed_on_is_shifted_inside_a_row():
    """BenchMARL's recurrent models: team-shaped ends choose between the reached and the next value."""
    loss = PqnLoss(SmallGru(), SumMixer(2), gamma=GAMMA, lmbda=0.0)
    batch = rows(2)
    batch["next", "terminated"].fill_(False)
    values = loss.network(batch.clone())[VALUES].detach()
    best = masked_max(values, batch["agents", "action_mask"])
    best = (best * batch["agents", "mask"]).sum(-1)[:, 1:]
    target = loss.estimate(batch.clone())["value_target"][..., 0][:, :-1]
    inside = ~batch["next", "done"][:, :-1, 0]
    expected = batch["next", "reward"][..., 0][:, :-1] + GAMMA * best
    assert inside.any()
    torch.testing.assert_close(target[inside], expected[inside])


# ------------------------------------------------------------------ graphs, compiling
def test_there_is_nothing_but_the_live_network():
    loss, batch = small_loss(), rows()
    before = batch.clone()
    out = loss(batch)
    assert loss.target_pairs() == []
    assert not any("target" in name for name in loss.state_dict())
    assert set(out.keys()) == set(loss.out_keys)
    assert [key for key in out.keys() if out[key].requires_grad] == ["loss_value"]
    written = set(batch.keys(True, True)) - set(before.keys(True, True))
    assert written == {("agents", "td_error"), ("agents", "priority")}
    action_value = loss.network(batch.clone())[VALUES]
    chosen = chosen_action_value(action_value, batch["agents", "action"]) * batch["agents", "mask"]
    torch.testing.assert_close(out["global_value"], chosen.sum(-1).mean().detach())


# tensordict 0.11's own: a retired setting of torch, and its locks under the compiler.
@pytest.mark.filterwarnings("ignore:Using lock_:UserWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*inline_inbuilt_nn_modules:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function:DeprecationWarning")
@pytest.mark.parametrize("kind", ["rows", "steps", "memory"])
def test_compiles_whole_and_equals_eager(kind):
    torch._dynamo.reset()
    loss = recurrent_loss() if kind == "memory" else small_loss()
    batch = rows(2, 3)
    if kind == "memory":
        batch = remembered(loss, batch)
    if kind == "steps":
        batch = loss.estimate(batch).reshape(-1)
    live = list(loss.parameters())  # Dynamo leaves entries behind in TorchRL's networks
    compiled = torch.compile(loss.compute, fullgraph=True, backend="eager")
    results = []
    for function in (loss.compute, compiled):
        out = function(batch)
        results.append([*out.values(), *torch.autograd.grad(out["loss_value"], live)])
    for eager, fast in zip(*results, strict=True):
        torch.testing.assert_close(eager, fast, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------ messages
def test_messages():
    with pytest.raises(ValueError, match=r"`lmbda` must lie in \[0, 1\]; got 2.0"):
        small_loss(lmbda=2.0)
    with pytest.raises(ValueError, match="`loss_function` must be one of l2, l1, smooth_l1, huber"):
        small_loss(loss_function="l3")
    with pytest.raises(KeyError, match=r"no entry .*next.*done.*; it holds .*set_keys"):
        small_loss()(rows().exclude(("next", "done")))
