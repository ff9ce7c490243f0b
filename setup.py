"""Lists the packages for setuptools; everything else is in `pyproject.toml`.

`losses/` and `tasks/` lie at the top of the repository and are installed as `marl_td.losses` and
`marl_td.tasks` (the mapping is `package-dir` in `pyproject.toml`). The list is made here so that a
new sub-package needs no edit, with and without the two symlinks in `marl_td/` (a zip download or a
source distribution has none).
"""

from setuptools import find_namespace_packages, find_packages, setup


def subpackages(folder: str, name: str) -> list[str]:
    """The package `name` whose files are in `folder`, and all packages below it."""
    return [name, *(f"{name}.{found}" for found in find_packages(folder))]


setup(
    packages=sorted(
        {
            *subpackages("marl_td", "marl_td"),
            *subpackages("losses", "marl_td.losses"),
            *subpackages("tasks", "marl_td.tasks"),
            *find_namespace_packages(include=["hydra_plugins"]),
        }
    )
)
