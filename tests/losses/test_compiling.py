"""Every value-based loss is one graph, also over episodes of recurrent networks, and grows linearly."""

import pytest
import torch
from small_qmix import (
    N_ACTIONS,
    SmallGru,
    SmallNetworks,
    make_batch,
    make_episodes,
    perturb_targets,
)
from tensordict import TensorDict
from torch.utils.flop_counter import FlopCounterMode

from marl_td.algorithms.q_family import QConfig
from marl_td.losses.independent_q import IndependentQLoss
from marl_td.models.team import Team
from marl_td.registry import ALGORITHMS, algorithm_config

NAMES = [name for name in ALGORITHMS if issubclass(algorithm_config(name), QConfig)]
QUICK = ("iql", "qplex")
"""Whose episodes the default tests compile; the others take long together."""
OPTIONS = {"one step": {}, "lambda": {"lmbda": 0.6}, "n steps": {"n_steps": 2, "double_q": False}}


class RecurrentNetworks(SmallNetworks):
    """Every network of the agents is recurrent."""

    def agents(self, name: str, width: int) -> SmallGru:
        return SmallGru(name, width)


def loss_of(name: str, networks: SmallNetworks, **options):
    """The loss of any value-based algorithm, whose target networks differ from the live ones."""
    config = algorithm_config(name)()
    options = {**config.loss_options(), **options}
    if not hasattr(config, "build_loss"):
        values = networks.agents("action_value", N_ACTIONS)
        return perturb_targets(IndependentQLoss(values, **options))
    values = config.value_network(networks, "action_value", N_ACTIONS)
    return perturb_targets(config.build_loss(values, networks, **options))


def with_agents_signals(batch: TensorDict) -> TensorDict:
    """Rewards and ends of every agent too, for losses that read those."""
    n_agents = batch["agents", "action"].shape[-1]
    for name in ("reward", "done", "terminated"):
        own = batch["next", name].unsqueeze(-2)
        batch["next", "agents", name] = own.expand(*batch.shape, n_agents, 1).clone()
    return batch


def results(loss, compute, batch) -> list[torch.Tensor]:
    """All outputs and gradients; whatever is drawn is drawn alike."""
    torch.manual_seed(1)
    out = compute(batch)
    total = torch.stack([out[name] for name in loss.networks()]).sum()
    live = [p for p in loss.parameters() if p.requires_grad]
    return [*out.values(), *torch.autograd.grad(total, live)]


def cases() -> list:
    """Every loss on single steps and on every kind of episodes."""
    kinds = [(name, kind) for name in NAMES for kind in ("steps", *OPTIONS)]
    return [
        pytest.param(
            name,
            kind,
            marks=[]
            if kind == "steps" or (name in QUICK and kind == "lambda")
            else pytest.mark.slow,
            id=f"{name}, {kind}",
        )
        for name, kind in kinds
    ]


def batch_and_networks(kind: str):
    """Masks, dead agents, padding: of single steps, or of episodes for recurrent networks."""
    if kind == "steps":
        batch = make_batch(masked=True, mortal=True)
        return with_agents_signals(batch), SmallNetworks(mortal=True), {}
    batch = make_episodes((3, 2), 4, (True, False), masked=True, mortal=True)
    return (
        with_agents_signals(batch),
        RecurrentNetworks(mortal=True),
        {"sequences": True, **OPTIONS[kind]},
    )


# tensordict 0.11's own: a retired setting of torch, and its locks under the compiler.
@pytest.mark.filterwarnings("ignore:Using lock_:UserWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*inline_inbuilt_nn_modules:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function:DeprecationWarning")
@pytest.mark.parametrize(("name", "kind"), cases())
def test_every_loss_is_one_graph_and_equals_eager(name, kind):
    torch._dynamo.reset()
    batch, networks, options = batch_and_networks(kind)
    loss = loss_of(name, networks, **options)
    compiled = torch.compile(loss.compute, fullgraph=True, backend="eager")
    pairs = zip(results(loss, loss.compute, batch), results(loss, compiled, batch), strict=True)
    for eager, fast in pairs:
        torch.testing.assert_close(fast, eager, rtol=1e-4, atol=1e-5)


# ----------------------------------------------------------------------------------------- growth
def matrix_products(script, name: str, n_agents: int, kind: str) -> int:
    """Floating point operations in the matrix products of one update."""
    agents = script("agents")
    width = agents.PER_AGENT * n_agents
    d_state, d_agent = (width, 8) if kind == "state" else (8, width)
    team = Team(n_agents, 3, d_state, d_agent)
    update = agents.update_of(agents.loss_of(name, team), agents.batch_of(team, 4), compiled=False)
    with FlopCounterMode(display=False) as counter:
        update()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "roma"])
def test_products_grow_linearly_even_with_a_state_of_some_numbers_per_agent(name, script):
    """a + b N exactly: twice the step in agents costs twice as much more. ROMA compares all pairs."""
    few, more, many = (matrix_products(script, name, n, "state") for n in (6, 12, 24))
    assert many - more == 2 * (more - few) > 0


def test_observations_of_some_numbers_per_agent_are_quadratic(script):
    """By definition: as many numbers are read as there are pairs; the test above can see such a thing."""
    few, more, many = (matrix_products(script, "vdn", n, "observation") for n in (6, 12, 24))
    assert many - more > 3 * (more - few)
