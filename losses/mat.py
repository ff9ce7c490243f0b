"""PPO of a policy and a value that share their first layers: the loss of the multi-agent transformer."""

from typing import Any, ClassVar

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase, TensorDictSequential
from torch import Tensor

from marl_td.losses.arguments import check_modules
from marl_td.losses.ppo import MAPPOLoss


class MatLoss(MAPPOLoss):
    """MAPPO's two losses as one, since both train the layers that actor and critic share.

        loss_objective = policy loss + critic_coeff * value loss

    (Wen et al. 2022, https://arxiv.org/abs/2205.14953, eqs. 5 and 6.) One optimiser trains everything, on one
    graph. The shared layers are run once.

    Args:
        trunk: the shared layers.
        actor: reads what the trunk writes, and the actions that are to be scored.
        critic: reads what the trunk writes; writes the ``value`` key ``[*B, n_agents, 1]``.
        options: as for :class:`marl_td.losses.ppo.MAPPOLoss`.

    Writes ``loss_objective``, MAPPO's metrics and ``value_loss``, the weighted part of the values.
    """

    out_keys: ClassVar[list[str]] = [
        "loss_objective",
        "value_loss",
        "entropy",
        "kl_approx",
        "clip_fraction",
        "explained_variance",
    ]

    def __init__(
        self,
        trunk: TensorDictModuleBase,
        actor: Any,
        critic: TensorDictModuleBase,
        **options: Any,
    ) -> None:
        super().__init__(actor, critic, **options)
        check_modules(trunk=trunk)
        self.trunk = trunk
        self.__dict__["_whole_critic"] = TensorDictSequential(trunk, critic)  # a view

    @property
    def whole_critic(self) -> TensorDictModuleBase:
        """Trunk and critic."""
        return self._whole_critic

    def compute(self, tensordict: TensorDictBase) -> dict[str, Tensor]:
        """Loss and metrics from a minibatch ``[*B]``."""
        values = super().compute(self.trunk(tensordict.copy()))
        value_loss = values.pop("loss_critic")
        total = values.pop("loss_objective") + value_loss
        return {"loss_objective": total, "value_loss": value_loss.detach(), **values}
