"""Multi-agent deep deterministic policy gradient: the loss of MADDPG, and of IDDPG with independent critics."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.objectives.utils import distance_loss

from marl_td.losses.common import masked_mean, MultiAgentLoss, next_key, read, require, run
from marl_td.losses.functional.checks import check_fraction
from marl_td.losses.functional.deterministic import joint_action_rows
from marl_td.losses.functional.returns import one_step_target
from marl_td.losses.group_actor import GroupActor
from marl_td.losses.targets import FrozenView, target_copy

LOSS_FUNCTIONS = ("l2", "l1", "smooth_l1")
ACTOR_GRADIENTS = ("own", "all")


class MADDPGLoss(MultiAgentLoss):
    """DDPG for a group of agents with central critics (Lowe et al. 2017, https://arxiv.org/abs/1706.02275).

        y_i        = r_i + gamma (1 - terminated_i) Q_i^-(x', mu_1^-(o_1'), .., mu_N^-(o_N'))
        loss_value = mean_i (Q_i(x, u_1, .., u_N) - y_i)^2
        loss_actor = -mean_i Q_i(x, u_1, .., mu_i(o_i), .., u_N) + c mean(parameter^2)

    x is what the critic reads of the batch, u the actions in the batch; the N agents are those of *all* groups in
    the critic's scope. An agent's death ends its return: steps after it do not count, and nothing is
    bootstrapped from them.

    Args:
        actor: actor of this loss's group.
        critic: reads x and the ``joint_action`` key ``[*B, n_agents, D]`` (row i for agent i, made by this
            loss) and writes the ``action_value`` key ``[*B, n_agents, 1]``.
        gamma: discount in [0, 1].
        loss_function: ``"l2"``, ``"l1"`` or ``"smooth_l1"``.
        actor_gradient: ``"own"`` takes all others' actions from the batch (the paper); ``"all"`` takes the new
            actions of the whole group, so that each critic teaches every actor of the group (the central
            policy gradient of FACMAC, and what BenchMARL does).
        central: whether critics take the joint action, or their own agent's action only (IDDPG).
        regularisation_coef: c, >= 0; the reference code takes 1e-3.
        target_actors: target actors of every group in the critic's order, this group's own included; losses of
            competing groups are given the *same* mapping. Each loss owns, saves and moves only its own group's
            target actor, and sees what the others have done. None: this group is alone.
        recurrent: whether batches are sequences ``[*B, T]`` for recurrent networks.

    Reads (defaults): ``("next", ("agents", "reward" | "terminated"))`` ``[*B, n_agents, 1]``, the actions, what the
    networks read; with several groups everything of group g is under ``("joint", g)``. If present: alive mask
    ``mask`` ``[*B, n_agents]``, importance weight ``priority_weight`` ``[*B]``.

    Writes ``loss_actor``, ``loss_value`` and metrics ``td_error`` (mean absolute), ``pred_value``,
    ``target_value``, ``pred_value_max``, ``target_value_max``, ``parameter_square``, ``entropy`` (discrete only);
    :meth:`forward` also writes the absolute error per agent to the batch's ``priority`` key.

    Raises:
        ValueError: for an unknown option, a number out of range, or ``target_actors`` without this group.
    """

    @dataclass
    class _AcceptedKeys:
        action_value: NestedKey = ("agents", "chosen_action_value")
        joint_action: NestedKey = ("agents", "joint_action")
        reward: NestedKey = ("agents", "reward")
        terminated: NestedKey = ("agents", "terminated")
        mask: NestedKey = ("agents", "mask")
        priority: NestedKey = ("agents", "td_error")
        priority_weight: NestedKey = "priority_weight"
        joint: NestedKey = "joint"

    out_keys = [
        "loss_actor",
        "loss_value",
        "td_error",
        "pred_value",
        "target_value",
        "pred_value_max",
        "target_value_max",
        "parameter_square",
    ]

    def __init__(
        self,
        actor: GroupActor,
        critic: TensorDictModuleBase,
        *,
        gamma: float = 0.95,
        loss_function: Literal["l2", "l1", "smooth_l1"] = "l2",
        actor_gradient: Literal["own", "all"] = "own",
        central: bool = True,
        regularisation_coef: float = 0.0,
        target_actors: Mapping[str, GroupActor] | None = None,
        recurrent: bool = False,
    ) -> None:
        super().__init__()
