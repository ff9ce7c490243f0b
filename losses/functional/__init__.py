"""The mathematics of the losses as pure, batched torch functions."""
