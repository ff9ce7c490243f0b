"""Small networks and batches for tests of the Q-mixing loss: no environment, no BenchMARL."""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase, TensorDictSequential
from torch import nn
from torchrl.modules import MultiAgentMLP

from marl_td.losses.q_mixing import QMixingLoss
from marl_td.models.mixers import Mixer, QMixer, SumMixer
from marl_td.models.team import Team
from marl_td.registry import algorithm_config

D_OBS = 4
D_STATE = 5
N_ACTIONS = 3
D_ROLE = 3


def network(
    n_agents: int = 2,
    share: bool = True,
    name: str = "action_value",
    width: int = N_ACTIONS,
    group: str = "agents",
) -> TensorDictModule:
    """A hidden layer of 8, from observations to action values."""
    net = MultiAgentMLP(
        n_agent_inputs=D_OBS,
        n_agent_outputs=width,
        n_agents=n_agents,
        centralized=False,
        share_params=share,
        num_cells=[8],
        activation_class=nn.Tanh,
    )
    return TensorDictModule(net, [(group, "observation")], [(group, name)])


class SmallGru(TensorDictModuleBase):
    """A gated recurrent network over ``[n_rows, T, n_agents, d]`` that starts at zero.

    ``"is_init"`` ``[n_rows, T, 1]`` zeroes the state before a step.
    """

    def __init__(self, name: str = "action_value", width: int = N_ACTIONS) -> None:
        super().__init__()
        self.in_keys = [("agents", "observation"), "is_init"]
        self.out_keys = [("agents", name)]
        self.cell = nn.GRUCell(D_OBS, 6)
        self.head = nn.Linear(6, width)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        observation = tensordict["agents", "observation"]
        is_init = tensordict["is_init"].unsqueeze(-1)
        state = observation.new_zeros(*observation.shape[:1], observation.shape[2], 6)
        values = []
        for t in range(observation.shape[1]):
            state = torch.where(is_init[:, t], 0.0, state)
            state = self.cell(observation[:, t].flatten(0, 1), state.flatten(0, 1))
            state = state.unflatten(0, observation[:, t].shape[:2])
            values.append(self.head(state))
        return tensordict.set(self.out_keys[0], torch.stack(values, 1))


def mixer(kind: str, n_agents: int = 2) -> Mixer:
    """``"sum"`` or ``"qmix"``."""
    return SumMixer(n_agents) if kind == "sum" else QMixer(n_agents, D_STATE, d_embed=6)


def small_loss(kind: str = "qmix", n_agents: int = 2, share: bool = True, **options) -> QMixingLoss:
    """A loss whose target networks differ from the live ones."""
    loss = QMixingLoss(network(n_agents, share), mixer(kind, n_agents), **options)
    return perturb_targets(loss)


def recurrent_loss(kind: str = "qmix", **options) -> QMixingLoss:
    """The same with a recurrent network, for whole episodes."""
    return perturb_targets(QMixingLoss(SmallGru(), mixer(kind), sequences=True, **options))


@torch.no_grad()
def perturb_targets(loss: QMixingLoss) -> QMixingLoss:
    """Move the target parameters away from the live ones."""
    for _, target in loss.target_pairs():
        for parameter in target.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return loss


def agents_data(shape: tuple[int, ...], n_agents: int, masked: bool, mortal: bool) -> TensorDict:
    """What one group observes."""
    full = (*shape, n_agents)
    data = TensorDict({"observation": torch.randn(*full, D_OBS)}, full)
    if masked:
        mask = torch.rand(*full, N_ACTIONS) < 0.6
        mask[..., 0] |= ~mask.any(-1)
        data["action_mask"] = mask
    if mortal:
        data["mask"] = torch.rand(full) < 0.7
    return data


def role_noise(shape: tuple[int, ...]) -> torch.Tensor:
    """What ROMA draws roles with; from a stream of its own, so that it changes no other number."""
    generator = torch.Generator().manual_seed(11)
    return torch.randn((*shape, D_ROLE), generator=generator)


def make_batch(
    shape: tuple[int, ...] = (16,), n_agents: int = 2, masked: bool = False, mortal: bool = False
) -> TensorDict:
    """A random batch of steps that have nothing to do with each other."""
    now = agents_data(shape, n_agents, masked, mortal)
    now["action"] = torch.randint(N_ACTIONS, (*shape, n_agents))
    terminated = torch.rand(*shape, 1) < 0.3
    following = {
        "agents": agents_data(shape, n_agents, masked, mortal),
        "state": torch.randn(*shape, D_STATE),
        "reward": torch.randn(*shape, 1),
        "terminated": terminated,
        "done": terminated | (torch.rand(*shape, 1) < 0.2),
    }
    state = torch.randn(*shape, D_STATE)
    after = TensorDict(following, shape)
    noise = role_noise((2, *shape, n_agents))
    now["role_noise"], after["agents", "role_noise"] = noise.unbind(0)
    return TensorDict({"agents": now, "state": state, "next": after}, shape)


def make_episodes(
    lengths: tuple[int, ...] = (5, 3, 1, 4),
    n_steps: int = 6,
    terminated: tuple[bool, ...] = (True, False, True, False),
    **options,
) -> TensorDict:
    """Whole episodes ``[n_episodes, n_steps]``, padded with noise, with ``"step_mask"``."""
    n_rows = len(lengths)
    batch = make_batch((n_rows, n_steps), **options)
    step = torch.arange(n_steps)
    last = (step == torch.tensor(lengths).unsqueeze(1) - 1).unsqueeze(-1)
    batch["next", "done"] = last
    batch["next", "terminated"] = last & torch.tensor(terminated).reshape(-1, 1, 1)
    batch["step_mask"] = (step < torch.tensor(lengths).unsqueeze(1)).unsqueeze(-1)
    batch["is_init"] = (step == 0).expand(n_rows, -1).unsqueeze(-1).clone()
    for key in batch["next"].keys(True, True):
        if key in batch.keys(True, True):  # what a step reaches, the next one starts from
            batch.get(key)[:, 1:] = batch["next"].get(key)[:, :-1]
    return batch


class SmallNetworks:
    """The networks of a small team, see `marl_td.models.team.TeamNetworks`."""

    def __init__(self, n_agents: int = 2, share: bool = True, mortal: bool = False) -> None:
        self.share = share
        sizes = (n_agents, N_ACTIONS, D_STATE, D_OBS)
        self.team = Team(*sizes, mortal=mortal, shared=share)

    def agents(self, name: str, width: int) -> TensorDictModule:
        """A hidden layer of 8 from the observations."""
        return network(self.team.n_agents, self.share, name, width)

    def central(self, module: TensorDictModuleBase) -> TensorDictModuleBase:
        """Observations are what is seen of the agents."""
        key = self.team.key("agent_input")
        if key not in module.in_keys:
            return module
        seen = TensorDictModule(nn.Identity(), [("agents", "observation")], [key])
        return TensorDictSequential(seen, module)


def loss_of(name: str, n_agents: int = 2, share: bool = True, mortal: bool = True, **options):
    """The loss of the algorithm ``name``, whose target networks differ from the live ones."""
    config = algorithm_config(name)
    networks = SmallNetworks(n_agents, share, mortal)
    own = {name: options.pop(name) for name in list(options) if hasattr(config, name)}
    config = algorithm_config(name)(**own)
    options = {**config.loss_options(), **options}
    values = config.value_network(networks, "action_value", N_ACTIONS)
    return perturb_targets(config.build_loss(values, networks, **options))
