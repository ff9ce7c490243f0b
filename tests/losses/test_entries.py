"""What users of losses get wrong in their batches: types and shapes of masks, ends and actions."""

import pytest
import small_ddpg
import small_sac
import torch
from small_ppo import actor, collected, critic
from small_ppo import small_loss as small_ppo
from small_qmix import loss_of, make_batch, make_episodes, small_loss
from torch.nn.functional import one_hot
from torchrl.modules import OneHotCategorical

from marl_td.losses.functional.action_values import (
    chosen_action_value,
    mask_unavailable,
    masked_max,
    one_hot_action,
)
from marl_td.losses.functional.normalisation import normalise_advantage
from marl_td.losses.functional.returns import gae, lambda_return, n_step_return, one_step_target
from marl_td.losses.functional.transitions import n_step_transitions
from marl_td.losses.ppo import MAPPOLoss
from marl_td.losses.stochastic_actor import log_prob_of

ACTION, MASK = ("agents", "action"), ("agents", "mask")
TYPES = (torch.float32, torch.int64, torch.uint8)


def run_ppo(key, change, kind="discrete"):
    """A loss's estimate and minibatch with one entry changed before both."""
    torch.manual_seed(0)
    loss = small_ppo(kind)
    batch = collected(loss.actor)
    batch["agents", "mask"] = batch["next", "agents", "mask"] = torch.ones(
        4, 6, 3, dtype=torch.bool
    )
    batch["step_mask"] = torch.ones(4, 6, 1, dtype=torch.bool)
    batch[key] = change(batch[key])
    return loss(loss.estimate(batch, gamma=0.9, lmbda=0.8).reshape(-1))


def run_q(key, change, loss=small_loss, batch=make_batch, **options):
    data = batch(masked=True, mortal=True)
    data["step_mask"] = torch.ones(*data.shape, 1, dtype=torch.bool)
    data[key] = change(data[key])
    return loss(**options)(data)


def run_episodes(key, change):
    return run_q(key, change, batch=make_episodes, sequences=True)


def run_deterministic(key, change, n_actions=None, make=small_ddpg.make_loss):
    data = small_ddpg.make_batch(n_actions=n_actions)
    for entries in (data, data["next"]):
        entries["agents", "mask"] = torch.ones(8, 2, dtype=torch.bool)
        entries["agents", "action_mask"] = torch.ones(8, 2, n_actions or 1, dtype=torch.bool)
    data["step_mask"] = torch.ones(8, 1, dtype=torch.bool)
    data[key] = change(data[key])
    return make(n_actions=n_actions, mask_dead_values=True)(data)


def run_discrete(key, change):
    return run_deterministic(key, change, n_actions=3)


def run_soft(key, change, n_actions=None):
    return run_deterministic(key, change, n_actions, make=small_sac.make_loss)


# -------------------------------------------------------------------- masks and ends
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(
    ("call", "key"),
    [
        (run_ppo, MASK),
        (run_ppo, "step_mask"),
        (run_ppo, ("next", "agents", "done")),
        (run_ppo, ("next", "agents", "terminated")),
        (run_q, MASK),
        (run_q, ("next", *MASK)),
        (run_q, "step_mask"),
        (run_q, ("next", "terminated")),
        (run_q, ("next", "agents", "action_mask")),
        (run_episodes, ("next", "done")),
        (run_episodes, "step_mask"),
        (run_deterministic, MASK),
        (run_deterministic, ("next", *MASK)),
        (run_deterministic, "step_mask"),
        (run_deterministic, ("next", "agents", "terminated")),
        (run_discrete, ("agents", "action_mask")),
        (run_soft, MASK),
        (run_soft, ("next", *MASK)),
        (run_soft, ("next", "agents", "terminated")),
    ],
)
def test_a_mask_that_is_not_bool_is_named(call, key, dtype):
    call(key, lambda entry: entry)
    name = str(key if isinstance(key, str) else key[-1])
    with pytest.raises(
        TypeError, match=rf"{name}.* must be bool, not {dtype}; `.bool\(\)` makes it of 0"
    ):
        call(key, lambda entry: entry.to(dtype))


def test_an_action_mask_of_numbers_would_be_a_list_of_indices_to_torchrl():
    with pytest.raises(
        TypeError, match=r"`\('agents', 'action_mask'\).* must be bool, not torch.int64"
    ):
        run_ppo(("agents", "action_mask"), lambda mask: mask.long(), kind="masked")


@pytest.mark.parametrize("call", [run_ppo, run_q, run_deterministic, run_soft])
def test_a_mask_with_a_trailing_one_is_named(call):
    with pytest.raises(
        ValueError, match=r"must be \[\*B, n_agents\]; got .*, 1\). Squeeze its trailing 1"
    ):
        call(MASK, lambda mask: mask.unsqueeze(-1))


def test_a_padding_mask_of_every_agent_is_named():
    with pytest.raises(
        ValueError, match=r"`step_mask` must be \[\*B, 1\], one for all .* got \(16, 2\)"
    ):
        run_q("step_mask", lambda mask: mask.expand(16, 2))


def test_the_teams_reward_where_agents_are_read_is_named():
    with pytest.raises(
        ValueError, match=r"`reward` must have the shape of `value`, \(4, 6, 3\); got"
    ):
        run_ppo(("next", "agents", "reward"), lambda reward: reward[..., :1, :])


@pytest.mark.parametrize(
    "call",
    [
        lambda x, no: one_step_target(x, x, x, gamma=0.9),
        lambda x, no: gae(x, x, x, x, no, gamma=0.9, lmbda=0.9, time_dim=-1),
        lambda x, no: lambda_return(x, x, x, no, gamma=0.9, lmbda=0.9),
        lambda x, no: n_step_return(x, x, x, no, gamma=0.9, n_steps=2),
        lambda x, no: n_step_transitions(x, x, no[..., 0], gamma=0.9, n_steps=2),
        lambda x, no: n_step_transitions(x, no, x[..., 0], gamma=0.9, n_steps=2),
        lambda x, no: mask_unavailable(x, x),
        lambda x, no: masked_max(x, x),
        lambda x, no: normalise_advantage(x, x),
    ],
)
def test_functions_name_it_too(call):
    x = torch.zeros(3, 2)
    with pytest.raises(TypeError, match=r"must be bool, not torch.float32"):
        call(x, x.bool())


# ----------------------------------------------------------------------------- actions
@pytest.mark.parametrize("call", [run_ppo, run_q, run_discrete])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda action: one_hot(action, 3),
            ValueError,
            r"one index each; got .* take `.argmax\(-1\)`",
        ),
        (
            lambda action: one_hot(action, 3).float(),
            ValueError,
            r"one index each; got .* take `.argmax",
        ),
        (
            lambda action: action.float(),
            TypeError,
            r"must hold indices of .* not torch.float32; `.long\(\)`",
        ),
        (lambda action: action.bool(), TypeError, "must hold indices of .* not torch.bool"),
        (lambda action: action + 9, IndexError, r"must hold indices in \[0, 3\)"),
    ],
    ids=["one-hot", "float one-hot", "float", "bool", "out of range"],
)
def test_actions_that_are_no_indices_are_named(call, change, error, message):
    with pytest.raises(
        error, match=rf"`.*action.*` {message}" if error is not ValueError else message
    ):
        call(ACTION, change)


def test_an_action_with_a_trailing_one_is_named():
    for call in (run_ppo, run_q):
        with pytest.raises(
            ValueError, match=r"one index each; got .*, 1\). Squeeze its trailing 1"
        ):
            call(ACTION, lambda action: action.unsqueeze(-1))


def test_indices_of_type_int32_are_those_of_int64():
    for_type = {}
    for dtype in (torch.int32, torch.int64):
        torch.manual_seed(0)
        losses = run_q(ACTION, lambda action, to=dtype: action.to(to), lambda: loss_of("qplex"))
        for_type[dtype] = losses["loss_value"]
    assert for_type[torch.int64] > 0
    torch.testing.assert_close(for_type[torch.int32], for_type[torch.int64], rtol=0, atol=0)


@pytest.mark.parametrize(
    "call", [lambda *a: run_ppo(*a, kind="continuous"), run_deterministic, run_soft]
)
def test_discrete_actions_for_a_continuous_actor_are_named(call):
    def indices(action):
        return torch.zeros(action.shape[:-1], dtype=torch.int64)

    with pytest.raises(TypeError, match=r"must hold continuous actions, floats; got torch.int64"):
        call(ACTION, indices)
    with pytest.raises(ValueError, match=r"must be \[\*B, n_agents, d_action\].* got \(\d+, \d\)"):
        call(ACTION, lambda action: indices(action).float())


def test_a_one_hot_actor_wants_one_hot_actions():
    class Mine(OneHotCategorical):
        pass

    distribution = Mine(logits=torch.zeros(4, 2, 3))
    index = torch.ones(4, 2, dtype=torch.int64)
    expected = torch.full((4, 2), -torch.tensor(3.0).log())
    torch.testing.assert_close(log_prob_of(distribution, one_hot(index, 3)), expected)
    with pytest.raises(
        ValueError, match=r"must be one-hot rows \(4, 2, 3\), as the actor's Mine.* got \(4, 2\)"
    ):
        log_prob_of(distribution, index)


def test_functions_of_actions_name_them_too():
    value = torch.zeros(4, 3)
    with pytest.raises(TypeError, match="`action` must hold indices"):
        chosen_action_value(value, torch.zeros(4))
    with pytest.raises(TypeError, match="`action` must hold indices"):
        one_hot_action(torch.zeros(4), 3)
    with pytest.raises(
        IndexError, match=r"`action` must hold indices in \[0, 3\): index 3 is out of bounds"
    ):
        chosen_action_value(value, torch.full((4,), 3))
    with pytest.raises(
        RuntimeError, match=r"Expected all tensors|same dtype|Index tensor"
    ) as error:
        chosen_action_value(value, torch.zeros(5, 4, dtype=torch.int64))
    assert not isinstance(error.value, IndexError)


@pytest.mark.filterwarnings("ignore:Using lock_:UserWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*inline_inbuilt_nn_modules:FutureWarning")
def test_the_checks_are_no_part_of_a_graph():
    """One graph, with the numbers that it has without being compiled."""
    torch.manual_seed(0)
    loss = MAPPOLoss(actor("masked"), critic())
    batch = loss.estimate(collected(loss.actor), gamma=0.9, lmbda=0.8).reshape(-1)
    batch["agents", "mask"] = torch.rand(24, 3) < 0.8
    batch["step_mask"] = torch.rand(24, 1) < 0.8
    found = torch.compile(loss.compute, fullgraph=True, backend="eager")(batch)
    for key, value in loss.compute(batch).items():
        torch.testing.assert_close(found[key], value)
