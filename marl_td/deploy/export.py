"""Writing a bundle: actors of all agents in three forms, and everything that says what they are.

Nothing is written before all forms of every actor have been compared with the training policy. The folder is
made beside its place and renamed when it is whole.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from marl_td.deploy import format as layout
from marl_td.deploy.agents import AgentExport, agent_exports
from marl_td.deploy.card import card_text, versions
from marl_td.deploy.compare import ActorForms, Difference, actor_forms, golden_case, largest
from marl_td.deploy.format import BundleError
from marl_td.deploy.runtime import load_bundle
from marl_td.deploy.safety_export import safety_entry
from marl_td.deploy.signature import DETERMINISTIC, SAMPLED
from marl_td.deploy.source import PolicySource, run_source
from marl_td.training.files import write_atomic
from marl_td.training.settings import CONFIG_FILE
from marl_td.training.tensor_files import tensor_bytes

Notify = Callable[[str], None]
NO_LICENCE = "not stated"


@dataclass(frozen=True)
class ExportReport:
    """What was exported.

    Args:
        folder: the bundle.
        agents: every agent and the name of its actor.
        differences: of each actor, by form: largest difference to the training policy's outputs.
        mode: deterministic or sampled.
        size: of all files in bytes.
    """

    folder: Path
    agents: dict[str, str]
    differences: dict[str, Difference]
    mode: str
    size: int

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "folder": str(self.folder),
            "mode": self.mode,
            "agents": self.agents,
            "max_difference": {name: asdict(found) for name, found in self.differences.items()},
            "bytes": self.size,
        }


def export_run(
    folder: Path,
    out: Path,
    *,
    sampled: bool = False,
    overwrite: bool = False,
    licence: str = NO_LICENCE,
    env: str | None = None,
    notify: Notify = lambda step: None,
) -> ExportReport:
    """Write the policy of a run as a bundle.

    Args:
        folder: what ``marl-td train --out`` wrote.
        out: the bundle's folder.
        sampled: let the actors write what actions are drawn from, and the runtime draw them.
        overwrite: replace a bundle that is there.
        licence: of the policy's weights, for the card.
        env: import path of the environment, for a run on one of the user's own.
        notify: told what is being done.

    Raises:
        ValueError: if the run cannot be read, a policy cannot act decentralised, or ``out`` is in use.
        ImportError: without the packages of the extra ``export``.
    """
    check_place(out, overwrite)
    notify("the run's policy")
    source = run_source(folder, env)
    mode = SAMPLED if sampled else DETERMINISTIC
    return export_policy(
        source, out, mode=mode, overwrite=overwrite, licence=licence, notify=notify
    )


def export_policy(
    source: PolicySource,
    out: Path,
    *,
    mode: str = DETERMINISTIC,
    overwrite: bool = False,
    licence: str = NO_LICENCE,
    notify: Notify = lambda step: None,
) -> ExportReport:
    """Write a policy as a bundle; arguments and errors as for :func:`export_run`."""
    check_place(out, overwrite)
    agents = agent_exports(source, mode)
    forms: dict[str, ActorForms] = {}
    for agent in agents:
        name = agent.signature.actor
        if name not in forms:
            notify(f"actor {name}")
            forms[name] = actor_forms(source, agent)
    differences: dict[str, Difference] = {}
    golden: dict[str, Any] = {}
    for agent in agents:
        name = agent.signature.actor
        notify(f"comparing agent {agent.name}")
        found, case = golden_case(source, agent, forms[name])
        differences[name] = largest(differences.get(name), found)
        golden |= case
    files = _files(source, agents, forms, golden, licence)
    size = _write(out, files, licence)
    return ExportReport(
        out, {agent.name: agent.signature.actor for agent in agents}, differences, mode, size
    )


def check_place(out: Path, overwrite: bool) -> None:
    """Raise ``ValueError`` unless a bundle can be written to ``out``."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ValueError(f"'{out}' is not a folder; choose another place for the bundle.")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not overwrite:
        raise ValueError(
            f"'{out}' is not empty; choose another folder, or say that it is to be replaced (--overwrite)."
        )
    try:
        layout.read_manifest(out)
    except BundleError as error:
        raise ValueError(
            f"'{out}' holds something else than a bundle, which is not removed: {error}"
        ) from error


def _files(
    source: PolicySource,
    agents: list[AgentExport],
    forms: dict[str, ActorForms],
    golden: dict[str, Any],
    licence: str,
) -> dict[str, bytes]:
    """Every file but the manifest."""
    signature = {
        "format": layout.FORMAT,
        "algorithm": source.settings.algorithm,
        "task": source.settings.task,
        "task_says": source.texts,
        "agents": {agent.name: agent.signature.as_dict() for agent in agents},
        "safety": safety_entry(source),
    }
    evaluation = _evaluation(source.folder)
    files = {layout.SIGNATURE: _json(signature), layout.EVALUATION: _json(evaluation)}
    for agent in agents:
        name, tensors = agent.signature.actor, agent.actor.state_dict()
        stem = f"{layout.ACTORS}/{name}"
        files[f"{stem}.onnx"] = forms[name].onnx
        files[f"{stem}.pt2"] = forms[name].program
        files[f"{stem}.safetensors"] = tensor_bytes(tensors)
    archive = io.BytesIO()
    np.savez_compressed(archive, **golden)
    files[layout.GOLDEN] = archive.getvalue()
    files[layout.CONFIG] = _config(source)
    files[layout.CARD] = card_text(source, agents, evaluation, licence).encode()
    return files


def _evaluation(folder: Path | None) -> dict[str, Any]:
    """The scores of the run's report, if there is one."""
    path = None if folder is None else folder / "report" / "report.json"
    if path is None or not path.is_file():
        note = "the run has no report; `marl-td evaluate DIR` makes one, then export again"
        return {"report": None, "note": note}
    return {"report": _without_nan(layout.parse_json(path.read_bytes(), path))}


def _without_nan(value: Any) -> Any:
    """``value`` with null for numbers that JSON does not have: intervals of a single episode."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _config(source: PolicySource) -> bytes:
    if source.folder is not None:
        return (source.folder / CONFIG_FILE).read_bytes()
    return source.settings.as_yaml()


def _json(data: Any) -> bytes:
    return json.dumps(data, indent=2, allow_nan=False).encode()


def _write(out: Path, files: dict[str, bytes], licence: str) -> int:
    """Write all files beside ``out``, read them back, then rename the folder."""
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.with_name(f".{out.name}.tmp-{uuid.uuid4().hex[:8]}")
    old = out.with_name(f".{out.name}.old-{uuid.uuid4().hex[:8]}")
    manifest = {
        "format": layout.FORMAT,
        "kind": layout.KIND,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
        "licence": licence,
        "files": {name: layout.describe_file(data) for name, data in sorted(files.items())},
    }
    try:
        (fresh / layout.ACTORS).mkdir(parents=True)
        for name, data in {**files, layout.MANIFEST: _json(manifest)}.items():
            write_atomic(fresh / name, data)
        load_bundle(fresh, verify=True)
        _put(fresh, out, old)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return sum(len(data) for data in files.values())


def _put(fresh: Path, out: Path, old: Path) -> None:
    """Rename ``fresh`` to ``out``; what was there goes to ``old``, and comes back if that fails."""
    if out.exists():
        os.replace(out, old)
    try:
        os.replace(fresh, out)
    except BaseException:
        if old.exists():
            os.replace(old, out)
        raise
