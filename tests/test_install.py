"""What `make` installs: the choice of torch, the messages, pins that fit the declared bounds."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from source_tree import ROOT

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]


def load_script(name: str) -> ModuleType:
    """A script of `scripts/` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def install(monkeypatch) -> ModuleType:
    for name in ("MARL_TD_TORCH", "MARL_TD_EXTRA_INDEX", "MARL_TD_EXTRAS"):
        monkeypatch.delenv(name, raising=False)
    module = load_script("install")
    monkeypatch.setattr(module, "pinned_torch", lambda: "2.13.0")
    return module


def pretend(monkeypatch, install: ModuleType, installed: str, offered: str) -> list[list[str]]:
    """Answer the two questions that the script asks; returns the commands it runs for them."""
    commands: list[list[str]] = []

    def output_of(command: list[str]) -> str:
        commands.append(command)
        return offered if "index" in command else installed

    monkeypatch.setattr(install, "output_of", output_of)
    return commands


@pytest.mark.parametrize(
    ("installed", "offered", "chosen"),
    [
        ("", "Available versions: 2.14.0, 2.13.0+cpu, 2.13.0", "torch==2.13.0+cpu"),
        ("", "Available versions: 2.14.0, 2.13.0", "torch==2.13.0"),
        ("", "Available versions: 12.13.0+cpu, 2.13.0", "torch==2.13.0"),
        ("", "", "torch==2.13.0"),  # the question itself failed; the installation will say why
        ("2.12.0", "Available versions: 2.13.0+cpu", "torch==2.13.0+cpu"),
        ("2.13.0+cu130\n", "Available versions: 2.13.0+cpu", "torch==2.13.0"),  # kept as it is
    ],
)
def test_the_cpu_build_is_taken_where_one_is_offered(
    monkeypatch, install, installed, offered, chosen
):
    pretend(monkeypatch, install, installed, offered)
    assert install.choose_torch() == chosen


def test_the_user_may_choose_torch_and_add_an_index(monkeypatch, install):
    monkeypatch.setenv("MARL_TD_EXTRA_INDEX", "file:///wheels")
    commands = pretend(monkeypatch, install, "", "")
    install.choose_torch()
    assert commands[-1][-2:] == ["--extra-index-url", "file:///wheels"]
    monkeypatch.setenv("MARL_TD_TORCH", "torch==2.13.0+cu126")
    assert install.choose_torch() == "torch==2.13.0+cu126"


def test_everything_is_installed_by_one_command_with_the_constraints(monkeypatch, install):
    commands = []
    monkeypatch.setattr(install, "run", commands.append)
    monkeypatch.setattr(install, "make_environment", lambda: None)
    monkeypatch.setattr(install, "choose_torch", lambda: "torch==2.13.0+cpu")
    monkeypatch.setenv("MARL_TD_EXTRAS", "dev")
    install.main()
    assert all(str(ROOT / "constraints.txt") in command for command in commands)
    assert commands[-1][-3:] == ["torch==2.13.0+cpu", "--editable", ".[dev]"]


def test_everything_that_the_tests_need_is_installed(monkeypatch, install):
    commands = []
    monkeypatch.setattr(install, "run", commands.append)
    monkeypatch.setattr(install, "make_environment", lambda: None)
    monkeypatch.setattr(install, "choose_torch", lambda: "torch==2.13.0")
    install.main()
    extras = set(commands[-1][-1].removeprefix(".[").removesuffix("]").split(","))
    assert {"dev", "export", "mpe", "vmas"} <= extras


def test_old_pythons_are_refused(monkeypatch, install):
    monkeypatch.setattr(install, "OLDEST", (9, 9))
    message = r"Python 9\.9 or newer is needed; this is 3\..* `make PYTHON=/path/to/python3`"
    with pytest.raises(SystemExit, match=message):
        install.main()


def test_a_python_without_venv_is_told_what_to_install(monkeypatch, install, tmp_path):
    monkeypatch.setattr(install, "VENV", tmp_path / "venv")
    monkeypatch.setattr(install, "PYTHON", tmp_path / "venv" / "bin" / "python")
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(SystemExit, match=r"`python3 -m venv` failed.*apt install python3-venv"):
        install.make_environment()


def test_constraints_without_torch_are_refused(monkeypatch, tmp_path):
    install = load_script("install")
    monkeypatch.setattr(install, "CONSTRAINTS", tmp_path / "constraints.txt")
    (tmp_path / "constraints.txt").write_text("torchrl==0.11.1\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"constraints\.txt has no line `torch==VERSION`"):
        install.pinned_torch()


def pins(python: str) -> dict[str, str]:
    """The pinned version of each package for one Python; each package has at most one."""
    found: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate({"python_version": python}):
            assert pin.name not in found, f"{pin.name} has two pins for Python {python}"
            (specifier,) = pin.specifier
            assert specifier.operator == "=="
            found[pin.name] = specifier.version
    return found


def declared() -> list[Requirement]:
    """Every requirement of `pyproject.toml`, of all extras too."""
    # Python 3.10 has no TOML reader of its own; pytest brings one there.
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    return [Requirement(line) for line in [*project["dependencies"], *extras]]


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_has_a_pin_within_its_bounds(python):
    pinned = pins(python)
    for requirement in declared():
        if requirement.name != "marl-td":
            assert requirement.specifier.contains(pinned[requirement.name]), requirement


def test_torchvision_fits_torch():
    """torchvision 0.N goes with torch 2.N-15; another pair would replace the CPU build of torch."""
    torch, torchvision = pins("3.11")["torch"], pins("3.11")["torchvision"]
    assert int(torchvision.split(".")[1]) == int(torch.split(".")[1]) + 15


def test_reports_are_merged_with_markers(tmp_path, capsys):
    versions = {"3.10": "1.0", "3.11": "2.0", "3.12": "2.0", "3.13": "1.5"}
    paths = []
    for python, version in versions.items():
        packages = {"torch": "2.13.0+cpu", "Num_Py": version, "marl-td": "0.1.0"}
        install = [{"metadata": {"name": n, "version": v}} for n, v in packages.items()]
        report = {"environment": {"python_version": python}, "install": install}
        paths.append(tmp_path / f"{python}.json")
        Path(paths[-1]).write_text(json.dumps(report), encoding="utf-8")
    load_script("merge_constraints").main([str(path) for path in paths])
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    assert lines == [
        'num-py==1.0; python_version < "3.11"',
        'num-py==2.0; python_version >= "3.11" and python_version < "3.13"',
        'num-py==1.5; python_version >= "3.13"',
        "torch==2.13.0",
    ]
