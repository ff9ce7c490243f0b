"""Files of other versions load, or say which version wrote them."""

import io

import pytest
import torch
import yaml
from benchmarl_runs import IGNORED
from short_runs import short_experiment

import marl_td
from marl_td.training.policy_files import policy_tensors
from marl_td.training.settings import RunSettings
from marl_td.training.trained import load_run

pytestmark = IGNORED


@pytest.fixture
def run(tmp_path):
    short_experiment(tmp_path / "run", "experiment.compile=off").run()
    return tmp_path / "run"


def edited(run, change):
    path = run / "config.yaml"
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(yaml.safe_dump(data))
    return path


def test_an_earlier_version_s_run_loads(run):
    """Settings that are new since then take their defaults; weights were in another file."""
    policy = load_run(run, 1).policy
    out = io.BytesIO()
    torch.save(policy_tensors(policy), out)
    (run / "policy" / "weights.safetensors").unlink()
    (run / "policy" / "weights.pt").write_bytes(out.getvalue())

    def older(data):
        data["marl_td"] = "0.0.1"
        del data["task_config"]["safety"], data["experiment_config"]["compile"]

    edited(run, older)
    loaded = load_run(run, 1)
    assert loaded.settings.task_config.config.get("safety") is None
    for name, tensor in policy_tensors(policy).items():
        assert torch.equal(tensor, policy_tensors(loaded.policy)[name])


def test_what_a_later_version_wrote_says_so(run):
    def later(data):
        data["marl_td"] = "9.9.9"
        data["experiment_config"]["warp"] = 1

    path = edited(run, later)
    said = rf"sets 'warp'.* \(marl_td 9.9.9 wrote it, this is {marl_td.__version__}\)"
    with pytest.raises(ValueError, match=said):
        RunSettings.load(path)
    path = edited(run, lambda data: data.pop("seed"))
    with pytest.raises(ValueError, match=r"lacks seed.* \(marl_td 9.9.9 wrote it"):
        RunSettings.load(path)
