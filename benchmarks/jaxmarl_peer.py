"""JaxMARL's process that steps environments on request."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class JaxMarl:
    """JaxMARL in its own process, asked over a pipe."""

    def __init__(self, python: Path) -> None:
        self.process = subprocess.Popen(
            [str(python), str(HERE / "stepping_jaxmarl.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": ""},
        )
        self.about = self._answer("device")

    def _answer(self, key: str) -> dict[str, Any]:
        """The next line that is an answer; the package prints greetings of its own."""
        for line in self.process.stdout or ():
            if line.startswith("{") and key in line:
                return dict(json.loads(line))
        raise RuntimeError("JaxMARL's process ended; run benchmarks/stepping_jaxmarl.py by hand.")

    def rate(self, n_envs: int, seconds: float) -> float:
        """Ask the process for one window."""
        if self.process.stdin is None:
            raise RuntimeError("JaxMARL's process has no input.")
        print(
            json.dumps({"n_envs": n_envs, "seconds": seconds}), file=self.process.stdin, flush=True
        )
        return float(self._answer("rate")["rate"])
