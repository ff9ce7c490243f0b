"""Multi-agent reinforcement learning components for PyTorch, TorchRL, TensorDict and BenchMARL.

Importing this package is cheap: it loads no torch. Import what you need from its parts, for
example `from marl_td.losses import ...` or `from marl_td.tasks import ...`.
"""

__version__ = "0.1.0"

__all__ = ["__version__", "register"]


def register() -> None:
    """Make every algorithm, model and task of this package known to BenchMARL and Hydra.

    Safe to call many times. The Hydra plugin calls it for `python -m benchmarl.run`, and the
    sub-packages that BenchMARL loads call it too, so user code seldom has to.
    """
    from marl_td.registry import register as register_all

    register_all()
