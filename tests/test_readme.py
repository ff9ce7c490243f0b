"""Python examples of the README, of own training code and of the command line's page run as they stand."""

import re

import pytest
from page_runs import blocks, python

PAGES = ("README.md", "docs/own_training.md", "docs/cli.md")
EXAMPLES = [example for page in PAGES for example in blocks(page, "python")]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_runs(number, tmp_path):
    code = EXAMPLES[number].replace("12_000", "300").replace("20_480", "2_048")
    if "mpe2" in code:
        pytest.importorskip("mpe2")
        code = code.replace("config.loggers,", SMALL + "config.loggers,")
    assert re.search(r"mean return: -?\d", python(tmp_path, "-c", code))


SMALL = """config.on_policy_collected_frames_per_batch = 300
config.on_policy_minibatch_size = 300
config.on_policy_n_minibatch_iters = 1
config.evaluation = False
"""
