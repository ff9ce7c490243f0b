"""Networks: what BenchMARL and TorchRL do not have."""
