"""The Dockerfiles, as far as that goes without an engine: their rules, and the steps of the serving image."""

import importlib
import shutil

import pytest
from hostile_files import GOLDEN
from source_tree import ROOT
from tiny_bundle import write_bundle

SLIM = "FROM python:3.11-slim\nUSER x\nENTRYPOINT ['a']\nCMD ['b']\n"


@pytest.fixture
def rules(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("dockerfile_rules")


@pytest.mark.parametrize("name", ["Dockerfile", "docker/serve.Dockerfile"])
def test_every_rule_is_kept(rules, name):
    assert rules.complaints(ROOT / name) == []
    assert rules.requirement_complaints() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUN x", "must begin with FROM"),
        (SLIM.replace(":3.11-slim", ""), "the base image python needs a version"),
        (SLIM.replace("USER x", "USER root"), "must end as a USER that is not root"),
        (SLIM.replace("USER x\n", ""), "must end as a USER that is not root"),
        (SLIM.replace("CMD ['b']", "CMD b"), "CMD must be a list"),
        (SLIM + "COPY nothing /x", "COPY nothing, which is not in the repository"),
        (SLIM + "COPY tests /x", "COPY tests, which .dockerignore leaves out"),
        (SLIM + "COPY --from=build /a /b", "there is no stage build to copy from"),
        (SLIM + "ADD a b", "COPY what is in the repository; ADD also fetches"),
        (SLIM + "RUN apt-get update \\\n && apt-get install -y g++", "lists removed"),
        (SLIM + "ENV MY_TOKEN=1", "an image must hold no secret"),
    ],
)
def test_a_broken_rule_is_named(rules, tmp_path, text, message):
    (tmp_path / "Dockerfile").write_text(text)
    found = rules.complaints(tmp_path / "Dockerfile")
    assert len(found) == 1 and message in found[0], found


def test_other_requirements_than_those_of_the_project_are_named(rules, tmp_path):
    for name in ("pyproject.toml", "Dockerfile", "docker/serve.Dockerfile"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    path = tmp_path / "docker/serve.Dockerfile"
    path.write_text(path.read_text().replace("uvicorn>=0.30", "uvicorn>=0.20"))
    path = tmp_path / "Dockerfile"
    path.write_text(path.read_text().replace('"vmas,', '"vmess,'))
    found = rules.requirement_complaints(tmp_path)
    assert len(found) == 2
    assert "pyproject.toml says" in found[0] and "the extra vmess" in found[1]


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("marl_td/cli/serve.py", False),
        ("pyproject.toml", False),
        ("tests/conftest.py", True),
        ("runs/first/config.yaml", True),
        ("marl_td/cli/__pycache__/x.pyc", True),
        (".git/config", True),
    ],
)
def test_what_is_sent_to_docker(rules, name, left_out):
    assert rules.ignored(name, rules.ignore_patterns(ROOT)) == left_out


def test_the_steps_of_the_serving_image_run(rules, tmp_path, capfd):
    check = importlib.import_module("check_dockerfiles")
    bundle = write_bundle(tmp_path / "bundle", golden=GOLDEN)
    done = check.check_serving(tmp_path, bundle)
    assert "environment without torch" in done[0]
    assert done[-4].startswith("ENTRYPOINT marl-td serve")
    assert done[-3:] == ["HEALTHCHECK: healthy", "a acted", "SIGTERM: 0"]
