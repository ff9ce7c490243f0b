"""Bundles that several tests of a session use."""

import pytest
from served import KINDS
from small_policies import RETAIL, small_source

from marl_td.deploy.export import export_policy


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """Makes a bundle of a kind, once."""
    made = {}

    def bundle(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp("bundles") / kind
            algorithm, overrides = KINDS[kind]
            export_policy(small_source(algorithm, *overrides, task=RETAIL), folder)
            made[kind] = folder
        return made[kind]

    return bundle
