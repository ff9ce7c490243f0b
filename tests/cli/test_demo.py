"""The demo: two processes, followed, summarised; a failure is told."""

import sys
import time

import pytest

from marl_td.cli import demo, main
from marl_td.training.metrics import MetricsFile

FAKE = """
import pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
(folder / "report").mkdir(parents=True)
(folder / "report" / "report.md").write_text(f"# {folder.name}\\n\\n![report](report.png)\\n")
print(f"table of {folder.name}\\n\\n  {folder}/config.yaml  all settings")
"""


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Replaces training by a script; returns what was started."""
    started = []
    popen = demo.subprocess.Popen

    def start(command, **options):
        started.append((command, options))
        script = tmp_path / "fake.py"
        return popen([sys.executable, str(script), *command[3:]], **options)

    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(demo.subprocess, "Popen", start)
    monkeypatch.setattr(demo, "POLL_SECONDS", 0.05)
    return started


def test_both_runs_are_started_and_summarised(fake, tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "demo"), "--no-progress"]) == 0
    commands = [" ".join(command) for command, _ in fake]
    assert "preset=retail_maddpg" in commands[0]
    assert "preset=banking_mappo" in commands[1]
    assert all(options["env"]["OMP_NUM_THREADS"] == "1" for _, options in fake)
    out = capsys.readouterr().out
    assert out.index("table of retail") < out.index("table of banking")
    assert "all settings" not in out
    page = (tmp_path / "demo" / "demo.md").read_text()
    assert "(retail/report/report.png)" in page
    assert "(banking/report/report.png)" in page


def test_a_failing_run_is_told_and_the_other_one_stopped(fake, tmp_path, capsys):
    script = "import sys, time\nif 'retail' in ' '.join(sys.argv): sys.exit('marl-td: error: no space')\n"
    (tmp_path / "fake.py").write_text(script + "time.sleep(60)\n")
    start = time.monotonic()
    assert main(["demo", "--out", str(tmp_path / "demo"), "--no-progress"]) == 1
    assert time.monotonic() - start < 30
    err = capsys.readouterr().err
    assert "retail failed: marl-td: error: no space" in err
    assert "banking" not in err  # it was stopped, it did not fail


def test_progress_is_read_from_the_run_folder(tmp_path):
    assert demo._state(tmp_path) == (0, 1, "starting")
    (tmp_path / "config.yaml").write_text("experiment_config:\n  max_n_frames: 100\n")
    file = MetricsFile(tmp_path / "metrics.csv")
    file.write({"counters/total_frames": 20})
    assert demo._state(tmp_path) == (20, 100, "training")
    file.write({"counters/total_frames": 40, "eval/score_mean": 3.25})
    assert demo._state(tmp_path) == (40, 100, "score 3.25")


@pytest.mark.parametrize("preset", demo.RUNS.values())
def test_presets_of_the_demo_compose(preset):
    from marl_td.training.compose import compose

    settings = compose([f"preset={preset}", *demo.QUICK])
    assert settings.experiment_config.max_n_iters == 2


@pytest.mark.slow
def test_the_whole_demo_quickly(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path), "--quick", "--no-progress"]) == 0
    out = capsys.readouterr().out
    assert "learned (maddpg)" in out
    assert "learned (mappo)" in out
    for name in demo.RUNS:
        assert (tmp_path / name / "report" / "report.png").exists()
