"""Wheel, source distribution and editable install hold the same package; importing it is light.

Nothing here needs the network: the fresh environments see the libraries of the environment that
runs the tests, and of ours only what was installed into them.
"""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from source_tree import ROOT, sources

import marl_td

NEEDED = [
    *("pyproject.toml", "setup.py", "README.md", "LICENSE"),
    *("marl_td", "losses", "tasks", "hydra_plugins"),
]


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; its output is shown if it fails."""
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def copy_tree(target: Path) -> Path:
    """Copy what the package is built from, so that nothing is left behind in the repository."""
    target.mkdir()
    for name in NEEDED:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=ignore)
        else:
            shutil.copy(ROOT / name, target / name)
    return target


def build(kind: str, tree: Path, out: Path) -> Path:
    """Build a `wheel` or an `sdist` from a source tree with the tools that are installed here."""
    run(
        sys.executable,
        "-m",
        "build",
        f"--{kind}",
        "--no-isolation",
        "--outdir",
        out,
        tree,
        cwd=tree,
    )
    (built,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


def fresh_environment(folder: Path) -> tuple[Path, Path]:
    """An empty virtual environment: its Python and its site-packages."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    program = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return python, Path(run(python, "-c", program, cwd=folder).strip())


def share_libraries(site: Path) -> None:
    """Let a fresh environment see this one's libraries, but not what is editable in it."""
    here = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    (site / "zz_shared.pth").write_text("\n".join(dict.fromkeys(here)), encoding="utf-8")


def pip_install(python: Path, *what: str | Path, cwd: Path) -> None:
    """Install into the environment of `python`, from local files only."""
    options = ["--quiet", "--no-index", "--no-deps", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, *what, cwd=cwd)


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("packaging")


@pytest.fixture(scope="module")
def tree(work) -> Path:
    copy = copy_tree(work / "tree")
    probe = copy / "marl_td" / "conf" / "some" / "where" / "probe.yaml"
    probe.parent.mkdir(parents=True)
    probe.write_text("answer: 42\n", encoding="utf-8")
    return copy


@pytest.fixture(scope="module")
def wheel(work, tree) -> Path:
    return build("wheel", tree, work / "wheel")


@pytest.fixture(scope="module")
def sdist(work, tree) -> Path:
    return build("sdist", tree, work / "sdist")


@pytest.fixture(scope="module")
def installed(work, wheel) -> tuple[Path, Path]:
    """Python and site-packages of an environment with the wheel and the libraries of this one."""
    python, site = fresh_environment(work / "wheel_env")
    pip_install(python, wheel, cwd=work)
    share_libraries(site)
    return python, site


def names_in(wheel: Path) -> list[str]:
    """The files of a wheel, without its metadata."""
    return sorted(name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name)


def expected_names(tree: Path) -> list[str]:
    """The files that the package must hold, from the source tree itself."""
    modules = [
        source.module.replace(".", "/") + ("/__init__.py" if source.is_package else ".py")
        for source in sources(tree)
    ]
    conf = tree / "marl_td" / "conf"
    configs = [file.relative_to(tree).as_posix() for file in conf.rglob("*.yaml")]
    plugin = "hydra_plugins/marl_td_plugin.py"
    return sorted([*modules, *configs, "marl_td/py.typed", plugin])


def test_the_wheel_has_each_file_once(wheel, tree):
    names, expected = names_in(wheel), expected_names(tree)
    missing = sorted(set(expected) - set(names))
    assert not missing, (
        f"not in the wheel; does each of their folders have an __init__.py? {missing}"
    )
    assert names == expected


def test_a_wheel_from_the_source_distribution_is_the_same(work, wheel, sdist):
    """The source distribution has the two folders and no symlinks, like a zip download."""
    with tarfile.open(sdist) as archive:
        assert not any(member.issym() for member in archive)
        archive.extractall(work / "unpacked", filter="data")
    (unpacked,) = (work / "unpacked").iterdir()
    assert (unpacked / "losses" / "__init__.py").exists()
    assert not (unpacked / "marl_td" / "losses").exists()
    rebuilt = build("wheel", unpacked, work / "rebuilt")
    assert rebuilt.name == wheel.name
    assert names_in(rebuilt) == names_in(wheel)


def test_site_packages_gets_only_our_two_names(installed):
    _, site = installed
    ours = {path.name for path in site.iterdir()} - {"__pycache__", "zz_shared.pth"}
    version = marl_td.__version__
    assert ours == {"marl_td", "hydra_plugins", f"marl_td-{version}.dist-info"}
    assert (site.parents[2] / "bin" / "marl-td").exists()


LIGHT = """
import sys, marl_td
print("torch" in sys.modules, marl_td.__file__)
"""


def test_importing_the_package_loads_no_torch(work, installed):
    python, site = installed
    assert run(python, "-c", LIGHT, cwd=work) == f"False {site / 'marl_td' / '__init__.py'}\n"


COMPONENTS = """
import sys, marl_td.losses, marl_td.losses.functional, marl_td.tasks
heavy = {"benchmarl", "hydra", "omegaconf", "matplotlib", "pettingzoo", "vmas"}
print(sorted({name.split(".")[0] for name in sys.modules} & heavy))
print(marl_td.losses.__file__)
print(marl_td.tasks.__file__)
try:
    import losses
except ModuleNotFoundError as error:
    print(error)
"""


def test_components_load_neither_benchmarl_nor_hydra(work, installed):
    python, site = installed
    assert run(python, "-c", COMPONENTS, cwd=work).splitlines() == [
        "[]",
        str(site / "marl_td" / "losses" / "__init__.py"),
        str(site / "marl_td" / "tasks" / "__init__.py"),
        "No module named 'losses'",
    ]


PLUGIN = """
import importlib.metadata, inspect, sys
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
ours = [p for p in Plugins.instance().discover(SearchPathPlugin) if p.__name__.startswith("MarlTd")]
print([inspect.getfile(plugin) for plugin in ours])
print(importlib.metadata.version("marl-td"), "torch" in sys.modules)
"""


def test_hydra_finds_the_plugin_of_the_wheel(work, installed):
    python, site = installed
    assert run(python, "-c", PLUGIN, cwd=work).splitlines() == [
        f"['{site / 'hydra_plugins' / 'marl_td_plugin.py'}']",
        f"{marl_td.__version__} False",
    ]


def test_an_editable_install_works_from_anywhere_and_sees_new_files(work):
    tree = copy_tree(work / "editable_tree")
    python, site = fresh_environment(work / "editable_env")
    share_libraries(site)
    pip_install(python, "--no-build-isolation", "--editable", tree, cwd=work)
    assert run(python, "-c", PLUGIN, cwd=work).splitlines()[0] == (
        f"['{tree / 'hydra_plugins' / 'marl_td_plugin.py'}']"
    )
    (tree / "losses" / "functional" / "brand_new.py").write_text("answer = 42\n", encoding="utf-8")
    program = "from marl_td.losses.functional.brand_new import answer; print(answer)"
    assert run(python, "-c", program, cwd=work) == "42\n"
    names = {path.name for path in site.iterdir()}
    assert not names & {"losses", "tasks", "tests"}
