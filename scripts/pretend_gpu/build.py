"""Compile the operations of the pretended GPU against the torch that is installed, once for each source."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / "build" / "pretend_gpu"
"""Where the compiled library is kept unless told otherwise; git ignores it and `make clean` removes it."""
WRITTEN_FOR = "2.13"
"""The torch whose inner interfaces the C++ uses. They change: with another, run `make pretend-gpu`."""
COMPILERS = ("c++", "g++", "clang++")
# Unoptimised: compiling takes most of the time of a short run.
FLAGS = ("-std=c++20", "-O0", "-shared", "-fPIC")


class CannotPretend(Exception):
    """This machine or this torch has no use for a pretended GPU; the message says why."""


def torch_folder() -> Path:
    """Where torch is, without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise CannotPretend("torch is not installed: run `make install`")
    return Path(spec.origin).parent


def compiler() -> str:
    """The C++ compiler: the environment variable CXX, or the first that is found."""
    for name in (os.environ.get("CXX", ""), *COMPILERS):
        found = shutil.which(name) if name else None
        if found is not None:
            return found
    raise CannotPretend(
        f"no C++ compiler found ({', '.join(COMPILERS)}); install one (Debian: `apt install g++`) or "
        "name it in the environment variable CXX"
    )


def check() -> None:
    """Check that this machine can pretend to have a GPU.

    Raises:
        CannotPretend: if it cannot, or has no need to.
    """
    if platform.system() != "Linux":
        raise CannotPretend(f"a GPU is pretended on Linux only; this is {platform.system()}")
    torch = runpy.run_path(str(torch_folder() / "version.py"))
    version = torch["__version__"]
    if torch["cuda"] is not None:
        raise CannotPretend(
            f"torch {version} is a build for CUDA {torch['cuda']}, which needs no pretending: `make gpu` "
            "runs the tests on the GPU itself. A GPU is pretended with the CPU build of torch"
        )
    if version.split("+")[0].rpartition(".")[0] != WRITTEN_FOR:
        raise CannotPretend(
            f"torch {version} is here, and this is written for torch {WRITTEN_FOR}, whose inner interfaces "
            "it uses. WRITTEN_FOR in scripts/pretend_gpu/build.py says so; try another with it"
        )
    compiler()


def command(torch: Path) -> list[str]:
    """What compiles the library, up to the name of the result."""
    headers = (torch / "include", torch / "include" / "torch" / "csrc" / "api" / "include")
    system = [word for folder in headers for word in ("-isystem", str(folder))]
    libraries = [f"-L{torch / 'lib'}", f"-Wl,-rpath,{torch / 'lib'}", "-lc10", "-ltorch_cpu"]
    return [compiler(), *FLAGS, *system, str(HERE / "device.cpp"), *libraries]


def library(cache: Path = CACHE) -> Path:
    """The compiled library, which is made if ``cache`` has none of this source, torch and compiler.

    Raises:
        CannotPretend: if there can be none; with what the compiler says if it fails.
    """
    check()
    torch = torch_folder()
    words = command(torch)
    version = (torch / "version.py").read_text()
    sources = "".join((HERE / name).read_text() for name in ("device.h", "device.cpp"))
    key = hashlib.sha256("\n".join([*words, version, sources]).encode()).hexdigest()[:16]
    made = cache / f"device-{key}.so"
    if made.exists():
        return made
    cache.mkdir(parents=True, exist_ok=True)
    print("[pretend_gpu] compiling (about 10 s, once)", file=sys.stderr, flush=True)
    # Made under another name first: nobody loads half a library, and two may compile at a time.
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        half = Path(folder) / made.name
        done = subprocess.run(
            [*words, "-o", str(half)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise CannotPretend(f"{words[0]} failed:\n{done.stderr[-4000:]}")
        half.replace(made)
    return made
