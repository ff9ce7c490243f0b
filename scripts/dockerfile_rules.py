"""What every Dockerfile here keeps, read off its text.

What it copies is there and not ignored, stages that are named exist, the last stage is not root, programs get
signals, no secrets are baked in, and the lines for pip ask for what `pyproject.toml` says.
"""

from __future__ import annotations

import fnmatch
import re
import shlex
from pathlib import Path
from typing import NamedTuple

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
TRAINING, SERVING = "Dockerfile", "docker/serve.Dockerfile"


class Step(NamedTuple):
    """One instruction of a Dockerfile: its word in capitals, and the rest of it on one line."""

    word: str
    text: str


def parse(path: Path) -> list[Step]:
    """The instructions of a Dockerfile; comments are left out, continued lines joined."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    pairs = [line.split(None, 1) for line in lines if line]
    return [Step(pair[0].upper(), re.sub(r"\s+", " ", pair[1])) for pair in pairs]


def stages(steps: list[Step]) -> list[list[Step]]:
    """The instructions of each stage, ``FROM`` first."""
    out: list[list[Step]] = []
    for step in steps:
        if step.word == "FROM":
            out.append([])
        if out:
            out[-1].append(step)
    return out


def ignored(name: str, patterns: list[str]) -> bool:
    """Whether ``.dockerignore`` leaves a path out; the last pattern that fits decides."""
    found = False
    for pattern in patterns:
        wanted = pattern.removeprefix("!").removeprefix("**/")
        parts = name.split("/")
        heads = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        tails = parts if pattern.removeprefix("!").startswith("**/") else []
        if any(fnmatch.fnmatch(candidate, wanted) for candidate in [*heads, *tails]):
            found = not pattern.startswith("!")
    return found


def ignore_patterns(root: Path) -> list[str]:
    """The patterns of ``.dockerignore``."""
    lines = (root / ".dockerignore").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


# ------------------------------------------------------------------ checks of the text
def complaints(path: Path, root: Path = ROOT) -> list[str]:
    """What is wrong with a Dockerfile, one sentence each."""
    steps = parse(path)
    if not steps or steps[0].word not in ("FROM", "ARG"):
        return [f"{path.name}: it must begin with FROM."]
    found, names = [], set()
    for stage in stages(steps):
        found += _base(path, stage[0])
        for step in stage:
            found += _copied(path, step, names, root)
            found += _ran(path, step)
        names.update(re.findall(r"(?i) AS (\S+)", stage[0].text))
    last = stages(steps)[-1]
    users = [step.text for step in last if step.word == "USER"]
    if not users or users[-1] in ("root", "0"):
        found.append(f"{path.name}: the last stage must end as a USER that is not root.")
    for word in ("ENTRYPOINT", "CMD"):
        texts = [step.text for step in last if step.word == word]
        if not texts or not texts[-1].startswith("["):
            found.append(f"{path.name}: {word} must be a list, so that signals reach the program.")
    return found


def _base(path: Path, step: Step) -> list[str]:
    image = step.text.split()[0]
    if ":" not in image or image.endswith(":latest"):
        return [f"{path.name}: the base image {image} needs a version."]
    return []


def _copied(path: Path, step: Step, stages_before: set[str], root: Path) -> list[str]:
    if step.word == "ADD":
        return [f"{path.name}: COPY what is in the repository; ADD also fetches and unpacks."]
    if step.word != "COPY":
        return []
    words = step.text.split()
    source = [word.removeprefix("--from=") for word in words if word.startswith("--from=")]
    if source:
        known = source[0] in stages_before
        return [] if known else [f"{path.name}: there is no stage {source[0]} to copy from."]
    patterns, found = ignore_patterns(root), []
    for name in [word for word in words if not word.startswith("--")][:-1]:
        if not (root / name).exists():
            found.append(f"{path.name}: COPY {name}, which is not in the repository.")
        elif ignored(name, patterns):
            found.append(f"{path.name}: COPY {name}, which .dockerignore leaves out.")
    return found


def _ran(path: Path, step: Step) -> list[str]:
    found = []
    kept = ("--no-install-recommends", "rm -rf /var/lib/apt/lists")
    if "apt-get install" in step.text and not all(word in step.text for word in kept):
        found.append(f"{path.name}: apt-get without recommended packages, and lists removed.")
    if step.word in ("ARG", "ENV") and re.search(r"(?i)token|password|secret", step.text):
        found.append(f"{path.name}: {step.word} {step.text}: an image must hold no secret.")
    return found


def pip_lines(path: Path) -> list[list[str]]:
    """The words of each ``pip install``."""
    texts = [step.text for step in parse(path) if step.word == "RUN" and "pip install" in step.text]
    return [
        shlex.split(re.sub(r"\$\{\w+:\+[^}]*\}", "", text).split("pip install")[1])
        for text in texts
    ]


def requirement_complaints(root: Path = ROOT) -> list[str]:
    """Where the lines for pip ask for something else than ``pyproject.toml``."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras, found = project["optional-dependencies"], []
    numpy = [line for line in project["dependencies"] if line.startswith("numpy")]
    wanted = sorted([*numpy, *extras["serve"]])
    asked = sorted(word for word in pip_lines(root / SERVING)[0] if re.match(r"\w+[<>=]", word))
    if asked != wanted:
        found.append(
            f"{SERVING} installs {asked}, pyproject.toml says {wanted} (numpy, extra serve)."
        )
    arguments = [step.text for step in parse(root / TRAINING) if step.word == "ARG"]
    named = re.findall(r'EXTRAS="([^"]*)"', " ".join(arguments))
    for extra in named[0].split(",") if named else []:
        if extra not in extras:
            found.append(
                f"{TRAINING} asks for the extra {extra}, which pyproject.toml does not have."
            )
    for path in (TRAINING, SERVING):
        if not any("constraints.txt" in line for line in pip_lines(root / path)):
            found.append(f"{path}: pip must install with constraints.txt.")
    return found
