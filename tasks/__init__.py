"""Batched tasks: pure functions over tensors, one TorchRL environment for all, and adapters.

>>> from marl_td.tasks import make_env
>>> env = make_env("matrix_game", n_envs=4)
>>> env.rollout(1)["next", "agents", "reward"].shape
torch.Size([4, 1, 2, 1])
"""

from marl_td.tasks.base import Optimum, Task
from marl_td.tasks.registry import TASKS, make_env, make_task, task_class
from marl_td.tasks.vector_env import VectorEnv

__all__ = ["TASKS", "Optimum", "Task", "VectorEnv", "make_env", "make_task", "task_class"]
