"""The page on environments of one's own: its code is trained, judged and continued as it stands."""

import json
import re
import shlex
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from page_runs import python
from short_runs import SHORT_PAGE

from marl_td.cli import main
from marl_td.training.experiment import Experiment
from marl_td.training.settings import RunSettings

PAGE = (Path(__file__).parents[2] / "docs/own_environments.md").read_text()
CODE = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
TRAIN, EVALUATE, BENCHMARL = (
    shlex.split(line)
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
)
SMALL = (
    *SHORT_PAGE,
    "experiment.on_policy_n_envs_per_worker=2",
    "experiment.on_policy_collected_frames_per_batch=40",
    "experiment.on_policy_minibatch_size=40",
    "experiment.on_policy_n_minibatch_iters=1",
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder of its own with the modules, as the current one."""
    with modules_in(tmp_path):
        yield tmp_path


@contextmanager
def modules_in(folder):
    """The page's module and ours in the current folder; what is imported is forgotten after."""
    (folder / "meeting.py").write_text(CODE)
    (folder / "zoo.py").write_text(ZOO)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [entry for entry in sys.path if entry])
        try:
            yield
        finally:
            forget()


def forget():
    for name in ("meeting", "zoo"):
        sys.modules.pop(name, None)


def shortened(command):
    """A command of the page as arguments of `main`, small and quiet."""
    settings = dict(word.split("=", 1) for word in (*command, *SMALL) if "=" in word)
    words = [word for word in command[1:] if "=" not in word]
    return [*words, *(f"{name}={value}" for name, value in settings.items()), "--no-progress"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    with modules_in(folder):
        assert main([*shortened(TRAIN), "--episodes", "4"]) == 0
    return folder / "runs"


@pytest.fixture
def run(trained, here):
    """The run of the page's command, to do with as one likes."""
    shutil.copytree(trained, here / "runs")
    return here / "runs" / "meeting"


def test_the_environment_is_written_in_about_30_lines():
    body = CODE[CODE.index("class Meeting") :].splitlines()
    assert len([line for line in body if line.strip()]) <= 32


def test_the_commands_of_the_page_train_and_evaluate(run, capsys):
    assert (run / "report" / "report.md").exists()
    assert main([*EVALUATE[1:], "--episodes", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["task"] == "marl_td/pettingzoo (meeting:Meeting)"
    assert -30 <= found["return"]["value"] <= 0 and found["episodes"] == 4
    assert [row["policy"] for row in found["rows"]] == ["random"]


def test_no_code_is_imported_because_a_file_names_it(run, capsys):
    forget()
    assert main(["evaluate", str(run)]) == 2
    error = capsys.readouterr().err
    assert (
        "on an environment of its user's, 'meeting:Meeting' with the arguments {}. No code" in error
    )
    assert "`--env package.module:function`" in error and error.count("\n") == 1
    (checkpoint,) = (run / "checkpoints").glob("checkpoint_*")
    with pytest.raises(ValueError, match="No code is imported because a file names it"):
        Experiment.reload_from_file(str(checkpoint))
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("meeting:Meeting", "zoo:Dying"))
    assert RunSettings.load(run / "config.yaml", env="meeting:Meeting").task_config.config[
        "env"
    ] == ("meeting:Meeting")
    assert "meeting" not in sys.modules and "zoo" not in sys.modules
    assert main([*EVALUATE[1:], "--episodes", "2"]) == 0  # the user's path, not the file's
    assert "zoo" not in sys.modules


def test_a_run_is_exported_when_its_environment_is_named_again(run, here, capsys):
    forget()
    command = ["export", str(run), "--out", str(here / "bundle")]
    assert main(command) == 2
    assert "No code is imported because a file names it" in capsys.readouterr().err
    assert main([*command, "--env", "meeting:Meeting", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert all(max(found.values()) <= 1e-5 for found in data["max_difference"].values())


def test_a_run_goes_on_when_its_environment_is_named_again(run):
    (checkpoint,) = (run / "checkpoints").glob("checkpoint_*")
    again = Experiment.reload_from_file(str(checkpoint), {"max_n_frames": 120}, "meeting:Meeting")
    assert again.total_frames == 80
    again.run()
    assert again.total_frames == 120


def test_a_path_for_a_run_that_needs_none_is_refused(here, capsys):
    folder = str(here / "game")
    task = ["algorithm=marl_td/qmix", "task=marl_td/matrix_game"]
    assert main(["train", "--out", folder, "--no-report", "--no-progress", *task, *SMALL]) == 0
    capsys.readouterr()
    assert main(["evaluate", folder, "--env", "meeting:Meeting"]) == 2
    assert "'marl_td/matrix_game', which takes no import path" in capsys.readouterr().err
    assert "meeting" not in sys.modules


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["task.env=metting:Meeting"], "there is no module 'metting' in the current folder"),
        (["task.env=meeting:Metting"], "'meeting' has no 'Metting'. Did you mean 'Meeting'?"),
        (["task.env=meeting:np"], "is of type module, not a function or class that builds"),
        (["task.env=zoo:number"], "zoo:number() gave a builtins.int, not a PettingZoo environment"),
        (
            ["task.options.n_robot=3"],
            "'meeting:Meeting' takes no 'n_robot'. Did you mean 'n_robots",
        ),
        (["task.env="], "no environment was given in task.env"),
        (["task.groups=kinds"], "groups must be 'name', 'spaces', 'all', 'each' or a mapping"),
        (["algorithm=maddpg"], "task 'marl_td/pettingzoo' has discrete ones only"),
        (
            ["task.env=zoo:Dying", "task.options.mixed=true", "algorithm=marl_td/qmix"],
            "'marl_td/qmix' learns discrete actions, but task 'marl_td/pettingzoo' has continuous and",
        ),
    ],
)
def test_bad_settings_are_one_sentence(settings, message, capsys):
    arguments = dict(word.split("=", 1) for word in (*shortened(TRAIN), *settings) if "=" in word)
    words = [f"{name}={value}" for name, value in arguments.items()]
    assert main(["train", "--out", "bad", "--no-progress", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


# ---------------------------------------------------------------------- many kinds of environment
ZOO = '''
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv


def number():
    return 3


class Dying(ParallelEnv):
    """Agents leave one after the other; what they see and do is set by the arguments."""

    metadata = {"name": "dying"}

    def __init__(self, see="vector", act="discrete", mixed=False, n_agents=3):
        self.possible_agents = [f"agent_{i}" for i in range(n_agents)]
        vector = spaces.Box(-1, 1, (4,))
        picture = spaces.Box(0, 255, (20, 24, 3), dtype=np.uint8)
        mask = spaces.Box(0, 1, (3,), dtype=np.int8)
        self.masked = see == "masked"
        self.see = {
            "vector": vector,
            "picture": picture,
            "dict": spaces.Dict(eye=picture, way=vector, kind=spaces.Discrete(3)),
            "masked": spaces.Dict(observation=vector, action_mask=mask),
        }[see]
        self.act = {
            "discrete": spaces.Discrete(3),
            "continuous": spaces.Box(-1, 1, (2,)),
            "multi": spaces.MultiDiscrete([2, 3]),
        }
        self.acts = dict.fromkeys(self.possible_agents, self.act[act])
        if mixed:
            self.acts["agent_0"] = self.act["continuous"]

    def observation_space(self, agent):
        return self.see

    def action_space(self, agent):
        return self.acts[agent]

    def seen(self, agents):
        seen = {agent: self.see.sample() for agent in agents}
        for value in seen.values() if self.masked else ():
            value["action_mask"][:] = [0, 1, 1]
        return seen

    def reset(self, seed=None, options=None):
        self.agents, self.steps = self.possible_agents[:], 0
        return self.seen(self.agents), {agent: {} for agent in self.agents}

    def step(self, actions):
        agents, self.steps = self.agents, self.steps + 1
        for agent, action in actions.items():
            if not self.acts[agent].contains(action):
                raise RuntimeError(f"{agent} did {action}")
        if set(actions) != set(agents):
            raise RuntimeError(f"{set(actions)} acted, {agents} are there")
        if self.masked and any(action == 0 for action in actions.values()):
            raise RuntimeError("an action that is not available")
        dead = {agent: self.steps > 2 * i + 1 for i, agent in enumerate(agents)}
        self.agents = [agent for agent in agents if not dead[agent]]
        out = dict.fromkeys(agents, False)
        return self.seen(agents), dict.fromkeys(agents, 1.0), dead, out, {a: {} for a in agents}
'''


@pytest.mark.parametrize(
    ("algorithm", "options", "more"),
    [
        ("mappo", {"see": "picture"}, ()),
        (
            "mappo",
            {"see": "picture"},
            ("task.flatten=false", "model=layers/cnn", "model.cnn_num_cells=[4]"),
        ),
        ("ippo", {"see": "dict", "act": "continuous"}, ("task.groups=each",)),
        ("mappo", {"mixed": True}, ()),
        ("qmix", {"see": "masked"}, ("task.groups=name",)),
        ("maddpg", {"act": "multi"}, ("task.groups={one: [agent_1], two: [agent_0, agent_2]}",)),
    ],
)
def test_spaces_deaths_and_groups_are_trained_on(here, algorithm, options, more, capsys):
    given = [f"task.options.{name}={value}" for name, value in options.items()]
    words = [f"algorithm=marl_td/{algorithm}", "task=pettingzoo", "env=zoo:Dying", *given, *more]
    folder = here / "run"
    arguments = ["train", "--out", str(folder), "--no-progress", "--episodes", "2", *words, *SMALL]
    assert main(arguments) == 0, capsys.readouterr().err
    assert f"{algorithm} on pettingzoo (zoo:Dying)" in capsys.readouterr().out


def test_unchanged_benchmarl_runs_the_page_s_command(here):
    quiet = ["experiment.loggers=[]", "experiment.max_n_iters=1", "experiment.evaluation=false"]
    words = dict(word.split("=", 1) for word in (*BENCHMARL, *SMALL, *quiet) if "=" in word)
    del words["experiment.compile"]
    python(here, *BENCHMARL[1:3], *(f"{name}={value}" for name, value in words.items()))
    (folder,) = (file.parent for file in here.glob("outputs/*/*/*/config.pkl"))
    assert folder.name.startswith("marl_td_mappo_pettingzoo_mlp")
