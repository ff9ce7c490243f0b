"""Batches of sequences have a row for each: ``[*B, T]``."""

import pytest
import small_ddpg
from small_qmix import make_episodes, recurrent_loss


def test_flattened_episodes_are_not_taken_for_one():
    batch = make_episodes()
    with pytest.raises(
        ValueError, match=r"must be batches \[\*B, T\].*; got \[24\]. Do not flatten"
    ):
        recurrent_loss()(batch.reshape(-1))
    # What the message says to do with a single one.
    recurrent_loss()(batch[0].unsqueeze(0))


def test_flattened_sequences_of_actors_and_critics_are_not_taken_for_one():
    loss = small_ddpg.make_loss(recurrent=True)
    batch = small_ddpg.make_batch({"agents": 2}, shape=(4, 6))
    loss(batch.clone())
    with pytest.raises(ValueError, match=r"\[\*B, T\].*; got \[24\]"):
        loss(batch.reshape(-1))
