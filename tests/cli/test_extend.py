"""The page on tasks and algorithms of one's own: its module is trained, judged and continued as it stands."""

import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from own_names import forgotten
from short_runs import SHORT_PAGE

from marl_td.cli import main
from marl_td.tasks import make_env
from marl_td.training.experiment import Experiment
from marl_td.training.trained import load_run

PAGE = (Path(__file__).parents[2] / "docs/extend.md").read_text()
MODULE, PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(ENTRY_POINT,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
LIST, BASELINES, TRAIN, EVALUATE, RESUME = (
    shlex.split(line)[1:]
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
)
FUNCTION = '''"""Robots in an arena."""
from marl_td.benchmarl_tasks import FunctionTask
from marl_td.extend import register_task
from marl_td.tasks import make_env

def arena(n_envs, continuous, seed, device):
    """An arena with two robots. It is round."""
    return make_env("matrix_game", n_envs, seed=seed, continuous=continuous, device=device)

task = FunctionTask("retail", arena, max_steps=3, continuous=False, discrete=True)
register_task("acme/arena", task)
'''


@contextmanager
def modules_in(folder):
    """The page's module and another one in the current folder; both are forgotten after, with all names."""
    (folder / "meeting_task.py").write_text(MODULE)
    (folder / "arena.py").write_text(FUNCTION)
    with pytest.MonkeyPatch.context() as patch, forgotten("meeting_task", "arena"):
        patch.chdir(folder)
        patch.setattr(sys, "path", [entry for entry in sys.path if entry])
        yield folder


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with the modules and the run of the page's command, as the current one."""
    with modules_in(tmp_path_factory.mktemp("extend")) as folder:
        words = [word for word in TRAIN if not word.startswith("experiment.")]
        assert main([*words, *SHORT_PAGE, "--no-progress", "--episodes", "4"]) == 0
        yield folder


def test_the_page_s_run_is_judged_beside_the_task_s_own_policy(here, capsys):
    assert main([*EVALUATE, "--episodes", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["task"] == "acme/meeting" and found["algorithm"] == "acme/weighted_vdn"
    assert [row["policy"] for row in found["rows"]] == ["random", "middle"]


def test_the_page_s_run_goes_on(here):
    words = [word for word in RESUME if not word.startswith("experiment.")]
    more = "experiment.max_n_frames=120"
    assert main([*words, more, "--no-report", "--no-progress"]) == 0
    assert (here / "runs/meeting/run.log").read_text().endswith("resumed exactly\n")


def test_the_page_s_python(here):
    found = {}
    exec(PYTHON, found)
    assert found["env"].batch_size == (64,) and found["run"].settings.task == "acme/meeting"
    assert found["env"].task.params.n_agents == found["run"].env.task.params.n_agents == 4


def test_names_are_listed_with_what_they_are(here, capsys):
    lines = {}
    for kind in ("tasks", "algorithms", "levels"):
        assert main(["list", kind, *LIST[2:]]) == 0
        lines[kind] = capsys.readouterr().out.splitlines()
    assert any(
        re.match(r"acme/meeting +discrete  Robots on a line earn -1", line)
        for line in lines["tasks"]
    )
    told = "Weighted VDN: Q-learning on a weighted sum of the agents' values"
    assert any(
        line.startswith("acme/weighted_vdn") and told in line for line in lines["algorithms"]
    )
    assert not any(line.startswith("iddpg") for line in lines["algorithms"])  # BenchMARL's
    hard = r"acme/meeting_hard +acme/meeting +task.n_cells=31 task.max_steps=60"
    assert any(re.fullmatch(hard, line.replace("  ", "  ").strip()) for line in lines["levels"])


def test_a_level_of_it_is_a_level_and_belongs_to_it(here, capsys):
    assert main([*BASELINES, "--episodes", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"][0]["value"] < -30  # within 60 steps instead of 30
    other = [*BASELINES[:3], "task=marl_td/retail", *BASELINES[4:]]
    assert main(other) == 2
    assert "level 'acme/meeting_hard' is one of task 'acme/meeting'" in capsys.readouterr().err


def test_its_own_ranges_are_checked_in_its_own_words(here, capsys):
    assert main([*BASELINES[:4], "task.n_cells=1"]) == 2
    assert capsys.readouterr().err == "marl-td: error: n_cells must be at least 2; got 1.\n"


def test_a_mixer_of_one_s_own_plays_payoff_tables(here, capsys):
    words = ["--payoff", "[[1,0],[0,3]]", "--seeds", "1", "--json"]
    assert main(["game", *LIST[2:], "--algorithm", "acme/weighted_vdn", *words]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["greedy_payoff"] == 3


def test_a_function_s_environment_is_trained_judged_exported_and_continued(here, capsys):
    train = ["train", "--import", "arena", "--out", "fun", "task=acme/arena", "task.max_steps=1"]
    assert main([*train, "algorithm=marl_td/vdn", *SHORT_PAGE, "--no-progress", "--no-report"]) == 0
    assert main(["evaluate", "fun", "--import", "arena", "--episodes", "2", "--json"]) == 0
    assert (
        json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))["task"]
        == "acme/arena"
    )
    assert main(["export", "fun", "--import", "arena", "--out", "bundle"]) == 0
    resumed = Experiment.resume("fun", {"max_n_frames": 120})
    assert resumed.task.config == {"max_steps": 1} and resumed.total_frames == 80
    resumed.run()
    assert main(["list", "tasks", "--import", "arena"]) == 0
    assert re.search(r"acme/arena +discrete  An arena with two robots\n", capsys.readouterr().out)


def test_nothing_is_imported_because_a_file_names_it(here, capsys):
    with forgotten("meeting_task", "arena"):
        assert main(["evaluate", "runs/meeting"]) == 2
        error = capsys.readouterr().err
        assert (
            "names the task 'acme/meeting', which is in no registry. If it is yours, import"
            in error
        )
        assert "`--import package.module`" in error and error.count("\n") == 1
        with pytest.raises(ValueError, match="'acme/meeting', which is in no registry"):
            load_run("runs/meeting", 1)
        with pytest.raises(ValueError, match="unknown task 'acme/meeting'"):
            make_env("acme/meeting", 2)
        assert "meeting_task" not in sys.modules
        for words in ([], ["--import", "meeting_task"]):  # nothing of the failures stays
            assert main(["evaluate", "runs/meeting", "--episodes", "2", *words]) == 2 * (not words)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("meetin", "--import 'meetin': there is no module 'meetin' in the current folder"),
        (
            "meeting_task.py",
            "--import 'meeting_task.py' is not a module's name; write it as in Python",
        ),
        (
            "broken",
            "--import 'broken': importing 'broken' failed: KeyError: 'x' (broken.py, line 1).",
        ),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(module, message, here, capsys):
    (here / "broken.py").write_text("{}['x']\n")
    assert main(["list", "tasks", "--import", module]) == 2
    assert message in capsys.readouterr().err


def test_a_misspelt_name_of_one_s_own_gets_a_suggestion(here, capsys):
    assert main(["baselines", "--import", "meeting_task", "task=acme/meting"]) == 2
    assert "unknown task 'acme/meting'. Did you mean 'acme/meeting'?" in capsys.readouterr().err
    assert main(["baselines", "task=other/meting"]) == 2
    assert "If it is yours, import the module that registers it" in capsys.readouterr().err


def test_benchmarl_finds_it_by_an_entry_point(tmp_path):
    (tmp_path / "meeting_task.py").write_text(MODULE)
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    group = re.search(r'entry-points\.(\w+)\]\n(\w+) = "(\w+)"', ENTRY_POINT).groups()
    points = "[{}]\n{} = {}\nbroken = broken\n".format(*group)
    (info / "entry_points.txt").write_text(points)
    (tmp_path / "broken.py").write_text("{}['x']\n")
    small = [word for word in SHORT_PAGE if "compile" not in word]
    quiet = ["experiment.loggers=[]", "experiment.render=false", "experiment.create_json=false"]
    command = ["algorithm=acme/weighted_vdn", "task=acme/meeting", *small, *quiet]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarl.run", *command],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Algorithm: acme/weighted_vdn, Task: acme/meeting" in done.stdout
    assert "the plug-in 'broken' (broken) of marl_td failed" in done.stderr
    assert "TaskConfig" not in done.stderr  # BenchMARL found the dataclass of its settings


def test_output_that_nobody_reads_is_no_error():
    program = "import sys; from marl_td.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "list", "presets"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait(120) == 141
