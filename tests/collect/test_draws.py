"""Random draws in compiled rollouts are those of uncompiled steps, however many there are in a step."""

import pytest
import torch
from hunting import HIDDEN, N_ENVS, N_STEPS, make_policy, make_transforms
from torchrl.envs import TransformedEnv
from toy_tasks import Hunt, HuntParams

from marl_td.collect.chunk import Chunk
from marl_td.collect.collector import CompiledCollector
from marl_td.tasks.vector_env import VectorEnv

KEYS = [("hunter", "action"), ("hunter", "log_prob"), ("prey", "action"), HIDDEN, "state"]


def rollouts(policy, compiled):
    """Two batches of drawn actions of both groups, by Inductor or step by step."""
    env = TransformedEnv(VectorEnv(Hunt(HuntParams()), N_ENVS), make_transforms())
    collector = CompiledCollector(env, policy, frames_per_batch=N_ENVS * N_STEPS)
    if not compiled:
        collector.starts.fixed = True
        collector._compiled = Chunk(collector.bookkeeping, policy, collector.starts.number)
    torch.manual_seed(5)
    return torch.cat([collector.rollout() for _ in range(2)], 1)


@pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="the rule is for torch 2.13")
def test_two_groups_draw_as_they_do_uncompiled():
    policy = make_policy()
    found, expected = (rollouts(policy, compiled) for compiled in (True, False))
    assert expected["next", "done"].any() and len(expected["hunter", "action"].unique()) == 3
    for key in KEYS:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-5, atol=1e-5)
