"""PPO with beliefs about the others' policies, which are learned by predicting what they do: Belief-PPO."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor

from marl_td.losses.arguments import check_modules
from marl_td.losses.entries import check_written, flag, living, masked_mean, require
from marl_td.losses.functional.belief import continuous_log_likelihood, discrete_log_likelihood
from marl_td.losses.functional.checks import check_bool, check_not_negative
from marl_td.losses.functional.distributions import gaussian_divergence
from marl_td.losses.ppo import MAPPOLoss
from marl_td.losses.trajectory import real_steps


class BeliefPPOLoss(MAPPOLoss):
    """MAPPO's losses, and the variational loss of what each agent believes of the others.

        loss_belief = mean over pairs that see each other of -log p(u_j | o_i, z_j) + beta KL(q || N(0, I))
        z_j ~ q(z_j | the last H pairs of o_i and u_j)

    One reading of Zhai et al. 2023, "Dynamic Belief for Decentralized Multi-Agent Cooperative Learning"
    (IJCAI 2023), of which the abstract is public. The prediction is of the action of this step, which the
    encoder has not seen. The policy reads the belief it acted on, from the data: PPO's gradient and that of
    the belief are separate, and the ratio is 1 before the first step whatever the belief has become.

    Args:
        actor: as for MAPPO; reads the belief's entries from the batch.
        critic: as for MAPPO.
        encoder: writes ``belief_mean`` and ``belief_std`` ``[*B, n_agents, n_all, d_belief]``.
        decoder: reads a latent in the place of ``belief``, writes ``prediction``,
            ``[*B, n_agents, n_all, d]``.
        available: bool ``[n_all, n_actions or d_action]``: actions of each agent that exist, where the agents
            have different numbers of them.
        beta: weight of the divergence, >= 0.
        options: as for :class:`marl_td.losses.ppo.MAPPOLoss`.

    Reads besides ``others_action`` ``[*B, n_agents, n_all, ...]`` and ``others_seen`` (bool, ``[*B, n_agents,
    n_all]``): what the others do in this step, and who sees it. Writes ``loss_belief`` and metrics
    ``belief_cross_entropy`` and ``belief_kl`` in nats besides MAPPO's.

    Raises:
        ValueError: if ``beta`` is negative.
    """

    @dataclass
    class _AcceptedKeys(MAPPOLoss._AcceptedKeys):
        belief: NestedKey = ("agents", "belief")
        belief_mean: NestedKey = ("agents", "belief_mean")
        belief_std: NestedKey = ("agents", "belief_std")
        prediction: NestedKey = ("agents", "prediction")
        others_action: NestedKey = ("agents", "others_action")
        others_seen: NestedKey = ("agents", "others_seen")

    out_keys: ClassVar[list[str]] = [
        *MAPPOLoss.out_keys,
        "loss_belief",
        "belief_cross_entropy",
        "belief_kl",
    ]

    available: Tensor

    def __init__(
        self,
        actor: Any,
        critic: TensorDictModuleBase,
        encoder: TensorDictModuleBase,
        decoder: TensorDictModuleBase,
        *,
        available: Tensor,
        beta: float = 0.01,
        **options: Any,
    ) -> None:
        super().__init__(actor, critic, **options)
        check_modules(encoder=encoder, decoder=decoder)
        check_not_negative(beta=beta)
        self.encoder = encoder
        self.decoder = decoder
        self.beta = beta
        self.register_buffer("available", available.clone(), persistent=False)

    def compute(self, tensordict: TensorDictBase) -> dict[str, Tensor]:
        """Losses and metrics from a minibatch ``[*B]``."""
        return {**super().compute(tensordict), **self._belief(tensordict)}

    def log_likelihood(
        self, tensordict: TensorDictBase, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Log-likelihoods of what the others do, and divergences, both ``[*B, n_agents, n_all]`` in nats.

        The latents are means plus ``noise`` standard deviations; without noise they are the means.
        """
        keys = self.tensor_keys
        check_written(self.encoder, keys.belief_mean, keys.belief_std)
        found = self.encoder(tensordict.copy())
        mean, std = found.get(keys.belief_mean), found.get(keys.belief_std)
        found.set(keys.belief, mean if noise is None else mean + std * noise)
        check_written(self.decoder, keys.prediction)
        prediction = self.decoder(found).get(keys.prediction)
        action = require(tensordict, keys.others_action)
        likely = (
            continuous_log_likelihood if action.is_floating_point() else discrete_log_likelihood
        )
        log_likelihood = likely(prediction, action, self.available)
        prior = torch.zeros_like(mean), torch.ones_like(std)
        return log_likelihood, gaussian_divergence(mean, std, *prior)

    def _belief(self, tensordict: TensorDictBase) -> dict[str, Tensor]:
        keys = self.tensor_keys
        noise = torch.randn_like(require(tensordict, keys.belief_mean))
        log_likelihood, divergence = self.log_likelihood(tensordict, noise)
        mask = require(tensordict, keys.others_seen)
        check_bool(keys.others_seen, mask)
        alive = living(tensordict, keys.mask)
        if alive is not None:
            mask = mask & alive.unsqueeze(-1)
        steps = flag(tensordict, keys.step_mask)
        if steps is not None:
            mask = mask & real_steps(steps, mask)
        cross_entropy = masked_mean(-log_likelihood, mask)
        kl = masked_mean(divergence, mask)
        return {
            "loss_belief": cross_entropy + self.beta * kl,
            "belief_cross_entropy": cross_entropy,
            "belief_kl": kl,
        }
