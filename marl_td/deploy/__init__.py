"""Policies outside of training: bundles of decentralised actors, and what acts with them.

:func:`load` and :func:`load_bundle` need numpy and onnxruntime only: no torch is imported. Bundles are
written by :mod:`marl_td.deploy.export`, which does need torch.
"""

from marl_td.deploy.format import BundleError
from marl_td.deploy.runtime import Bundle, Policy, load, load_bundle
from marl_td.deploy.validate import InputError

__all__ = ["Bundle", "BundleError", "InputError", "Policy", "load", "load_bundle"]
