"""Q-learning on windows of episodes: exact values, burn-in, gradients, padding, boundaries."""

import pytest
import torch
from small_qmix import make_episodes, small_loss
from small_windows import HIDDEN, SEEN, collect, gru_loss, windows
from tensordict import TensorDict

from marl_td.losses.functional.returns import lambda_return
from marl_td.losses.q_learning import QLearningLoss

VALUE = ("agents", "action_value")
NAMES = ["iql", "vdn", "qmix", "cw_qmix", "ow_qmix", "qtran_base", "qtran_alt", "qplex"]


def live_values(loss: QLearningLoss, window: TensorDict) -> tuple[torch.Tensor, torch.Tensor]:
    """Values of the steps learnt from, and of what they reach."""
    return loss._live(loss.network, window, VALUE)


def real(window: TensorDict, burn_in: int) -> torch.Tensor:
    """Which steps learnt from are real, ``[n_windows, length]``."""
    return window["step_mask"][:, burn_in:, 0]


def gradients(loss: QLearningLoss, window: TensorDict) -> list[torch.Tensor]:
    """Of the sum of all losses, for every live parameter."""
    out = loss.compute(window.copy())
    total = torch.stack([value for key, value in out.items() if key.startswith("loss_")]).sum()
    live = [p for nets in loss.networks().values() for net in nets for p in net.parameters()]
    grads = torch.autograd.grad(total, live, allow_unused=True)
    return [total, *(torch.zeros(()) if grad is None else grad for grad in grads)]


# ------------------------------------------------------------------ exactness
@pytest.mark.parametrize("burn_in", [0, 3])
def test_unchanged_parameters_give_the_values_of_the_collection(burn_in):
    """In the middle of episodes, after resets, with and without burn-in; and one step further."""
    loss = gru_loss(burn_in=burn_in)
    window = windows(collect(loss.network), burn_in=burn_in)
    mask = real(window, burn_in)
    now, following = live_values(loss, window)
    seen = window["agents", SEEN][:, burn_in:]
    begins = window["is_init"][:, burn_in, 0]
    assert begins.any() and not begins.all() and not mask.all()
    torch.testing.assert_close(now[mask], seen[mask])
    torch.testing.assert_close(following[:, :-1][mask[:, 1:]], seen[:, 1:][mask[:, 1:]])


def test_what_a_window_ends_with_is_valued_one_step_from_the_last_state():
    loss = gru_loss()
    batch = collect(loss.network)
    state = loss.network(batch.copy())[("next", *HIDDEN)]  # after each step
    reached = TensorDict({"agents": batch["next", "agents"].select("observation")}, batch.shape)
    flat = reached.reshape(-1).set(HIDDEN, state.flatten(0, 1))
    batch["agents", "reached"] = loss.network(flat)[VALUE].reshape(*batch.shape, 2, -1)
    window = windows(batch, length=3, burn_in=0, stride=1)
    mask = window["step_mask"].squeeze(-1)
    _, following = live_values(loss, window)
    torch.testing.assert_close(following[mask], window["agents", "reached"][mask])


def test_burn_in_brings_an_old_state_towards_the_true_one():
    """After a change of the parameters: the longer, the closer to an unroll from the episode's start."""
    errors = []
    for burn_in in (0, 2, 6):
        torch.manual_seed(3)
        loss = gru_loss(burn_in=burn_in)
        batch = collect(loss.network, n_steps=120, longest=40)
        with torch.no_grad():
            for parameter in loss.network.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
            batch["agents", "true"] = loss.network(batch.copy())[VALUE]
        window = windows(batch, burn_in=burn_in)
        middle = ~window["is_init"][:, burn_in, 0]
        now, _ = live_values(loss, window)
        error = (now - window["agents", "true"][:, burn_in:])[:, 0].abs()[middle]
        errors.append(error.mean().item())
    assert errors[1] < 0.5 * errors[0]
    assert errors[2] < 0.1 * errors[0]


@pytest.mark.parametrize("burn_in", [0, 2])
@pytest.mark.parametrize("name", NAMES)
def test_windows_as_long_as_the_episodes_are_the_episodes(name, burn_in):
    """Same losses and gradients as from whole episodes that start at zero, step for step."""
    loss = gru_loss(name, lmbda=0.6, burn_in=burn_in)
    window = windows(collect(loss.network, longest=6), length=6, burn_in=burn_in, stride=6)
    found = gradients(loss, window)
    loss.states, loss.burn_in = [], 0
    episodes = window[:, burn_in:].exclude(HIDDEN)
    assert episodes["is_init"][:, 0].all()
    for ours, theirs in zip(found, gradients(loss, episodes), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_networks_that_did_not_act_take_no_stored_state():
    """CW-QMIX's unrestricted value: its state is its own, from zero and burn-in."""
    loss = gru_loss("cw_qmix", burn_in=3)
    window = windows(collect(loss.network))
    other = window.clone()
    other[HIDDEN] = torch.randn_like(other[HIDDEN])
    for net, same in ((loss.central_network, True), (loss.network, False)):
        ours, theirs = (loss._live(net, data, VALUE)[0] for data in (window, other))
        assert torch.equal(ours, theirs) is same
    alone = window.exclude(HIDDEN)
    alone["is_init"][:, 0] = True
    expected = loss.central_network(alone)[VALUE][:, 3:]
    found, mask = loss._live(loss.central_network, window, VALUE)[0], real(window, 3)
    torch.testing.assert_close(found[mask], expected[mask])


# -------------------------------------------------------- gradients and padding
def test_no_gradient_reaches_what_is_not_learnt_from():
    """Neither the burn-in, the stored state, the padding behind an end, nor the next episode."""
    loss = gru_loss(burn_in=3)
    window = windows(collect(loss.network))
    observation, state = window["agents", "observation"], window[HIDDEN]
    observation.requires_grad_()
    state.requires_grad_()
    value = loss.compute(window)["loss_value"]
    seen, stored = torch.autograd.grad(value, [observation, state], allow_unused=True)
    assert stored is None or not stored.any()
    assert not seen[:, :3].any()
    assert not seen[~window["step_mask"].squeeze(-1)].any()
    begins = seen[:, 3].flatten(1).any(1)
    assert begins.any()


@pytest.mark.parametrize("name", NAMES)
def test_what_stands_around_a_window_changes_nothing(name):
    """NaN before an episode's start and in what the burn-in does not read, huge numbers behind its end."""
    loss = gru_loss(name, lmbda=0.5, burn_in=3)
    window = windows(collect(loss.network))
    mask = window["step_mask"].squeeze(-1)
    before = torch.zeros_like(mask)
    before[:, :3] = ~mask[:, :3]
    behind = ~mask & ~before
    assert before.any() and behind.any()
    poisoned = window.clone()
    poisoned["agents", "observation"][before] = float("nan")
    poisoned[HIDDEN][before] = float("nan")
    poisoned[HIDDEN][:, 1:] = float("nan")
    for key in ("reward", "state", ("agents", "observation"), ("agents", "reward")):
        poisoned.get(("next", *((key,) if isinstance(key, str) else key)))[:, :3] = float("nan")
    poisoned["state"][:, :3] = float("nan")
    poisoned["next", "agents", "action_mask"][:, :3] = False
    for key, value in poisoned.items(True, True):
        if value.is_floating_point() and key != HIDDEN:
            value[behind] = 1e3 * torch.randn_like(value[behind])
    for ours, theirs in zip(gradients(loss, poisoned), gradients(loss, window), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_order_of_windows_does_not_matter():
    loss = gru_loss(burn_in=3)
    window = windows(collect(loss.network))
    order = torch.randperm(len(window))
    torch.testing.assert_close(
        loss.compute(window[order])["loss_value"], loss.compute(window.copy())["loss_value"]
    )


# -------------------------------------------------------------------- targets
def test_lambda_returns_end_with_the_window_and_bootstrap_there():
    """For feed-forward networks; an end by termination is none, a window's end is a cut."""
    loss = small_loss("sum", lmbda=0.7, gamma=0.9, sequences=True)
    batch = make_episodes((10, 10), 10, (True, False)).exclude("step_mask")
    window = windows(batch, length=4, burn_in=0, stride=3, cut=10)
    assert window.shape == (6, 4)
    with torch.no_grad():
        _, choosing, evaluated, _ = loss._action_values(window)
        best = evaluated.gather(-1, choosing.argmax(-1, keepdim=True)).sum((-2, -1))
    ends = torch.zeros(6, 4, dtype=torch.bool)
    ends[:, -1] = True
    ends |= window["next", "done"].squeeze(-1)
    target = lambda_return(
        window["next", "reward"].squeeze(-1),
        best,
        ends,
        window["next", "terminated"].squeeze(-1),
        gamma=0.9,
        lmbda=0.7,
    )
    expected = (loss.team_value(window) - target).abs()
    mask = window["step_mask"].squeeze(-1)
    loss(window)
    found = window["agents", "td_error"][..., 0, 0]
    torch.testing.assert_close(found[mask], expected[mask])
    assert window["next", "terminated"].any() and mask.all()


@pytest.mark.parametrize("name", ["iql", "qmix"])
def test_priorities_have_the_shape_of_the_batch_and_leave_the_burn_in_out(name):
    loss = gru_loss(name, burn_in=3)
    window = windows(collect(loss.network))
    loss(window)
    priority = window["agents", "td_error"]
    assert priority.shape == (*window.shape, 2, 1)
    assert not priority[:, :3].any() and priority[:, 3].any()
    assert not priority[~window["step_mask"].squeeze(-1)].any()


# ------------------------------------------------------------------- compiling
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.:DeprecationWarning")
@pytest.mark.parametrize("name", ["qmix", pytest.param("cw_qmix", marks=pytest.mark.slow)])
def test_it_compiles_in_one_graph(name):
    loss = gru_loss(name, lmbda=0.5, burn_in=1)
    window = windows(collect(loss.network), length=2, burn_in=1)
    compiled = torch.compile(loss.compute, fullgraph=True, backend="eager")
    for key, value in loss.compute(window.copy()).items():
        torch.testing.assert_close(compiled(window.copy())[key], value)


# -------------------------------------------------------------------- messages
def test_messages():
    loss = gru_loss(burn_in=4)
    window = windows(collect(loss.network), length=2, burn_in=2, stride=1)
    with pytest.raises(
        ValueError, match=r"of 4 steps leave none to learn from after `burn_in` = 4"
    ):
        loss.compute(window)
    loss = gru_loss(burn_in=2)
    with pytest.raises(KeyError, match=r"no entry .*hidden_gru_0"):
        loss.compute(window.exclude(HIDDEN))
    for options, message in (
        ({"burn_in": 1}, r"`burn_in` needs sequences=True and batches \[\*B, T\]; got 1"),
        ({"states": [HIDDEN]}, r"`states` needs sequences=True .*hidden_gru_0"),
        ({"burn_in": -1, "sequences": True}, "`burn_in` must be at least 0; got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            small_loss(**options)
