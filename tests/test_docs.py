"""The pages exist, their tables are the dataclasses', their links lead somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def load_script():
    spec = importlib.util.spec_from_file_location("hyper", ROOT / "scripts" / "hyperparameters.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = load_script()


@pytest.mark.parametrize(
    ("path", "config"), SCRIPT.pages().items(), ids=lambda x: getattr(x, "stem", "")
)
def test_page_exists_with_the_settings_of_the_dataclass(path, config):
    assert path.exists(), (
        f"write {path.relative_to(ROOT)}: docs/add_an_algorithm.md says what goes in"
    )
    text = path.read_text()
    assert SCRIPT.filled(text, config) == text, "run `python scripts/hyperparameters.py`"


@pytest.mark.parametrize("config", SCRIPT.pages().values(), ids=lambda config: config.__name__)
def test_every_setting_says_what_it_means(config):
    lines = SCRIPT.table(config).splitlines()[2:]
    assert [line for line in lines if line.endswith("|  |")] == []


def test_a_page_without_markers_is_named():
    with pytest.raises(ValueError, match="needs the markers"):
        SCRIPT.filled("# page", next(iter(SCRIPT.pages().values())))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


NAMED = re.compile(
    r"(?<![\w/.])(?:losses|tasks|marl_td|tests|benchmarks|scripts)/[\w/]+\.(?:py|csv|ya?ml)"
)


@pytest.mark.parametrize(
    "page",
    [*PAGES, ROOT / "benchmarks" / "README.md"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_files_that_are_named_exist(page):
    missing = [name for name in NAMED.findall(page.read_text()) if not (ROOT / name).exists()]
    assert missing == []
