"""Check the Dockerfiles as far as that goes without an engine, and run the steps of the serving image here.

    python scripts/check_dockerfiles.py [--bundle DIR]

The text of both files is checked first (`dockerfile_rules.py`). Then the serving image is built in a new
folder: its context, a wheel of it, an environment with what its pip line names and nothing else (linked from
the one that runs this, so no network is needed). In it torch must be missing and the image's own checks must
pass; with ``--bundle`` its entry point must serve, its health check agree, an action be answered. Nothing
of Docker itself is tried: base images, apt, the network.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Any

from dockerfile_rules import (
    ROOT,
    SERVING,
    TRAINING,
    complaints,
    ignore_patterns,
    ignored,
    parse,
    pip_lines,
    requirement_complaints,
    stages,
)

NOT_IN_SERVING = ("torch", "torchrl", "tensordict", "benchmarl", "scipy", "matplotlib", "hydra")
TOKEN = "a-token-for-the-check"


def run(*command: Any, cwd: Path, **environment: str) -> str:
    """What a command prints; raises ``RuntimeError`` with its output if it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def copy_context(path: Path, target: Path, root: Path = ROOT) -> None:
    """What the first stage copies, as ``.dockerignore`` lets it through."""
    patterns = ignore_patterns(root)

    def left_out(folder: str, names: list[str]) -> set[str]:
        base = Path(folder).relative_to(root)
        return {name for name in names if ignored((base / name).as_posix(), patterns)}

    for step in stages(parse(path))[0]:
        if step.word == "COPY":
            for name in step.text.split()[:-1]:
                if (root / name).is_dir():
                    shutil.copytree(root / name, target / name, symlinks=True, ignore=left_out)
                else:
                    shutil.copy(root / name, target / name)


def closure(names: list[str]) -> set[str]:
    """The distributions that these need here, themselves included."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    waiting = [Requirement(name).name for name in names]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        found.add(name)
        for text in metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                waiting.append(needed.name)
    return found


def link_distributions(names: set[str], site: Path) -> None:
    """Link the files of distributions that are installed here into another ``site-packages``."""
    for name in names:
        for file in metadata.files(name) or []:
            if ".." in file.parts:
                continue
            source, target = Path(str(file.locate())), site / file.parts[0]
            top = (
                source
                if len(file.parts) == 1
                else Path(str(metadata.distribution(name).locate_file(file.parts[0])))
            )
            if not target.exists():
                target.symlink_to(top.resolve())


def build_serving(folder: Path) -> Path:
    """Build the serving image's environment in ``folder``; its Python."""
    context = folder / "context"
    context.mkdir()
    copy_context(ROOT / SERVING, context)
    wheels = folder / "wheels"
    build = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*build, "--wheel-dir", wheels, context, cwd=context)
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    program = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(python, "-c", program, cwd=folder).strip())
    asked = [word for word in pip_lines(ROOT / SERVING)[0] if re.match(r"\w+[<>=]", word)]
    link_distributions(closure(asked), site)
    (wheel,) = wheels.glob("*.whl")
    install = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps")
    run(*install, "--no-index", "--disable-pip-version-check", wheel, cwd=folder)
    return python


def check_serving(folder: Path, bundle: Path | None) -> list[str]:
    """Run the serving image's steps; what was done, one line each."""
    python = build_serving(folder)
    clean = {"PYTHONPATH": "", "PATH": f"{python.parent}:{os.environ['PATH']}"}
    missing = (
        f"import importlib.util as u; print([n for n in {NOT_IN_SERVING!r} if u.find_spec(n)])"
    )
    found = run(python, "-c", missing, cwd=folder, **clean).strip()
    if found != "[]":
        raise RuntimeError(f"the serving image would hold {found}")
    done = [f"environment without {', '.join(NOT_IN_SERVING)}"]
    for step in stages(parse(ROOT / SERVING))[-1]:
        if step.word == "RUN" and "marl-td" in step.text:
            run("sh", "-c", step.text, cwd=folder, **clean)
            done.append(f"RUN {step.text}")
    if bundle is not None:
        done += serve_once(folder, bundle.resolve(), clean)
    return done


def serve_once(folder: Path, bundle: Path, environment: dict[str, str]) -> list[str]:
    """Start the entry point as the image would, on a free port; ask for health and an action."""
    last = {step.word: step.text for step in stages(parse(ROOT / SERVING))[-1]}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*json.loads(last["ENTRYPOINT"]), *json.loads(last["CMD"])]
    command = [str(bundle) if word == "/bundle" else word for word in command]
    environment = {**os.environ, **environment, "MARL_TD_TOKEN": TOKEN}
    process = subprocess.Popen([*command, "--port", str(port)], cwd=folder, env=environment)
    try:
        health = json.loads(last["HEALTHCHECK"].partition("CMD")[2])
        health = [word.replace(":8000/", f":{port}/") for word in health]
        _until_healthy(health, folder, environment)
        signature = json.loads((bundle / "signature.json").read_text())
        name, agent = next(iter(signature["agents"].items()))
        status = _act(port, name, agent)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(20)
    if status != 200 or code != 0:
        raise RuntimeError(f"the server answered {status} and ended with exit code {code}")
    return [
        f"ENTRYPOINT {' '.join(command)}",
        "HEALTHCHECK: healthy",
        f"{name} acted",
        "SIGTERM: 0",
    ]


def _until_healthy(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    for _ in range(40):
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return
        time.sleep(0.25)
    raise RuntimeError(f"the health check never passed: {done.stderr}")


def _act(port: int, name: str, agent: dict[str, Any]) -> int:
    """Status of a request for the action of an agent that sees zeros."""
    body: dict[str, Any] = {}
    seen = {entry["name"]: _zeros(entry["shape"], 0) for entry in agent["observation"]}
    body["observation"] = seen if len(seen) > 1 else next(iter(seen.values()))
    if agent["mask"] is not None:
        body["mask"] = _zeros(agent["mask"]["shape"], True)
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/agents/{name}/act",
        json.dumps(body).encode(),
        {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _zeros(shape: list[int], value: Any) -> Any:
    return [_zeros(shape[1:], value) for _ in range(shape[0])] if shape else value


def main() -> int:
    """Check both files and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="serve this bundle as the image would")
    arguments = parser.parse_args()
    found = [text for path in (TRAINING, SERVING) for text in complaints(ROOT / path)]
    found += requirement_complaints()
    if found:
        print("\n".join(found), file=sys.stderr)
        return 1
    print(f"{TRAINING}, {SERVING}: parsed; files, stages, users and requirements fit")
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(check_serving(Path(folder), arguments.bundle)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
