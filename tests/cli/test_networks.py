"""The page on networks: its tables of what goes with what, its commands, and the kinds of actions."""

import re

import pytest
from page_runs import ROOT, SHORT, commands, shortened

from marl_td.cli import main
from marl_td.training.trained import load_run

PAGE = "docs/networks.md"
MEMORY, SEQUENCE, CONTINUOUS, DISCRETE = commands(PAGE)
REASONS = {
    "layers/cnn": "CNN found no image inputs",
    "layers/deepsets": "DeepSets found no set inputs",
}
OFTEN = {("model", "layers/lstm", "qmix"), ("critic_model", "layers/marl_td/gru", "mappo")}


def cells():
    """Of the page's tables: which setting, network and algorithm, and what the cell says."""
    setting, algorithms = "", []
    for line in (ROOT / PAGE).read_text().splitlines():
        row = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| network of the "):
            setting = "model" if "agents" in row[0] else "critic_model"
            algorithms = [name.lower() for name in row[1:]]
        elif line.startswith("| `layers/"):
            for network in re.findall(r"`(layers/[\w/]+)`", row[0]):
                for algorithm, says in zip(algorithms, row[1:], strict=True):
                    marks = () if (setting, network, algorithm) in OFTEN else pytest.mark.slow
                    yield pytest.param(setting, network, algorithm, says, marks=marks)


def train(folder, *words):
    short = [f"{name}={value}" for name, value in SHORT.items()]
    return main(["train", "--out", str(folder), "--no-report", "--no-progress", *words, *short])


@pytest.mark.parametrize(("setting", "network", "algorithm", "says"), list(cells()))
def test_what_goes_with_what(setting, network, algorithm, says, tmp_path, capsys):
    if network == "layers/gnn":
        pytest.importorskip("torch_geometric")
        network = f"{network} {setting}.topology=full"
    words = [f"algorithm=marl_td/{algorithm}", *f"{setting}={network}".split()]
    code = train(tmp_path / "run", "task=marl_td/simple_spread", *words)
    assert code == (2 if says in ("no", "with pictures") else 0)
    if code:
        assert REASONS.get(network, "The GNN module is not compatible") in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["mappo", "qmix", "maddpg", "masac"])
def test_pictures_go_through_a_cnn(algorithm, tmp_path):
    task = ["task=marl_td/pettingzoo", "task.env=toy_pictures:Pictures", "task.flatten=false"]
    assert train(tmp_path / "run", f"algorithm=marl_td/{algorithm}", *task, "model=layers/cnn") == 0


@pytest.mark.parametrize("command", [MEMORY, SEQUENCE], ids=["memory", "sequence"])
def test_the_page_s_networks_are_trained(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(shortened(command, "--no-report")) == 0


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["mappo", "qmix", "maddpg", "masac"])
@pytest.mark.parametrize(
    ("second", "code"), [("mlp", 0), ("gru", 0), ("marl_td/gru", 0), ("deepsets", 2)]
)
def test_what_goes_after_an_mlp(second, code, algorithm, tmp_path):
    layers = ["model/layers@model.layers.l1=mlp", f"model/layers@model.layers.l2={second}"]
    words = ["model=sequence", *layers, "model.intermediate_sizes=[16]"]
    task = "task=marl_td/simple_spread"
    assert train(tmp_path / "run", f"algorithm=marl_td/{algorithm}", task, *words) == code


def test_a_setting_chooses_the_kind_of_actions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command, is_discrete in ((CONTINUOUS, False), (DISCRETE, True)):
        assert main(shortened(command, "--no-report")) == 0
        env = load_run(re.search(r"--out (\S+)", command)[1], 1).env
        space = env.full_action_spec_unbatched["agents", "action"].space
        assert hasattr(space, "n") == is_discrete
