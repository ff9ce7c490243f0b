"""What ROMA's two terms do to the roles, in a game of two trades whose best return is 1.

    python benchmarks/roma_roles.py [--seeds 5] [--steps 600]

Four agents; in every episode two of them, drawn at random, are masons and two are smiths. An agent sees its
own trade (one-hot) and three numbers that mean nothing. It builds, forges or idles; the team is paid the
share of masons that build times the share of smiths that forge: 1 at best, 1/9 by chance, 0 if all do the
same. All agents share their networks. QMIX and ROMA learn from uniformly random actions, fresh in every step.

Reported are the greedy payoff, and of the mean roles the mean distance of two agents of different trades
divided by that of two of the same trade, over many episodes (1: roles say nothing of the trade). Writes
`results/roma_roles.csv` and `.md`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from common import RESULTS, markdown, write_csv
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictModuleBase, TensorDictSequential
from torch import Tensor, nn
from torchrl.envs.utils import ExplorationType, set_exploration_type

from marl_td.losses.functional.action_values import masked_argmax
from marl_td.losses.q_mixing import QMixingLoss
from marl_td.losses.targets import TargetUpdater
from marl_td.models.team import Team
from marl_td.registry import algorithm_config

N_AGENTS, N_ACTIONS, N_NOISE = 4, 3, 3
BATCH, RATE = 128, 1e-3
OFF = {"kl_coef": 0.0, "dis_coef": 0.0}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "QMIX": ("qmix", {}),
    "ROMA, no terms": ("roma", OFF),
    "ROMA, defaults": ("roma", {}),
    "ROMA, both weights x 100": ("roma", {"kl_coef": 1e-2, "dis_coef": 1e-1}),
    "ROMA, identifiability x 100": ("roma", {**OFF, "kl_coef": 1e-2}),
    "ROMA, specialisation x 100": ("roma", {**OFF, "dis_coef": 1e-1}),
}


class Networks:
    """The networks of the team, see `marl_td.models.team.TeamNetworks`."""

    def __init__(self) -> None:
        self.team = Team(N_AGENTS, N_ACTIONS, d_state=2 * N_AGENTS, d_agent=2 + N_NOISE)

    def agents(self, name: str, width: int) -> TensorDictModule:
        """One network for all agents, a hidden layer of 32."""
        layers = nn.Sequential(nn.Linear(self.team.d_agent, 32), nn.Tanh(), nn.Linear(32, width))
        return TensorDictModule(layers, [("agents", "observation")], [self.team.key(name)])

    def central(self, module: TensorDictModuleBase) -> TensorDictModuleBase:
        """Observations are what is seen of the agents."""
        if self.team.key("agent_input") not in module.in_keys:
            return module
        key = self.team.key("agent_input")
        seen = TensorDictModule(nn.Identity(), [("agents", "observation")], [key])
        return TensorDictSequential(seen, module)


def payoff(trade: Tensor, action: Tensor) -> Tensor:
    """Share of masons (trade 0) that build (0) times share of smiths (1) that forge (1), ``[B]``."""
    right = (action == trade).float()
    shares = [(right * (trade == kind)).sum(-1) / (trade == kind).sum(-1) for kind in (0, 1)]
    return shares[0] * shares[1]


def episodes(n: int) -> TensorDict:
    """``n`` episodes of one step with random actions."""
    trade = (torch.rand(n, N_AGENTS).argsort(-1) >= N_AGENTS // 2).long()
    cue = nn.functional.one_hot(trade, 2).float()
    observation = torch.cat([cue, 2.0 * torch.rand(n, N_AGENTS, N_NOISE) - 1.0], -1)
    action = torch.randint(N_ACTIONS, (n, N_AGENTS))
    agents = TensorDict({"observation": observation, "trade": trade}, [n, N_AGENTS])
    after = {
        "agents": agents.clone(),
        "state": cue.flatten(1),
        "reward": payoff(trade, action).unsqueeze(-1),
        "terminated": torch.ones(n, 1, dtype=torch.bool),
    }
    agents["action"] = action
    return TensorDict(
        {"agents": agents, "state": cue.flatten(1), "next": TensorDict(after, [n])}, [n]
    )


def train(name: str, options: dict[str, Any], seed: int, n_steps: int) -> QMixingLoss:
    """The trained loss module with its networks."""
    torch.manual_seed(seed)
    config, networks = algorithm_config(name)(**options), Networks()
    values = config.value_network(networks, "action_value", N_ACTIONS)
    loss: QMixingLoss = config.build_loss(values, networks, **config.loss_options())
    updater = TargetUpdater(loss.target_pairs(), tau=0.01)
    optimiser = torch.optim.Adam([p for p in loss.parameters() if p.requires_grad], RATE)
    for _ in range(n_steps):
        optimiser.zero_grad()
        loss(episodes(BATCH))["loss_value"].backward()
        optimiser.step()
        updater.step()
    return loss


def separation(role: Tensor, trade: Tensor) -> float:
    """Mean distance of roles ``[n, d]`` of different trades ``[n]`` by that of the same trade."""
    distance = torch.cdist(role, role)
    same = trade.unsqueeze(0) == trade.unsqueeze(1)
    others = ~torch.eye(len(role), dtype=torch.bool)
    return (distance[~same].mean() / distance[same & others].mean()).item()


@torch.no_grad()
def judge(loss: QMixingLoss) -> dict[str, float]:
    """Greedy payoff, and the separation and spread of the roles."""
    torch.manual_seed(12345)
    batch = episodes(256)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        out = loss.network(batch.copy())
    trade = batch["agents", "trade"]
    found = {"payoff": payoff(trade, masked_argmax(out["agents", "action_value"])).mean().item()}
    if ("agents", "role_mean") in out.keys(True):
        role = out["agents", "role_mean"].flatten(0, 1)
        found["separation"] = separation(role, trade.flatten())
        found["std"] = out["agents", "role_std"].mean().item()
    return found


def spread(values: list[float]) -> str:
    """Mean and range."""
    return f"{statistics.mean(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def main() -> None:
    """Train all variants and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=600)
    args = parser.parse_args()
    rows = []
    for label, (name, options) in VARIANTS.items():
        start = time.perf_counter()
        runs = [judge(train(name, options, seed, args.steps)) for seed in range(args.seeds)]
        row = {"variant": label, "greedy payoff": spread([run["payoff"] for run in runs])}
        for column, key in (("between / within trades", "separation"), ("std of roles", "std")):
            row[column] = spread([run[key] for run in runs]) if key in runs[0] else "-"
        rows.append(row)
        print(row, f"{time.perf_counter() - start:.0f} s", flush=True)
    write_csv("roma_roles", rows)
    (RESULTS / "roma_roles.md").write_text(markdown(rows))


if __name__ == "__main__":
    main()
