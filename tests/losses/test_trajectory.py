"""Values of reached states: without memory, with a stored state, with a memory that is not handed on."""

import pytest
import torch
from small_ppo import GROUP, actor, collected, critic
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torchrl.envs import PettingZooWrapper
from toy_parallel import Toy

from marl_td.losses.trajectory import before_padding, end_of_life, real_steps, trajectory_values

VALUE = (GROUP, "state_value")
KEYS = {"value": VALUE, "done": (GROUP, "done")}


class Accumulator(TensorDictModuleBase):
    """A critic whose value is the sum of all observations since the start: its state is known by hand.

    ``stateful``: keeps the sum at ``"total"``; otherwise every sequence starts from zero.
    """

    def __init__(self, stateful: bool) -> None:
        super().__init__()
        self.stateful = stateful
        self.in_keys = ["is_init", (GROUP, "observation")]
        self.out_keys = [VALUE]

    def forward(self, td):
        x = td.get((GROUP, "observation"))
        sequence = td.batch_dims > 1
        x = x if sequence else x.unsqueeze(1)
        is_init = td.get("is_init") if sequence else td.get("is_init").unsqueeze(1)
        start = td.get("total", None) if self.stateful else None
        total = torch.zeros_like(x[:, 0]) if start is None else (start[:, 0] if sequence else start)
        out = []
        for t in range(x.shape[1]):
            total = torch.where(is_init[:, t].unsqueeze(-1), 0.0, total) + x[:, t]
            out.append(total)
        out = torch.stack(out, 1) if sequence else out[0]
        td.set(VALUE, out)
        return td.set(("next", "total"), out)


def two_episodes(start: float | None = None) -> TensorDict:
    """Observations 1, 2, 3 | 4, 5: the first episode is cut where 10 is seen, the batch where 6 is."""
    observation = torch.tensor([1.0, 2, 3, 4, 5]).reshape(1, 5, 1, 1)
    reached = torch.tensor([2.0, 3, 10, 5, 6]).reshape(1, 5, 1, 1)
    done = torch.tensor([0, 0, 1, 0, 0], dtype=torch.bool).reshape(1, 5, 1)
    is_init = torch.tensor([start is None, 0, 0, 1, 0], dtype=torch.bool).reshape(1, 5, 1)
    following = {GROUP: {"observation": reached, "done": done.unsqueeze(-1)}}
    batch = TensorDict(
        {GROUP: {"observation": observation}, "is_init": is_init, "next": following}, [1, 5]
    )
    if start is not None:
        batch["total"] = torch.full((1, 5, 1, 1), start)
    return batch


def test_without_memory_the_reached_observations_are_valued():
    net = critic()
    batch = collected(actor("discrete"))
    value, next_value = trajectory_values(net, batch, **KEYS)
    assert torch.equal(value, net(batch.clone())[VALUE])
    assert torch.equal(next_value, net(batch["next"].clone())[VALUE])


def test_a_stored_state_makes_every_reached_value_exact():
    batch = two_episodes()
    value, next_value = trajectory_values(Accumulator(True), batch, **KEYS, states=["total"])
    assert value.flatten().tolist() == [1, 3, 6, 4, 9]
    # 16 = 6 + 10: the true history and the state really reached; 15 = 9 + 6 at the end of the batch.
    assert next_value.flatten().tolist() == [3, 6, 16, 9, 15]
    assert batch["total"].flatten().tolist() == [0, 1, 3, 6, 4]
    assert batch["next", "total"].flatten().tolist() == [1, 3, 6, 4, 9]


def test_a_row_starts_from_the_state_it_is_given():
    batch = two_episodes(start=100.0)
    value, next_value = trajectory_values(Accumulator(True), batch, **KEYS, states=["total"])
    assert value.flatten().tolist() == [101, 103, 106, 4, 9]
    assert next_value.flatten().tolist() == [103, 106, 116, 9, 15]
    assert batch["total"].flatten().tolist() == [100, 101, 103, 106, 4]


def test_a_memory_that_is_not_handed_on_is_exact_inside_a_trajectory_only():
    value, next_value = trajectory_values(Accumulator(False), two_episodes(), **KEYS)
    assert value.flatten().tolist() == [1, 3, 6, 4, 9]
    # At the cut: 15 = 2 + 3 + 10, the reached observations as a sequence of their own.
    assert next_value.flatten().tolist() == [3, 6, 15, 9, 11]


def test_padding():
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]], dtype=torch.bool).unsqueeze(-1)
    agents = torch.zeros(2, 3, 2)
    assert real_steps(mask, agents)[..., 1].tolist() == mask.squeeze(-1).tolist()
    assert real_steps(mask, agents[..., 0]).tolist() == mask.squeeze(-1).tolist()
    last = before_padding(mask, agents, 1)
    assert last[..., 0].tolist() == [[False, True, False], [False, False, False]]
    assert not before_padding(None, agents, 1).any()


# ------------------------------------------------------------------------- deaths
MASK, TRUNCATED = (GROUP, "mask"), (GROUP, "truncated")


def lives(before, after, truncated=None):
    """One step of some agents ``[1, n_agents]``."""
    n = len(before)
    reached = {"mask": torch.tensor([after])} if after is not None else {}
    if truncated is not None:
        reached["truncated"] = torch.tensor([truncated]).unsqueeze(-1)
    agents = TensorDict({"mask": torch.tensor([before])}, [1, n])
    return TensorDict({GROUP: agents, "next": {GROUP: TensorDict(reached, [1, n])}}, [1])


@pytest.mark.parametrize(
    ("truncated", "expected"), [(None, [False, True, True]), ([False, True, False], [0, 0, 1])]
)
def test_agents_whose_mask_is_cleared_have_died_unless_they_were_cut_off(truncated, expected):
    batch = lives([True, True, False], [True, False, False], truncated)
    assert end_of_life(batch, MASK, TRUNCATED).tolist() == [list(map(bool, expected))]


def test_nobody_dies_in_data_without_a_mask():
    batch = lives([True], [False])
    assert end_of_life(batch.exclude(MASK), MASK, TRUNCATED) is None


def test_who_lives_after_each_step_must_be_in_the_data_and_be_readable():
    with pytest.raises(KeyError, match=r"next.*mask"):
        end_of_life(lives([True], None), MASK, TRUNCATED)
    with pytest.raises(TypeError, match="must be bool"):
        end_of_life(lives([True], [1.0]), MASK, TRUNCATED)
    with pytest.raises(ValueError, match=r"must be \[\*B, n_agents\]"):
        end_of_life(lives([True], [[True]]), MASK, TRUNCATED)


@pytest.mark.filterwarnings("ignore:PettingZoo in TorchRL is tested using version:UserWarning")
def test_the_time_limit_of_torchrls_pettingzoo_environments_kills_nobody():
    """They clear the mask of everybody whose episode ends. Here one cat dies in the second of four steps."""
    env = PettingZooWrapper(
        Toy(ends={"cat_1": (2, "terminated")}), use_mask=True, done_on_any=False
    )
    steps = env.rollout(9)
    assert not steps["next", "cat", "mask"][-1].any() and steps["next", "truncated"][-1]
    died = end_of_life(steps, ("cat", "mask"), ("cat", "truncated"))
    died |= steps["next", "cat", "terminated"].squeeze(-1)  # as losses do
    assert died.T.tolist() == [[False] * 4, [False, True, True, True]]
