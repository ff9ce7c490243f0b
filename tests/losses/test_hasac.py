"""HASAC's loss: N = 1 is SAC, later agents see the new policies, nobody else moves, orders are on record."""

import copy

import pytest
import torch
from small_ddpg import make_batch
from small_sac import make_actor, make_critic, point_to, with_masks

from marl_td.losses.agent_adam import AgentAdam
from marl_td.losses.functional.agent_order import agent_order
from marl_td.losses.hasac import HASACLoss
from marl_td.losses.masac import MASACLoss
from marl_td.losses.targets import TargetUpdater
from marl_td.losses.temperature import Temperature

N_ACTIONS = 4
Q_KEY = ("agents", "chosen_action_value")


def make_hasac(n_agents=3, n_actions=None, lr=1e-2, critics=None, eps=1e-8, alpha=0.3, **options):
    groups, width = {"agents": n_agents}, n_actions or 2
    actor = make_actor(n_agents=n_agents, n_actions=n_actions)
    if critics is None:
        critics = [make_critic(groups, "agents", width, n_actions or 1) for _ in range(2)]
    optimiser = AgentAdam(actor, n_agents, lr=lr, eps=eps)
    temperature = Temperature(-2.0, n_agents, init=alpha)
    return point_to(HASACLoss(actor, critics, temperature, optimiser, **options), "agents")


def actor_rows(loss):
    """Every agent's parameters as one vector, ``[n_agents, d]``."""
    return torch.cat([p.detach().flatten(1) for p in loss.actor.parameters()], 1).clone()


# --------------------------------------------------------------------------- one agent
@pytest.mark.parametrize("n_actions", [None, N_ACTIONS])
def test_one_agent_is_sac_step_for_step(n_actions):
    """MASAC with one agent is TorchRL's SAC (test_masac.py); HASAC with one is MASAC with one."""
    ours = make_hasac(1, n_actions, eps=1e-4)
    theirs = MASACLoss(
        copy.deepcopy(ours.actor),
        list(copy.deepcopy(ours.critics)),
        copy.deepcopy(ours.temperature),
    )
    rates = {"lr": 1e-2, "eps": 1e-4}
    adam = torch.optim.Adam
    own = [adam(m.parameters(), **rates) for m in (ours.critics, ours.temperature)]
    others = [
        adam(m.parameters(), **rates) for m in (theirs.critics, theirs.temperature, theirs.actor)
    ]
    for seed in range(10):
        batch = make_batch({"agents": 1}, n_actions=n_actions, shape=(16,))
        outs = []
        for loss, optimisers in ((ours, own), (theirs, others)):
            torch.manual_seed(seed)
            out = loss(batch.clone())
            out_losses = [out[name] for name in out.keys() if name.startswith("loss_")]
            sum(out_losses).backward()
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad()
            TargetUpdater(loss.target_pairs(), tau=0.05).step()
            outs.append(out)
        torch.testing.assert_close(outs[0]["actor_objective"], -outs[1]["loss_actor"].detach())
        for name in ("loss_value", "loss_alpha", "entropy"):
            torch.testing.assert_close(outs[0][name], outs[1][name])
    modules = ("actor", "critics", "target_critics", "temperature")
    for name in modules:
        pairs = zip(
            getattr(ours, name).parameters(), getattr(theirs, name).parameters(), strict=True
        )
        for one, other in pairs:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


# --------------------------------------------------------------- one after the other
def recording(loss):
    """What the actors are at the beginning of each turn, and whose turn it is."""
    seen = []
    turn = loss._turn

    def watched(tensordict, taken, alpha, chosen):
        seen.append((int(chosen.nonzero()), actor_rows(loss)))
        return turn(tensordict, taken, alpha, chosen)

    loss._turn = watched
    return seen


def test_each_turn_moves_its_agent_only_and_later_ones_see_it():
    loss, batch = make_hasac(), make_batch({"agents": 3})
    seen = recording(loss)
    for _ in range(3):  # from the second call on, everybody has momentum
        seen.clear()
        loss(batch)
        assert [agent for agent, _ in seen] == loss.order.tolist()
        states = [rows for _, rows in seen] + [actor_rows(loss)]
        for (agent, before), after in zip(seen, states[1:], strict=True):
            others = [i for i in range(3) if i != agent]
            assert torch.equal(before[others], after[others])
            assert (before[agent] != after[agent]).float().mean() > 0.9
        assert loss.optimiser.count.unique().numel() == 1


def watch(loss):
    """Each turn's agent, the actor and the random state at its beginning, and the gradients it took."""
    turns, turn, step = [], loss._turn, loss.optimiser.step

    def before(tensordict, taken, alpha, chosen):
        turns.append([int(chosen.nonzero()), copy.deepcopy(loss.actor), torch.get_rng_state()])
        return turn(tensordict, taken, alpha, chosen)

    def after(gradients, moves):
        turns[-1].append([gradient[moves].clone() for gradient in gradients])
        return step(gradients, moves)

    loss._turn, loss.optimiser.step = before, after
    return turns


def gradient_by_hand(loss, actor, batch, agent):
    """Of agent ``agent``, when all act by ``actor``: minus the mean of min Q - alpha log pi."""
    sample = actor(batch)
    joint = sample.action.detach().clone()
    joint[:, agent] = sample.action[:, agent]
    source = batch.clone()
    rows = joint.flatten(-2).unsqueeze(-2).expand(-1, joint.shape[-2], -1)
    source["agents", "joint_action"] = rows
    values = [critic(source.clone())[Q_KEY][:, agent, 0] for critic in loss.critics]
    error = (0.3 * sample.log_prob[:, agent] - torch.minimum(*values)).mean()
    return [g[agent : agent + 1] for g in torch.autograd.grad(error, list(actor.parameters()))]


def test_an_agent_answers_the_new_policies_of_those_before_it():
    loss, batch = make_hasac(3, lr=0.1), make_batch({"agents": 3}, shape=(64,))
    turns = watch(loss)
    loss(batch)
    old = turns[0][1]
    assert sorted(agent for agent, *_ in turns) == [0, 1, 2]
    for number, (agent, actor, state, found) in enumerate(turns):
        torch.set_rng_state(state)
        for mine, his in zip(gradient_by_hand(loss, actor, batch, agent), found, strict=True):
            torch.testing.assert_close(mine, his, rtol=1e-4, atol=1e-6)
        torch.set_rng_state(state)
        answering_the_old = gradient_by_hand(loss, old, batch, agent)
        same = [torch.allclose(a, b) for a, b in zip(answering_the_old, found, strict=True)]
        assert all(same) if number == 0 else not any(same)


def test_the_order_decides_what_is_learned():
    start, ends = make_hasac(3, lr=0.1, fixed_order=True), []
    for order in ([0, 1, 2], [2, 1, 0]):
        loss = copy.deepcopy(start)
        loss.order.copy_(torch.tensor(order))
        torch.manual_seed(3)
        loss(make_batch({"agents": 3}, shape=(64,)))
        assert loss.order.tolist() == order
        ends.append(actor_rows(loss))
    # The middle one answers other policies; it has the same noise in its turn.
    assert not torch.allclose(ends[0][1], ends[1][1], atol=1e-4)


# ------------------------------------------------------------------------------ orders
def test_every_order_comes_up_as_often_and_seeds_differ():
    rounds = [agent_order(torch.tensor(3), torch.tensor(r), 3).tolist() for r in range(3000)]
    counts = torch.tensor([rounds.count(order) for order in map(list, PERMUTATIONS)])
    assert counts.sum() == 3000
    # chi-squared with 5 degrees of freedom: above 20.5 once in a thousand
    assert ((counts - 500.0).square() / 500.0).sum() < 20.5
    pairs = [tuple(map(tuple, rounds[i : i + 2])) for i in range(2999)]
    assert len(set(pairs)) == 36
    other = [agent_order(torch.tensor(4), torch.tensor(r), 3).tolist() for r in range(100)]
    assert other != rounds[:100]


PERMUTATIONS = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]


def test_mixing_is_splitmix64():
    """Its published first number for the seed 1234567."""
    from marl_td.losses.functional.agent_order import GOLDEN, _mixed

    assert int(_mixed(torch.tensor(1234567) + GOLDEN)) % 2**64 == 6457827717110365317


def test_orders_and_moments_go_on_after_a_restart():
    """Orders take nothing from the random stream: whatever it holds, they go on."""
    loss, batch = make_hasac(), make_batch({"agents": 3})
    for _ in range(3):
        loss(batch)
    again = make_hasac()
    again.load_state_dict(loss.state_dict())
    assert int(again.rounds) == 3
    orders = []
    for one in (loss, again):
        orders.append([])
        torch.manual_seed(1)
        for _ in range(5):
            one(batch.clone())
            orders[-1].append(one.order.tolist())
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders[0]}) > 1
    assert torch.equal(actor_rows(loss), actor_rows(again))


def test_nothing_moves_in_a_look():
    loss, batch = make_hasac(), make_batch({"agents": 3})
    before, rounds = actor_rows(loss), loss.rounds.clone()
    loss.eval()(batch)
    with torch.no_grad():
        loss.train()(batch)
    assert torch.equal(actor_rows(loss), before)
    assert loss.rounds == rounds


# ------------------------------------------------------------------------------- masks
@pytest.mark.parametrize("n_actions", [None, N_ACTIONS])
def test_the_dead_do_not_move_and_losses_have_no_gradient_into_actors(n_actions):
    loss = make_hasac(3, n_actions)
    batch = make_batch({"agents": 3}, n_actions=n_actions)
    if n_actions is not None:
        batch = with_masks(batch, "agents", n_actions)
    batch["agents", "mask"] = torch.tensor([True, False, True]).expand(8, 3)
    before = actor_rows(loss)
    out = loss(batch)
    changed = (actor_rows(loss) != before).any(-1)
    assert changed.tolist() == [True, False, True]
    assert set(out.keys()) == set(loss.out_keys)
    (out["loss_value"] + out["loss_alpha"]).backward()
    assert all(p.grad is None for p in loss.actor.parameters())
    assert all(p.grad.any() for p in loss.critics.parameters())


# ---------------------------------------------------------------------------- optimiser
@pytest.mark.parametrize("clip", [{}, {"clip_norm": 0.5}, {"clip_value": 0.1}])
def test_agent_adam_is_an_adam_per_agent(clip):
    network = torch.nn.ParameterList([torch.randn(3, 4, 2), torch.randn(3, 4)])
    alone = [[torch.nn.Parameter(p[i].detach().clone()) for p in network] for i in range(3)]
    adams = [torch.optim.Adam(own, lr=0.1, eps=1e-4) for own in alone]
    ours = AgentAdam(network, 3, lr=0.1, eps=1e-4, **clip)
    for agent in (0, 2, 0, 1, 0):  # as often as it likes
        gradients = [torch.randn_like(p) for p in network]
        norm = ours.step(gradients, torch.arange(3) == agent)
        for own, grad in zip(alone[agent], gradients, strict=True):
            own.grad = grad[agent].clone()
        expected = torch.nn.utils.clip_grad_norm_(alone[agent], clip.get("clip_norm", 1e9))
        torch.testing.assert_close(norm, expected)
        if "clip_value" in clip:
            torch.nn.utils.clip_grad_value_(alone[agent], 0.1)
        adams[agent].step()
        for index, parameter in enumerate(network):
            stacked = torch.stack([own[index] for own in alone])
            torch.testing.assert_close(parameter.detach(), stacked.detach())
    assert ours.count.tolist() == [3, 1, 1]


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("clip", [{}, {"clip_norm": 0.5}, {"clip_value": 0.1}])
def test_agent_adam_leaves_a_gradient_that_is_not_finite_out(clip, bad):
    network = torch.nn.ParameterList([torch.ones(2, 3), torch.ones(2, 1)])
    adam = AgentAdam(network, 2, lr=0.1, **clip)
    first, second = torch.tensor([True, False]), torch.tensor([False, True])
    adam.step([torch.full((2, 3), 0.5), torch.full((2, 1), 0.5)], first)
    before = copy.deepcopy([*network, *adam.buffers()])
    norm = adam.step([torch.tensor([[bad, 1.0, 0.0]] * 2), torch.ones(2, 1)], first)
    assert not norm.isfinite()
    assert all(map(torch.equal, before, [*network, *adam.buffers()]))
    # What stands in the rows of an agent whose turn it is not is of no account.
    norm = adam.step([torch.tensor([[bad] * 3, [3.0, 0.0, 0.0]]), torch.full((2, 1), 4.0)], second)
    assert norm == 5.0 and adam.count.tolist() == [1.0, 1.0]
    assert torch.equal(network[0][0], before[0][0])
    if not clip:  # the first step of an Adam is lr times the sign
        assert network[0][1].tolist() == pytest.approx([0.9, 1.0, 1.0])


def rows_of_state(loss):
    """Parameters, moments and count of every agent, ``[n_agents, d]``."""
    adam = loss.optimiser
    return torch.cat([actor_rows(loss), adam.mean, adam.square, adam.count.unsqueeze(-1)], 1)


@pytest.mark.parametrize("where", ["gradient", "objective"])
def test_a_turn_with_bad_numbers_is_left_out_and_the_norm_says_so(where):
    loss, batch = make_hasac(3, fixed_order=True), make_batch({"agents": 3})
    loss(batch)
    before, turns, turn = rows_of_state(loss), [], loss._turn

    def watched(tensordict, taken, alpha, chosen):
        turns.append(chosen)
        objective, seen = turn(tensordict, taken, alpha, chosen)
        bad = float("inf") if where == "objective" and len(turns) == 2 else 0.0
        return objective + bad, seen

    loss._turn = watched
    hook = next(loss.actor.parameters()).register_hook(
        lambda g: g * float("inf") if where == "gradient" and len(turns) == 2 else g
    )
    out = loss(batch)
    hook.remove()
    changed = (rows_of_state(loss) != before).any(-1)
    assert changed.tolist() == [True, False, True]
    assert not out["grad_norm_actor"].isfinite()
    out = loss(batch)
    assert loss.optimiser.count.tolist() == [3.0, 2.0, 3.0]
    assert out["grad_norm_actor"].isfinite() and rows_of_state(loss).isfinite().all()


def test_the_learning_rate_can_be_set():
    loss, batch = make_hasac(), make_batch({"agents": 3})
    before = actor_rows(loss)
    loss.set_learning_rate(0.0)
    loss(batch)
    assert torch.equal(actor_rows(loss), before)


# ----------------------------------------------------------------------------- messages
def test_shared_networks_are_refused():
    with pytest.raises(ValueError, match=r"need a network each.*'network.*' has shape"):
        AgentAdam(make_actor(n_agents=3, share=True), 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "`lr` and `eps` must be above 0"),
        ({"betas": (0.9, 1.0)}, r"`betas` in \[0, 1\)"),
        ({"clip_norm": 1.0, "clip_value": 1.0}, "give `clip_norm` or `clip_value`, not both"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AgentAdam(make_actor(n_agents=3), 3, **options)


def test_critics_of_the_own_action_only_are_refused():
    with pytest.raises(ValueError, match="their critics must read the joint action"):
        make_hasac(central=False)
