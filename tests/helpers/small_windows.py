"""Steps that a recurrent network collected, and windows of them: no environment, no BenchMARL experiment."""

from __future__ import annotations

from typing import Any

import torch
from small_qmix import D_OBS, N_ACTIONS, SmallNetworks, make_batch, perturb_targets
from tensordict import TensorDict
from torch import nn
from torchrl.data import Composite, LazyTensorStorage, Unbounded
from torchrl.data.replay_buffers import RandomSampler

from marl_td.collect.window_replay import WindowReplayBuffer
from marl_td.losses.independent_q import IndependentQLoss
from marl_td.losses.q_learning import QLearningLoss
from marl_td.models.gru import StatefulGru, StatefulGruConfig
from marl_td.registry import algorithm_config

HIDDEN = ("agents", "hidden_gru_0")
SEEN = "value_when_collected"


def gru_network(name: str = "action_value", width: int = N_ACTIONS) -> StatefulGru:
    """The stateful recurrent network of two agents."""

    def group(**entries: Unbounded) -> Composite:
        return Composite({"agents": Composite(entries, shape=(2,))})

    return StatefulGruConfig(hidden_size=6, encoder_cells=[8]).get_model(
        input_spec=group(observation=Unbounded((2, D_OBS))),
        output_spec=group(**{name: Unbounded((2, width))}),
        agent_group="agents",
        input_has_agent_dim=True,
        n_agents=2,
        centralised=False,
        share_params=True,
        device="cpu",
        action_spec=None,
    )


class GruNetworks(SmallNetworks):
    """The networks of a small team whose agents have memory."""

    def agents(self, name: str, width: int) -> StatefulGru:
        """A recurrent network from the observations."""
        return gru_network(name, width)


def gru_loss(name: str = "qmix", *, stored: bool = True, **options: Any) -> QLearningLoss:
    """The loss of an algorithm on sequences, with recurrent networks; its targets differ from them."""
    options = {"sequences": True, "states": [HIDDEN] if stored else [], **options}
    if name == "iql":
        return perturb_targets(IndependentQLoss(gru_network(), **options))
    config = algorithm_config(name)()
    return perturb_targets(config.build_loss(gru_network(), GruNetworks(), **options))


@torch.no_grad()
def collect(net: nn.Module, n_envs: int = 4, n_steps: int = 24, longest: int = 9) -> TensorDict:
    """Steps ``[n_envs, n_steps]`` of episodes of 1 to ``longest`` steps, as a collector stores them.

    With the hidden state before each step, and the network's values at that time.
    """
    batch = make_batch((n_envs, n_steps), masked=True, mortal=True)
    lengths = torch.randint(1, longest + 1, (n_envs, n_steps))
    ends = torch.zeros(n_envs, n_steps + longest, dtype=torch.bool)
    last = (lengths.cumsum(1) - 1).clamp(max=n_steps + longest - 1)
    done = ends.scatter(1, last, True)[:, :n_steps].unsqueeze(-1)
    terminated = done & (torch.rand(done.shape) < 0.5)
    is_init = torch.cat([torch.ones_like(done[:, :1]), done[:, :-1]], 1)
    batch["is_init"], batch["next", "done"], batch["next", "terminated"] = is_init, done, terminated
    for name, value in (("done", done), ("terminated", terminated)):
        batch["next", "agents", name] = value.unsqueeze(-2).expand(n_envs, n_steps, 2, 1).clone()
    batch["next", "agents", "reward"] = torch.randn(n_envs, n_steps, 2, 1)
    for key in batch["next"].keys(True, True):
        if key in batch.keys(True, True) and key != "done":
            value, after = batch.get(key), batch["next"].get(key)
            goes_on = ~done[:, :-1].reshape(n_envs, -1, *[1] * (value.ndim - 2))
            value[:, 1:] = torch.where(goes_on, after[:, :-1], value[:, 1:])
    state, states, seen = torch.zeros(n_envs, 2, 1, 6), [], []
    for t in range(n_steps):
        state = torch.where(is_init[:, t].reshape(-1, 1, 1, 1), 0.0, state)
        out = net(batch[:, t].select("agents", "is_init").set(HIDDEN, state))
        states.append(state)
        seen.append(out["agents", "action_value"])
        state = out[("next", *HIDDEN)]
    batch[HIDDEN] = torch.stack(states, 1)
    batch["agents", SEEN] = torch.stack(seen, 1)
    return batch


def windows(
    batch: TensorDict, length: int = 4, burn_in: int = 3, stride: int = 2, cut: int = 7
) -> TensorDict:
    """All windows ``[n_windows, burn_in + length]`` of steps that come in batches of ``cut``."""
    replay = WindowReplayBuffer(
        length=length,
        burn_in=burn_in,
        stride=stride,
        storage=LazyTensorStorage(1000),
        sampler=RandomSampler(),
        batch_size=1,
    )
    for start in range(0, batch.shape[1], cut):
        replay.extend(batch[:, start : start + cut])
    return replay[:]
