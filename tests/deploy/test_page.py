"""The commands and the code of the page on policies outside of training run as they stand there."""

import re
import shlex

import pytest
from source_tree import ROOT

from marl_td.cli import main

PAGE = (ROOT / "docs" / "deploy.md").read_text()
TRAIN, EXPORT = (
    shlex.split(line) for line in re.search(r"```bash\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()
)
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SMALL = (
    "experiment.max_n_frames=40",
    "experiment.off_policy_n_envs_per_worker=2",
    "experiment.off_policy_collected_frames_per_batch=40",
    "experiment.off_policy_init_random_frames=0",
    "experiment.off_policy_n_optimizer_steps=1",
    "experiment.off_policy_train_batch_size=8",
    "experiment.evaluation_interval=40",
    "experiment.evaluation_episodes=2",
    "experiment.compile=off",
)


def test_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [word for word in TRAIN[1:] if not word.startswith("experiment.")]
    assert main([*words, *SMALL, "--no-progress", "--episodes", "2"]) == 0
    assert main(EXPORT[1:]) == 0
    assert "CC-BY-4.0" in (tmp_path / "bundle" / "README.md").read_text()
    assert len(CODE) == 2
    names: dict[str, object] = {}
    for block in CODE:
        exec(block.replace("range(32)", "range(1)").replace("/ 32", "/ 1"), names)
    assert re.search(r"mean return: -\d", capsys.readouterr().out)


def test_the_page_names_what_is_in_a_bundle():
    from marl_td.deploy import format as layout

    files = (layout.MANIFEST, layout.SIGNATURE, layout.CONFIG, layout.EVALUATION, layout.GOLDEN)
    for name in (*files, layout.CARD, "actors/NAME.onnx"):
        assert f"`{name}`" in PAGE, name


@pytest.mark.parametrize("option", ["--sample", "--licence", "--overwrite", "--env", "--json"])
def test_the_command_line_page_has_the_options(option):
    text = (ROOT / "docs" / "cli.md").read_text()
    assert option in text[text.index("## export") : text.index("## baselines")]
