"""HATRPO: a trust-region step of one agent after the other."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModuleBase
from torch import Tensor

from marl_td.losses.advantage import entropy_of, unsquashed
from marl_td.losses.entries import masked_mean, require
from marl_td.losses.functional.checks import (
    check_between,
    check_count,
    check_fraction,
    check_not_negative,
    check_positive,
)
from marl_td.losses.functional.distributions import categorical_divergence, gaussian_divergence
from marl_td.losses.functional.trust_region import (
    conjugate_gradient,
    hessian_product,
    trust_region_step,
)
from marl_td.losses.sequential import SequentialLoss, of_agent
from marl_td.losses.stochastic_actor import log_prob_of
from marl_td.losses.turns import Turn, stacked_parameters

STEP_METRICS = (
    "entropy",
    "kl",
    "accepted",
    "step_fraction",
    "improvement",
    "expected_improvement",
    "factor_deviation",
    "grad_norm_policy",
)
"""What is said of a trust-region step."""


class Surroundings(NamedTuple):
    """What does not change while an agent steps; all but ``old`` and ``noise`` are ``[*B, 1]``."""

    turn: Turn
    action: Tensor
    old_log_prob: Tensor
    factor: Tensor
    """M."""
    advantage: Tensor
    mask: Tensor | None
    old: tuple[Tensor, ...]
    """The distribution's parameters before the step."""
    noise: Tensor | None
    """Of the sample that estimates entropy: one for the whole step, so that lengths can be compared."""


class HATRPOLoss(SequentialLoss):
    """Heterogeneous-agent TRPO (Kuba et al. 2022, https://arxiv.org/abs/2109.11251, section 4.1).

    The first ``steps_per_turn`` calls in an agent's turn change its policy, in place: no optimiser is given
    the policies. The step goes along the natural gradient of the mean of ``M rho A``, as far as the
    divergence allows, and is cut back until the objective has really grown and the divergence from the policy
    before the step is really below the threshold; if it never is, the policy stays, as it does where numbers
    are not finite. Other calls train the critic only.
    With one agent it is TRPO (Schulman et al. 2015, https://arxiv.org/abs/1502.05477).

    Args:
        actor: as in :class:`~marl_td.losses.sequential.SequentialLoss`.
        critic: likewise.
        kl_threshold: largest mean divergence of a step, > 0, in nats: delta.
        cg_iterations: iterations of conjugate gradients, >= 1.
        cg_damping: added to the diagonal of Fisher's matrix, >= 0.
        line_search_steps: lengths that are tried, >= 1.
        backtrack: factor from one length to the next, in (0, 1).
        accept_ratio: least share of the improvement that the gradient promises, in [0, 1].
        steps_per_turn: steps of an agent on one batch, >= 1: the number of minibatches, for one pass.
        entropy_coeff: weight of the mean entropy in the objective, >= 0; 0 is the paper.
        options: of :class:`~marl_td.losses.sequential.SequentialLoss`.

    Writes ``loss_critic``, ``explained_variance``, and of the last trust-region step ``entropy`` (before it),
    ``kl`` (0 if it was rejected), ``accepted`` (1 or 0), ``step_fraction`` (of the full length),
    ``improvement`` and ``expected_improvement`` of the objective, ``factor_deviation`` and
    ``grad_norm_policy``, the norm of the objective's gradient. In the call of a step that failed the norm is
    NaN: the gradient, the natural gradient or its image under the damped matrix of Fisher was not finite, or
    no length that was tried had a finite objective and divergence. Later calls repeat 0 for NaN.

    Raises:
        ValueError: if an argument is out of range.
    """

    out_keys: ClassVar[list[str]] = ["loss_critic", "explained_variance", *STEP_METRICS]
    not_compilable: ClassVar[str | None] = (
        "changes the policy by itself, with a line search of unknown length"
    )

    def __init__(
        self,
        actor: ProbabilisticTensorDictSequential,
        critic: TensorDictModuleBase,
        *,
        kl_threshold: float = 0.01,
        cg_iterations: int = 10,
        cg_damping: float = 0.1,
        line_search_steps: int = 10,
        backtrack: float = 0.8,
        accept_ratio: float = 0.5,
        steps_per_turn: int = 1,
        entropy_coeff: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(actor, critic, **options)
        check_positive(kl_threshold=kl_threshold)
        check_between("backtrack", backtrack, 0.0, 1.0)
        check_fraction("accept_ratio", accept_ratio)
        check_count(
            cg_iterations=cg_iterations,
            line_search_steps=line_search_steps,
            steps_per_turn=steps_per_turn,
        )
        check_not_negative(cg_damping=cg_damping, entropy_coeff=entropy_coeff)
        self.entropy_coeff = entropy_coeff
        self.kl_threshold = kl_threshold
        self.cg_iterations = cg_iterations
        self.cg_damping = cg_damping
        self.line_search_steps = line_search_steps
        self.backtrack = backtrack
        self.accept_ratio = accept_ratio
        self.steps_per_turn = steps_per_turn
        self.last_step: dict[str, Tensor] = {}

    def policy(
        self, tensordict: TensorDictBase, advantage: Tensor, mask: Tensor | None
    ) -> dict[str, Tensor]:
        """Step, if it is time to; what is said of the last step."""
        turn = self.turns.next()
        told = self.last_step
        if self.training and int(turn.n_before) < self.steps_per_turn:
            with torch.enable_grad():
                told = self._step(tensordict, advantage, mask, turn)
            # A failure is told of once: the calls that repeat the rest have not failed.
            self.last_step = {n: torch.where(v.isnan(), 0.0, v) for n, v in told.items()}
        zero = advantage.new_zeros(())
        return {name: told.get(name, zero) for name in STEP_METRICS}

    def _step(
        self, tensordict: TensorDictBase, advantage: Tensor, mask: Tensor | None, turn: Turn
    ) -> dict[str, Tensor]:
        """One trust-region step of the agent whose turn it is."""
        stacks = stacked_parameters(self.actor, self.turns.n_agents)
        agent = int(turn.agent)

        def flatten(tensors: Sequence[Tensor]) -> Tensor:
            return torch.cat([tensor[agent].reshape(-1) for tensor in tensors])

        distribution = self.distribution(tensordict)
        known = self._surroundings(tensordict, distribution, advantage, mask, turn)
        objective, divergence = self._measure(distribution, known)
        gradient = flatten(torch.autograd.grad(objective, stacks, retain_graph=True)).detach()
        curvature = hessian_product(divergence, stacks, flatten)

        def damped(vector: Tensor) -> Tensor:
            return curvature(vector) + self.cg_damping * vector

        direction = conjugate_gradient(damped, gradient, n_iters=self.cg_iterations)
        image = damped(direction)
        step = trust_region_step(direction, image, self.kl_threshold)
        found, measured = self._search(
            [stack.detach()[agent] for stack in stacks],
            step,
            objective.detach(),
            torch.dot(gradient, step),
            lambda: self._measure(self.distribution(tensordict), known),
        )
        deviation = (known.factor - 1.0).abs()
        norm = torch.linalg.vector_norm(gradient)
        # A dot product is finite only if every entry of both vectors is.
        fine = norm.isfinite() & torch.dot(direction, image).isfinite() & measured
        return {
            **found,
            "entropy": masked_mean(
                of_agent(entropy_of(distribution), turn.agent), known.mask
            ).detach(),
            "factor_deviation": masked_mean(deviation, known.mask),
            "grad_norm_policy": torch.where(fine, norm, torch.nan),
        }

    def _surroundings(
        self,
        tensordict: TensorDictBase,
        distribution: Any,
        advantage: Tensor,
        mask: Tensor | None,
        turn: Turn,
    ) -> Surroundings:
        """What a step of this agent is measured by."""
        action = require(tensordict, self.tensor_keys.action)
        old_log_prob = require(tensordict, self.tensor_keys.sample_log_prob)
        log_prob = log_prob_of(distribution, action)
        factor = self.factor(tensordict, log_prob, old_log_prob, turn.earlier, mask).unsqueeze(-1)
        old = tuple(value.detach() for value in _parameters(distribution))
        return Surroundings(
            turn,
            action,
            of_agent(old_log_prob, turn.agent),
            factor,
            of_agent(advantage, turn.agent),
            None if mask is None else of_agent(mask, turn.agent),
            old,
            torch.randn_like(old[0]) if self.entropy_coeff else None,
        )

    def _measure(self, distribution: Any, known: Surroundings) -> tuple[Tensor, Tensor]:
        """Objective and divergence from the policy before the step, both ``[]``."""
        agent = known.turn.agent
        log_prob = of_agent(distribution.log_prob(known.action), agent)
        gain = (log_prob - known.old_log_prob).exp() * known.factor * known.advantage
        divergence = of_agent(_divergence(known.old, _parameters(distribution)), agent)
        if known.noise is not None:
            entropy = of_agent(entropy_of(distribution, known.noise), agent)
            gain = gain + self.entropy_coeff * entropy
        return masked_mean(gain, known.mask), masked_mean(divergence, known.mask)

    @torch.no_grad()
    def _search(
        self,
        rows: list[Tensor],
        step: Tensor,
        before: Tensor,
        promised: Tensor,
        measure: Callable[[], tuple[Tensor, Tensor]],
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Shorten the step until it is accepted; ``rows`` (parts of the parameters) are changed in place.

        Also whether any length that was tried had a finite objective and divergence, bool ``[]``.
        """
        start = [row.clone() for row in rows]
        steps = step.split([row.numel() for row in rows])
        zero = torch.zeros_like(before)
        measured = torch.zeros_like(before, dtype=torch.bool)
        fraction = 1.0
        for _ in range(self.line_search_steps):
            for row, origin, change in zip(rows, start, steps, strict=True):
                row.copy_(origin + fraction * change.reshape(row.shape))
            objective, divergence = measure()
            improvement = objective - before
            finite = improvement.isfinite() & divergence.isfinite()
            measured = measured | finite
            enough = improvement > self.accept_ratio * fraction * promised
            near = divergence <= self.kl_threshold
            if bool(finite & near & enough & (improvement > 0.0)):
                values = (divergence, zero + 1.0, zero + fraction, improvement, fraction * promised)
                break
            fraction *= self.backtrack
        else:
            for row, origin in zip(rows, start, strict=True):
                row.copy_(origin)
            values = (zero, zero, zero, zero, promised)
        return dict(zip(STEP_METRICS[1:6], values, strict=True)), measured


def _parameters(distribution: Any) -> tuple[Tensor, ...]:
    """Log-probabilities ``[*B, n_agents, n_actions]``, or location and scale ``[*B, n_agents, d_action]``."""
    if hasattr(distribution, "logits"):
        return (distribution.logits,)
    normal = unsquashed(distribution)
    return normal.loc, normal.scale


def _divergence(old: tuple[Tensor, ...], new: tuple[Tensor, ...]) -> Tensor:
    """Divergence ``[*B, n_agents]`` from the old to the new distribution."""
    return categorical_divergence(*old, *new) if len(old) == 1 else gaussian_divergence(*old, *new)
