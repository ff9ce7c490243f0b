"""The Q-mixing loss on whole episodes: padding, lambda-returns, recurrent networks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_qmix import SmallGru, make_episodes, recurrent_loss, small_loss
from tensordict import TensorDict

LENGTHS = (5, 3, 1, 4)
ENDS = (True, False, True, False)  # terminated, or cut by the time limit


def gradients(loss, batch) -> list[torch.Tensor]:
    live = [*loss.network.parameters(), *loss.mixer.parameters()]
    return list(torch.autograd.grad(loss(batch.clone())["loss_value"], live))


def valid_steps(batch: TensorDict) -> TensorDict:
    """The real steps of padded episodes, as a flat batch."""
    real = batch["step_mask"].squeeze(-1)
    return batch[real].exclude("step_mask", "is_init")


def td_error(loss, batch) -> torch.Tensor:
    """Absolute error of every step ``[n_rows, T]``, 0 on padding."""
    batch = batch.clone()
    loss(batch)
    return batch["agents", "td_error"][..., 0, 0]


# ------------------------------------------------------------ steps and padding
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_without_memory_an_episode_is_its_steps(double, masked):
    """One run over T + 1 observations gives the loss of the single steps, one by one."""
    batch = make_episodes(masked=masked, mortal=masked)
    steps = small_loss(double_q=double)
    episodes = small_loss(double_q=double, sequences=True)
    episodes.load_state_dict(steps.state_dict())
    one, other = steps(valid_steps(batch)), episodes(batch)
    for key in one.keys():
        torch.testing.assert_close(other[key], one[key])


@pytest.mark.parametrize("lmbda", [0.0, 0.7])
@pytest.mark.parametrize("make", [small_loss, recurrent_loss])
def test_what_stands_in_the_padding_changes_nothing(make, lmbda):
    options = {"sequences": True} if make is small_loss else {}
    loss = make(lmbda=lmbda, **options)
    batch = make_episodes(masked=True, mortal=True)
    real = batch["step_mask"]
    noisy = batch.clone()
    for key, value in batch.items(include_nested=True, leaves_only=True):
        if value.is_floating_point():
            mask = real.reshape(*real.shape[:2], *[1] * (value.ndim - 2))
            noisy.set(key, torch.where(mask, value, 50.0 * torch.randn_like(value)))
        elif key in (("next", "terminated"), ("next", "done")):
            noisy.set(key, torch.where(real, value, ~value))
        elif key == ("next", "agents", "action_mask"):
            noisy.set(key, torch.where(real.unsqueeze(-1), value, False))
    assert torch.equal(loss(noisy)["loss_value"], loss(batch)["loss_value"])
    for ours, theirs in zip(gradients(loss, noisy), gradients(loss, batch), strict=True):
        assert torch.equal(ours, theirs)
    longer = torch.cat([batch, batch[:, -1:].clone()], 1)
    longer["step_mask"][:, -1] = False
    torch.testing.assert_close(loss(longer)["loss_value"], loss(batch)["loss_value"])


def test_what_follows_an_end_does_not_count_even_without_a_mask():
    """A row that goes on with the next episode gives the loss of its first episode alone."""
    loss = recurrent_loss(lmbda=0.5)
    rows = make_episodes((6, 6, 6, 6), 6).exclude("step_mask")
    rows["next", "done"] |= torch.rand(4, 6, 1) < 0.3
    done = rows["next", "done"]
    first = (done.cumsum(1) - done.long()) == 0
    masked = rows.clone()
    masked["step_mask"] = first
    masked["next", "done"] = done & first
    assert not first.all()
    assert torch.equal(loss(rows)["loss_value"], loss(masked)["loss_value"])


# ----------------------------------------------------------------- lambda-returns
def brute_force(reward, next_value, terminated, gamma, lmbda) -> torch.Tensor:
    """``(1 - lmbda) sum_n lmbda^(n-1) G^(n)``, the last one with all the remaining weight."""
    n_steps = len(reward)
    targets = torch.zeros(n_steps)
    for t in range(n_steps):
        total, discount, weight = 0.0, 1.0, 1.0
        for k in range(t, n_steps):
            total = total + discount * reward[k]
            discount *= gamma
            n_step = total + discount * next_value[k] * (not terminated[k])
            last = k == n_steps - 1
            targets[t] += (weight if last else (1.0 - lmbda) * weight) * n_step
            weight *= lmbda
    return targets


@given(st.integers(0, 1000), st.floats(0.05, 1.0), st.floats(0.0, 1.0))
def test_lambda_returns_are_the_weighted_n_step_returns(seed, lmbda, gamma):
    torch.manual_seed(seed)
    loss = small_loss("sum", lmbda=lmbda, gamma=gamma, sequences=True)
    batch = make_episodes(LENGTHS, 6, ENDS)
    one_step = small_loss("sum", gamma=1.0)
    one_step.load_state_dict(loss.state_dict())
    for row, length in enumerate(LENGTHS):
        episode = batch[row, :length].exclude("step_mask", "is_init")
        with torch.no_grad():
            values = one_step._action_values(episode)
            greedy = values.choosing.argmax(-1, keepdim=True)
            chosen = values.evaluated.gather(-1, greedy)
        next_value = chosen.sum((-2, -1))
        target = brute_force(
            episode["next", "reward"].squeeze(-1),
            next_value,
            [ENDS[row] and t == length - 1 for t in range(length)],
            gamma,
            lmbda,
        )
        expected = (one_step.team_value(episode) - target).abs()
        torch.testing.assert_close(
            td_error(loss, batch)[row, :length], expected, rtol=1e-4, atol=1e-4
        )


def test_lambda_one_is_the_return_where_the_episode_terminated():
    loss = small_loss(lmbda=1.0, gamma=0.9, sequences=True)
    batch = make_episodes(LENGTHS, 6, ENDS)
    reward = batch["next", "reward"][0, :5, 0]
    returns = [(0.9 ** torch.arange(5 - t) * reward[t:]).sum() for t in range(5)]
    value = loss.team_value(batch)[0, :5]
    torch.testing.assert_close(td_error(loss, batch)[0, :5], (value - torch.stack(returns)).abs())


def test_a_time_limit_bootstraps_and_a_termination_does_not():
    loss = small_loss("sum", lmbda=0.5, sequences=True)
    batch = make_episodes((2, 2), 3, (False, True))
    moved = batch.clone()
    moved["next", "agents", "observation"][:, 1] += 1.0  # what the last step reaches
    change = (td_error(loss, moved) - td_error(loss, batch)).abs()
    assert (change[0, :2] > 0).all()
    assert (change[1] == 0).all()


# --------------------------------------------------------------------- memory
def test_the_recurrent_network_runs_once_over_all_observations():
    """Its values are those of stepping through the episode and one observation further."""
    loss, batch = recurrent_loss(), make_episodes(LENGTHS, 6, ENDS)
    found = loss._action_values(batch)
    for net, now, following in (
        (loss.network, found.now, found.choosing),
        (loss.target_network, found.target_now, found.evaluated),
    ):
        for row, length in enumerate(LENGTHS):
            episode = batch[row : row + 1, :length]
            seen = torch.cat(
                [
                    episode["agents", "observation"],
                    episode["next", "agents", "observation"][:, -1:],
                ],
                1,
            )
            is_init = torch.zeros(1, length + 1, 1, dtype=torch.bool)
            agents = TensorDict({"observation": seen}, seen.shape[:3])
            alone = net(TensorDict({"agents": agents, "is_init": is_init}, [1, length + 1]))
            values = alone["agents", "action_value"][0]
            torch.testing.assert_close(following[row, :length], values[1:])
            torch.testing.assert_close(now[row, :length], values[:-1])


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_the_priority_of_an_episode_is_made_of_its_real_steps(eta):
    loss, batch = small_loss(sequences=True, priority_eta=eta), make_episodes()
    loss(batch)
    error = batch["agents", "td_error"][..., 0, 0]
    for row, length in enumerate((5, 3, 1, 4)):
        real = error[row, :length]
        expected = eta * real.max() + (1.0 - eta) * real.mean()
        found = batch["agents", "priority"][row]
        torch.testing.assert_close(found, expected.expand_as(found))


def test_memory_matters_and_is_cleared_between_episodes():
    loss, batch = recurrent_loss(), make_episodes((6,), 6, (True,))
    moved = batch.clone()
    moved["agents", "observation"][:, 0] += 1.0
    change = (td_error(loss, moved) - td_error(loss, batch)).abs()
    assert (change[0] > 0).all()
    # The same data with a start in the middle, stored wrongly as one row: only up to the first end.
    cut = moved.clone()
    cut["next", "done"][0, 2] = True
    cut["is_init"][0, 3] = True
    assert (td_error(loss, cut)[0, 3:] == 0).all()


def test_a_stored_flag_in_the_reached_steps_does_not_clear_the_memory():
    """Where an environment flags the step after a reset under ``next``, it is not this episode's."""
    loss, batch = recurrent_loss(), make_episodes((6,), 6, (True,))
    flagged = batch.clone()
    flagged["next", "is_init"] = torch.rand(1, 6, 1) < 0.5
    assert torch.equal(loss(flagged)["loss_value"], loss(batch)["loss_value"])


def test_the_order_of_episodes_does_not_matter():
    loss, batch = recurrent_loss(lmbda=0.6), make_episodes()
    order = [3, 1, 0, 2]
    torch.testing.assert_close(loss(batch[order])["loss_value"], loss(batch)["loss_value"])
    torch.testing.assert_close(td_error(loss, batch[order]), td_error(loss, batch)[order])


def test_episodes_need_their_ends():
    with pytest.raises(KeyError, match=r"no entry .*next.*done"):
        small_loss(sequences=True)(make_episodes().exclude(("next", "done")))


def test_the_small_network_has_memory():
    """What the tests above rely on."""
    net, batch = SmallGru(), make_episodes((6,), 6, (True,))
    first = net(batch.clone())["agents", "action_value"]
    batch["agents", "observation"][:, 0] += 1.0
    second = net(batch.clone())["agents", "action_value"]
    assert not torch.allclose(first[:, 5], second[:, 5])
