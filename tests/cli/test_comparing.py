"""The page on comparisons: its loop over runs, and its table and picture."""

import itertools
import re
import shlex

import pytest
from page_runs import SHORT, blocks, python, shortened

from marl_td.cli import main

PAGE = "docs/comparing.md"
LOOP, MULTIRUN = blocks(PAGE, "bash")
(PICTURE,) = blocks(PAGE, "python")


def test_the_page_s_runs_become_a_table_and_a_picture(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    loops = dict(re.findall(r"for (\w+) in (.+); do", LOOP))
    assert {name: len(values.split()) for name, values in loops.items()} == {
        "level": 2,
        "algorithm": 3,
        "seed": 3,
    }
    (command,) = re.findall(r"marl-td train .*", LOOP)
    some = {"level": 1, "algorithm": 2, "seed": 2}
    chosen = [values.split()[: some[name]] for name, values in loops.items()]
    for values in itertools.product(*chosen):
        words = command
        for name, value in zip(loops, values, strict=True):
            words = words.replace(f"${name}", value)
        assert main(shortened(words, "--episodes", "2")) == 0
    capsys.readouterr()
    exec(PICTURE, {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["pursuit_easy iql", "pursuit_easy vdn"]
    assert (tmp_path / "compare.png").stat().st_size > 10_000
    assert (
        main(["train", "--out", "x", "algorithm=marl_td/iql,marl_td/vdn", "level=pursuit_easy"])
        == 2
    )


def test_unchanged_benchmarl_runs_the_same_names_after_one_another(tmp_path):
    (command,) = [line for line in MULTIRUN.splitlines() if line.startswith("python ")]
    small = [f"{name}={value}" for name, value in SHORT.items() if not name.endswith("compile")]
    python(tmp_path, *shlex.split(command)[1:], *small, "experiment.render=false")
    runs = [folder.parent for folder in tmp_path.glob("multirun/*/*/*/run.log")]
    assert len(runs) == 6 and all(
        list(run.glob("*/*/*.json")) or list(run.glob("*/*.json")) for run in runs
    )
