"""Heterogeneous-agent soft actor-critic: agents move one after the other."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from marl_td.losses.agent_adam import AgentAdam
from marl_td.losses.arguments import kind_of
from marl_td.losses.entries import masked_mean
from marl_td.losses.functional.agent_order import agent_order
from marl_td.losses.masac import MASACLoss
from marl_td.losses.soft_actor import SoftActor
from marl_td.losses.temperature import Temperature


class HASACLoss(MASACLoss):
    """HASAC (Liu et al. 2024, https://arxiv.org/abs/2306.10715): MASAC with actors that move in sequence.

        y          = r + gamma (1 - terminated) [min_k Q_k^-(x', u') - sum_j alpha_j log pi_j(u_j' | o_j')]
        agent i_m  maximises E[min_k Q_k(x, u_new of i_1..i_{m-1}, u_{i_m}, u_old of i_{m+1}..i_N)
                               - alpha log pi_{i_m}(u_{i_m} | o_{i_m})]

    One call takes one gradient step of *every* agent on the same batch, in a random order i_1..i_N: an
    agent's turn sees the policies that the agents before it have already moved to, and those behind it as
    they were. A trainer that first computes all losses and then steps could not do this, so **the actors are
    moved inside the call**, by :class:`~marl_td.losses.agent_adam.AgentAdam`; trainers step the critics and
    temperatures only. Nothing moves in ``eval()`` mode or under ``torch.no_grad()``. Where it is not an
    agent's turn, nothing of it changes, its momentum included; nor in its turn, if what it maximises or the
    gradient of that is not finite.

    The order is a function of ``order_seed`` and the number of calls, which the state dict keeps with the
    optimiser's state: a resumed run goes on with the same orders. The last one is in the buffer ``order``.

    Args:
        actor: actor of this loss's group; every parameter is ``[n_agents, ...]``, nothing is shared.
        critics: as for :class:`~marl_td.losses.masac.MASACLoss`; the same team value for every agent.
        temperature: alpha.
        optimiser: moves the actor.
        order_seed: of the random orders.
        fixed_order: take the agents in the order of their indices instead.
        options: as for ``MASACLoss``; ``entropy_bonus`` is the team's, ``actor_gradient`` has no meaning.

    Reads what ``MASACLoss`` does. Writes ``loss_value``, ``loss_alpha``, its metrics, and ``actor_objective``
    (mean over agents of what they maximise) and ``grad_norm_actor`` (mean over agents, before clipping; not
    finite if an agent's step was left out).

    Raises:
        TypeError: as ``MASACLoss``, or if ``optimiser`` is another one.
        ValueError: as ``MASACLoss``, or if critics do not read the joint action of several agents.
    """

    out_keys: ClassVar[list[str]] = [
        "actor_objective",
        "grad_norm_actor",
        *[key for key in MASACLoss.out_keys if key != "loss_actor"],
    ]

    rounds: Tensor
    order: Tensor
    order_seed: Tensor

    def __init__(
        self,
        actor: SoftActor,
        critics: Sequence[TensorDictModuleBase],
        temperature: Temperature,
        optimiser: AgentAdam,
        *,
        order_seed: int = 0,
        fixed_order: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(actor, critics, temperature, **{"entropy_bonus": "team", **options})
        if not isinstance(optimiser, AgentAdam):
            raise TypeError(f"`optimiser` must be an AgentAdam; got {kind_of(optimiser)}.")
        self.n_agents = len(optimiser.count)
        if not self.central and self.n_agents > 1:
            raise ValueError(
                "agents that move in a sequence answer one another: their critics must read the joint "
                "action (central=True)."
            )
        self.optimiser = optimiser
        self.fixed_order = fixed_order
        self.register_buffer("order_seed", torch.tensor(order_seed))
        self.register_buffer("rounds", torch.tensor(0))
        self.register_buffer("order", torch.arange(self.n_agents))

    def networks(self) -> dict[str, list[nn.Module]]:
        """The networks that each named loss teaches; the actors are moved by this loss itself."""
        found = super().networks()
        del found["loss_actor"]
        return found

    def set_learning_rate(self, lr: float) -> None:
        """Learning rate of the actors from now on."""
        self.optimiser.lr.fill_(lr)

    def _policy(
        self, tensordict: TensorDictBase, taken: list[Tensor], alpha: Tensor
    ) -> dict[str, Tensor]:
        moving = self.training and torch.is_grad_enabled()
        order = self._next_order() if moving else self.order
        agents = torch.arange(self.n_agents, device=order.device)
        objectives, norms, log_probs = [], [], []
        for turn in range(self.n_agents):
            chosen = agents == order[turn]
            objective, seen = self._turn(tensordict, taken, alpha, chosen)
            if moving:
                norms.append(self._move(objective, chosen))
            objectives.append(objective.detach())
            log_probs.append(torch.where(chosen, seen, 0.0))
        log_prob = torch.stack(log_probs).sum(0)  # of each agent in its turn
        mask = self._mask(tensordict, log_prob, alive=True)
        return {
            "actor_objective": torch.stack(objectives).mean(),
            "grad_norm_actor": torch.stack(norms).mean() if norms else alpha.new_zeros(()),
            "loss_alpha": self.temperature.loss(log_prob, mask),
            "entropy": -masked_mean(log_prob, mask),
        }

    def _move(self, objective: Tensor, chosen: Tensor) -> Tensor:
        """Step the ``chosen`` agent; the norm of its gradient, not finite if it was left out."""
        gradients = torch.autograd.grad(-objective, self.optimiser.parameters_moved())
        fine = objective.detach().isfinite()
        norm = self.optimiser.step(gradients, chosen & fine)
        return torch.where(fine, norm, torch.nan)

    def _turn(
        self, tensordict: TensorDictBase, taken: list[Tensor], alpha: Tensor, chosen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the ``chosen`` agent ``[n_agents]`` maximises now, ``[]``, and ``[*B, n_agents]`` log pi.

        All agents act by their present policies: those before this turn by their new ones.
        """
        sample = self.actor(tensordict)
        action = torch.where(chosen.unsqueeze(-1), sample.action, sample.action.detach())
        rows = self._rows(self._replaced(taken, action))
        gain = self._gain(tensordict, rows, sample._replace(action=action), alpha)
        mask = self._mask(tensordict, gain, alive=True)
        counts = chosen.expand_as(gain)
        objective = masked_mean(gain, counts if mask is None else counts & mask)
        return objective, sample.log_prob.detach()

    def _next_order(self) -> Tensor:
        """The next round's order, which is then on record."""
        if not self.fixed_order:
            self.order.copy_(agent_order(self.order_seed, self.rounds, self.n_agents))
        self.rounds.add_(1)
        return self.order
