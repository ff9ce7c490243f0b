"""What the benchmark commands say about libraries that are not there, and settings of runs beside peers."""

import argparse
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def chosen(script, tmp_path, monkeypatch):
    """``chosen(case, only, jaxmarl)``: the names of the commands of `end_to_end.py`; no peer is installed."""
    end_to_end = script("end_to_end")
    monkeypatch.setattr(end_to_end, "PEERS", tmp_path)

    def call(case, only=None, jaxmarl=None):
        sizes = {"frames": 1, "own_frames": 1, "peer_frames": 1, "device": "cpu"}
        args = SimpleNamespace(case=case, only=only, jaxmarl=jaxmarl, **sizes)
        return list(end_to_end.chosen(args, argparse.ArgumentParser()))

    return call


def test_commands_are_chosen_by_name(chosen):
    assert chosen("qmix", ["BenchMARL, VMAS", "marl_td"]) == ["marl_td", "BenchMARL, VMAS"]


@pytest.mark.parametrize(
    ("case", "only", "jaxmarl", "message"),
    [
        ("qmix", ["QMIX"], None, "qmix has no 'QMIX'; it has 'marl_td', 'BenchMARL, VMAS'"),
        ("ppo", ["JaxMARL"], None, "and JaxMARL with --jaxmarl."),
        ("agilerl", None, None, "`python benchmarks/end_to_end.py agilerl --install-peers`"),
        ("ppo", None, Path("nowhere"), "`python benchmarks/stepping.py --install-peers`"),
    ],
)
def test_a_library_that_cannot_run_is_named_before_anything_runs(
    case, only, jaxmarl, message, chosen, capsys
):
    with pytest.raises(SystemExit):
        chosen(case, only, jaxmarl)
    assert message in capsys.readouterr().err


def test_a_folder_without_jaxmarl_s_script_is_no_checkout(chosen, tmp_path, capsys):
    python = tmp_path / "jaxmarl" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    with pytest.raises(SystemExit):
        chosen("ppo", ["JaxMARL"], tmp_path)
    assert "is no checkout of JaxMARL: it has no baselines/IPPO" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["stepping_jaxmarl", "end_to_end_jaxmarl", "end_to_end_agilerl"])
def test_a_peer_s_script_says_whose_python_runs_it(name, tmp_path):
    package = "agilerl" if name.endswith("agilerl") else "jax"
    (tmp_path / f"{package}.py").write_text(
        f"raise ModuleNotFoundError('No module named {package}')"
    )
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / f"{name}.py"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith(f"No module named {package}: run this by ")


@pytest.mark.filterwarnings("ignore:The default behavior of TransformedEnv:FutureWarning")
@pytest.mark.parametrize("model", ["mlp", "gru"])
@pytest.mark.parametrize("name", ["mappo", "maddpg", "qmix"])
def test_hot_paths_set_nothing_without_effect(name, model, script):
    """Warnings are errors in tests."""
    hot_paths = script("hot_paths")
    hot_paths.register()
    own = hot_paths.mlp(4) if model == "mlp" else hot_paths.StatefulGruConfig(hidden_size=4)
    size = "minibatch_size" if name == "mappo" else "train_batch_size"
    options = {"collected_frames_per_batch": 8, size: 8}
    run = hot_paths.experiment(f"marl_td/{name}", "simple_spread", own, 2, "cpu", **options)
    assert run.algorithm.has_rnn == (model == "gru")
