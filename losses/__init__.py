"""TorchRL loss modules; their mathematics is in `marl_td.losses.functional`."""
