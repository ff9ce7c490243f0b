"""Small actors, critics and batches for tests of the PPO losses: plain networks, no environment."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torch.distributions import Categorical
from torchrl.data import Bounded
from torchrl.data import Categorical as CategoricalSpec
from torchrl.modules import (
    MaskedCategorical,
    MultiAgentMLP,
    NormalParamExtractor,
    ProbabilisticActor,
    TanhNormal,
)

from marl_td.losses.ppo import MAPPOLoss

GROUP = "agents"
D_OBS = 4
N_ACTIONS = 3
D_ACTION = 2


def actor(kind: str, own: int = 0, group: str = GROUP) -> ProbabilisticActor:
    """Actor over the agents' rows: ``"discrete"``, ``"masked"`` or ``"continuous"``.

    One network for all of them, or one for each of ``own`` agents.
    """
    keys = {"out_keys": [(group, "action")], "return_log_prob": True}
    keys["log_prob_key"] = (group, "log_prob")
    d_out = 2 * D_ACTION if kind == "continuous" else N_ACTIONS
    net: nn.Module = nn.Sequential(nn.Linear(D_OBS, 8), nn.Tanh(), nn.Linear(8, d_out))
    if own:
        net = MultiAgentMLP(
            D_OBS, d_out, own, centralized=False, share_params=False, depth=1, num_cells=8
        )
    module = TensorDictModule(net, [(group, "observation")], [(group, "logits")])
    if kind != "continuous":
        in_keys = {"logits": (group, "logits")}
        if kind == "masked":
            in_keys["mask"] = (group, "action_mask")
        return ProbabilisticActor(
            module,
            in_keys=in_keys,
            spec=CategoricalSpec(N_ACTIONS),
            distribution_class=MaskedCategorical if kind == "masked" else Categorical,
            distribution_kwargs={"use_cross_entropy": False} if kind == "masked" else {},
            **keys,
        )
    split = TensorDictModule(
        NormalParamExtractor(), [(group, "logits")], [(group, "loc"), (group, "scale")]
    )
    return ProbabilisticActor(
        TensorDictSequential(module, split),
        in_keys=[(group, "loc"), (group, "scale")],
        spec=Bounded(-1.0, 1.0, (D_ACTION,)),
        distribution_class=TanhNormal,
        distribution_kwargs={"low": -1.0, "high": 1.0},
        **keys,
    )


def critic() -> TensorDictModule:
    """Shared critic over the agents' rows, ``(group, "state_value")`` ``[*B, n_agents, 1]``."""
    net = nn.Sequential(nn.Linear(D_OBS, 8), nn.Tanh(), nn.Linear(8, 1))
    return TensorDictModule(net, [(GROUP, "observation")], [(GROUP, "state_value")])


def collected(
    policy: ProbabilisticActor, *, n_envs: int = 4, n_steps: int = 6, n_agents: int = 3
) -> TensorDict:
    """Random steps ``[n_envs, T]`` with actions and log-probabilities of ``policy``.

    In a trajectory the next row's observation is the one reached; a third of the steps end, half of those by
    termination.
    """
    shape = (n_envs, n_steps)
    observation = torch.randn(*shape, n_agents, D_OBS)
    reached = torch.randn_like(observation)
    done = torch.rand(*shape, 1) < 0.3
    terminated = done & (torch.rand(*shape, 1) < 0.5)
    inside = torch.cat([observation[:, 1:], reached[:, -1:]], dim=1)
    reached = torch.where(done.unsqueeze(-1), reached, inside)
    mask = torch.rand(*shape, n_agents, N_ACTIONS) < 0.7
    mask[..., 0] = True

    def per_agent(x: torch.Tensor) -> torch.Tensor:
        return x.unsqueeze(-2).expand(*shape, n_agents, 1).clone()

    following = {
        "observation": reached,
        "reward": torch.randn(*shape, n_agents, 1),
        "done": per_agent(done),
        "terminated": per_agent(terminated),
    }
    batch = TensorDict(
        {
            GROUP: {"observation": observation, "action_mask": mask},
            "next": {GROUP: following, "done": done, "terminated": terminated},
        },
        batch_size=shape,
    )
    with torch.no_grad():
        return policy(batch)


def small_loss(kind: str = "discrete", **options) -> MAPPOLoss:
    """A loss of small networks."""
    return MAPPOLoss(actor(kind), critic(), **options)
