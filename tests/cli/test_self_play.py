"""The pages on competing teams: their runs, cross-play and exploitability, with short runs."""

import re

import pytest
from page_runs import blocks, commands, replaced, shortened

from marl_td.cli import main

PAGE, TAG = "docs/self_play.md", "docs/tasks/simple_tag.md"
CROSS, EXPLOIT, _ = blocks(PAGE, "python")
(JUDGE,) = blocks(TAG, "python")

pytestmark = pytest.mark.filterwarnings(
    "ignore:The default behavior of TransformedEnv:FutureWarning"  # BenchMARL wraps twice
)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with the page's two runs, as the current one."""
    folder = tmp_path_factory.mktemp("competing")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in commands(PAGE):
            assert main(shortened(command, "--no-report")) == 0
        yield folder


def test_both_pages_make_the_same_runs():
    assert commands(TAG) == commands(PAGE)


def test_everybody_meets_everybody(here, capsys):
    exec(replaced(CROSS, {"256": "2"}), {})
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if " chases " in line]) == 16
    assert lines[-1].startswith("agent {'")


def test_the_task_s_page_judges_teams(here, capsys):
    exec(replaced(JUDGE, {"n_episodes=64": "n_episodes=2"}), {})
    assert re.match(r"\{'mappo': [\d.]+, 'qmix': ", capsys.readouterr().out)


def test_fresh_learners_answer_the_run(here, capsys):
    exec(replaced(EXPLOIT, {"max_n_frames=240_000": "max_n_frames=60, n_episodes=2"}), {})
    lines = [line for line in capsys.readouterr().out.splitlines() if "fresh learner" in line]
    assert [line.split(":")[0] for line in lines] == ["adversary", "agent"]
