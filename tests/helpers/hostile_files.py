"""Files that mean harm, and the calls that must refuse them: for tests and `benchmarks/hostile_table.py`.

A case takes a run folder and a bundle, both good, does harm to a copy of one, and says who reads it. Payloads
make a folder called `MARKER` in the working directory: nothing may ever run them.
"""

import hashlib
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

MARKER = "a_payload_ran"
SPARSE = 2**34
"""16 GiB that take no room on the disk."""
GOLDEN = {
    "a/in/observation": np.array([[1, 3, 2]], np.float32),
    "a/in/action_mask": np.ones((1, 3), dtype=bool),
    "a/in/steps": np.array([[2]], np.float32),
    "a/out/action": np.array([1]),
    "a/out/scores": np.array([[1, 3, 2]], np.float32),
    "a/out/next_steps": np.array([[3]], np.float32),
}
"""What the actor of `tiny_bundle` does, for a bundle that passes its own check."""


class Payload:
    def __reduce__(self):
        return os.mkdir, (MARKER,)


@dataclass
class Case:
    """One hostile file.

    Args:
        file: which file of a run or a bundle.
        harm: what is wrong with it.
        do: does the harm in a folder.
        message: what the refusal says, a regular expression.
        read: reads the folder.
    """

    file: str
    harm: str
    do: Callable[[Path], None]
    message: str
    read: Callable[[Path], Any]

    @property
    def name(self) -> str:
        return f"{self.file}: {self.harm}"

    @property
    def of_bundle(self) -> bool:
        return self.file.startswith("bundle")


# ------------------------------------------------------------------ readers
def read_config(run):
    from marl_td.training.settings import RunSettings

    return RunSettings.load(run / "config.yaml")


def read_run(run):
    from marl_td.training.trained import load_run

    return load_run(run, 1)


def read_rows(run):
    from marl_td.training.metrics import read_metrics

    return read_metrics(run / "metrics.csv")


def read_checkpoint(run):
    from marl_td.training.checkpoints import Checkpoints

    checkpoints = Checkpoints(run / "checkpoints", None)
    found, complaints = checkpoints.newest_intact()
    if found is None:
        raise ValueError(checkpoints.nothing_to_resume(complaints))
    return found.state()


def read_bundle(bundle):
    from marl_td.deploy import load_bundle

    return load_bundle(bundle, verify=True)


# ------------------------------------------------------------------ harm
def text(name, content):
    def do(folder):
        (folder / name).write_text(content)

    return do


def settings(change):
    """Change the entries of config.yaml."""

    def do(folder):
        path = folder / "config.yaml"
        data = yaml.safe_load(path.read_text())
        change(data)
        path.write_text(yaml.safe_dump(data))

    return do


def put(place, value):
    """Settings with ``value`` at ``place``."""

    def change(data):
        *way, last = place.split(".")
        for name in way:
            data = data[name]
        data[last] = value

    return settings(change)


def put_model(name, value):
    return put(f"model_config.{name}", value)


def weights(content):
    def do(folder):
        path = folder / "policy" / "weights.safetensors"
        path.write_bytes(content(path.read_bytes()) if callable(content) else content)

    return do


def old_weights(content):
    """The file that earlier versions wrote, instead of ours."""

    def do(folder):
        (folder / "policy" / "weights.safetensors").unlink()
        (folder / "policy" / "weights.pt").write_bytes(content())

    return do


def sparse(name):
    def do(folder):
        with (folder / name).open("r+b") as file:
            file.truncate(SPARSE)

    return do


def pickled():
    return pickle.dumps(Payload())


def torch_file(value):
    def content():
        out = io.BytesIO()
        torch.save(value, out)
        return out.getvalue()

    return content


def bomb():
    """A torch file whose numbers are 256 MiB of zeros in a few hundred kilobytes."""
    good, out = zipfile.ZipFile(io.BytesIO(torch_file({"w": torch.zeros(4)})())), io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for info in good.infolist():
            if info.filename.endswith("/data/0"):
                with packed.open(info.filename, "w", force_zip64=True) as entry:
                    for _ in range(256):
                        entry.write(bytes(2**20))
            else:
                packed.writestr(info.filename, good.read(info))
    return out.getvalue()


def safetensors_header(header, data=b""):
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def flipped(content):
    return content[:12] + bytes([content[12] ^ 1]) + content[13:]


def checkpoint_of(run):
    return next((run / "checkpoints").glob("checkpoint_*"))


def in_checkpoint(name, content):
    def do(run):
        path = checkpoint_of(run) / name
        path.write_bytes(content(path.read_bytes()))

    return do


def checkpoint_manifest(change):
    """A manifest with a change, and the digest that fits it again."""

    def do(run):
        from marl_td.training.checkpoint_folder import manifest_bytes

        path = checkpoint_of(run) / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest.pop("digest")
        change(manifest)
        path.write_bytes(manifest_bytes(manifest))

    return do


def checkpoint_state(content):
    """Another state.json, which the manifest lists as it is."""

    def do(run):
        (checkpoint_of(run) / "state.json").write_bytes(content)
        entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        checkpoint_manifest(lambda manifest: manifest["files"].update({"state.json": entry}))(run)

    return do


def old_checkpoint(run):
    folder = checkpoint_of(run)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    (run / "checkpoints" / "checkpoint_60.pt").write_bytes(pickled())


def in_bundle(name, content):
    """Another file, which the manifest lists as it is."""

    def do(bundle):
        data = content() if callable(content) else content
        (bundle / name).write_bytes(data)
        listed(bundle, name, {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()})

    return do


def listed(bundle, name, entry):
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = entry
    path.write_text(json.dumps(manifest))


def signature(**changes):
    """Another entry of the first agent of signature.json."""

    def do(bundle):
        path = bundle / "signature.json"
        data = json.loads(path.read_text())
        next(iter(data["agents"].values())).update(changes)
        in_bundle("signature.json", json.dumps(data).encode())(bundle)

    return do


def safety(entry):
    def do(bundle):
        data = json.loads((bundle / "signature.json").read_text()) | {"safety": entry}
        in_bundle("signature.json", json.dumps(data).encode())(bundle)

    return do


def traversal(bundle):
    listed(bundle, "../../../../etc/passwd", {"size": 1, "sha256": "0" * 64})


def link(bundle):
    (bundle / "golden.npz").unlink()
    (bundle / "golden.npz").symlink_to("/etc/passwd")


def other_format(folder):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))


def objects():
    out = io.BytesIO()
    np.savez(out, x=np.array([Payload()], dtype=object))
    return out.getvalue()


def npz_bomb():
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed,
        packed.open("x.npy", "w", force_zip64=True) as entry,
    ):
        for _ in range(1100):
            entry.write(bytes(2**20))
    return out.getvalue()


def huge_npz():
    """An array whose header says 2^40 numbers, without the numbers."""
    out, head = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)}
    )
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("x.npy", head.getvalue())
    return out.getvalue()


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
)
DEEP = b"[" * 200_000 + b"]" * 200_000
ENTRY = {"bytes": 1, "sha256": "0" * 64}
CALL = {"_target_": "os.mkdir", "path": MARKER}
UNSAFE = r"is not YAML that can be read safely"
NO_TENSORS = r"is not a safetensors file, or is damaged"
NOT_READ = r"holds no plain tensors, or is damaged, and is not read"
OWN_ENV = {"env": "os:mkdir", "options": {"path": MARKER}}
HUGE = {"w": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}}


def of_own_environment(data):
    data.update(task="marl_td/pettingzoo", task_config=OWN_ENV)


CASES = [
    Case("config.yaml", "tag that calls os.mkdir",
         text("config.yaml", f"!!python/object/apply:os.mkdir ['{MARKER}']"), UNSAFE, read_config),
    Case("config.yaml", "tag that names a class",
         text("config.yaml", "algorithm: !!python/name:os.system ''"), UNSAFE, read_config),
    Case("config.yaml", "aliases that unfold to 9^30 entries",
         text("config.yaml", LAUGHS), "aliases are not read", read_config),
    Case("config.yaml", "200,000 lists in each other",
         text("config.yaml", DEEP.decode()), "nested too deeply", read_config),
    Case("config.yaml", "16 GiB", sparse("config.yaml"), "settings have at most", read_config),
    Case("config.yaml", "bytes that are no text",
         lambda run: (run / "config.yaml").write_bytes(b"\xff\xfe\x00" * 50), UNSAFE, read_config),
    Case("config.yaml", "cut in the middle",
         lambda run: os.truncate(run / "config.yaml", 700), "lacks|safely", read_config),
    Case("config.yaml", "_target_ for Hydra in the algorithm's settings",
         put("algorithm_config._target_", "os.mkdir"), "has '_target_', which asks for", read_config),
    Case("config.yaml", "_target_ for Hydra deep in the task's settings",
         put("task_config.options", {"inner": [CALL]}), "has '_target_', which asks for", read_config),
    Case("config.yaml", "activation_class subprocess.getoutput",
         put_model("activation_class", "subprocess.getoutput"), r"must be layers of torch\.nn", read_config),
    Case("config.yaml", "layer_class torch.load",
         put_model("layer_class", "torch.load"), r"must be layers of torch\.nn", read_config),
    Case("config.yaml", "import path of an environment",
         settings(of_own_environment), "No code is imported because a file names it", read_config),
    Case("config.yaml", "model outside the registry",
         put_model("name", "os.path"), "which is in no registry", read_config),
    Case("config.yaml", "environment variable asked for",
         put("experiment_config.lr", "${oc.env:HOME}"), "lr must be a number; got '..oc.env", read_config),
    Case("config.yaml", "text where a number belongs",
         put("experiment_config.max_n_frames", "many"), "must be a whole number or null; got 'many'",
         read_config),
    Case("config.yaml", "setting of a version that does not exist yet",
         put("experiment_config.warp", 1), "sets 'warp', which RunConfig does not have", read_config),
    Case("config.yaml", "function in the shield",
         put("task_config.safety", {"override": "os:mkdir"}), "no code is read from settings", read_run),
    Case("config.yaml", "networks of 10^9 x 10^9",
         put_model("num_cells", [10**9, 10**9]), "the file with the weights has", read_run),
    Case("config.yaml", "10^12 steps", put("task_config.max_steps", 10**12), "go up to", read_run),
    Case("weights.safetensors", "a pickle", weights(pickled()), NO_TENSORS, read_run),
    Case("weights.safetensors", "a torch file with a payload",
         weights(torch_file({"w": Payload()})()), NO_TENSORS, read_run),
    Case("weights.safetensors", "16 GiB", sparse("policy/weights.safetensors"), "at most", read_run),
    Case("weights.safetensors", "header of 2^63 bytes",
         weights(struct.pack("<Q", 2**63) + b"{}"), NO_TENSORS, read_run),
    Case("weights.safetensors", "shape of 2^40 numbers without the numbers",
         weights(safetensors_header(HUGE)), NO_TENSORS, read_run),
    Case("weights.safetensors", "shapes of another network",
         weights(safetensors_header(
             {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4))),
         "does not fit this run's settings", read_run),
    Case("weights.safetensors", "cut in the middle", weights(lambda c: c[: len(c) // 2]), NO_TENSORS,
         read_run),
    Case("weights.safetensors", "bit flipped in the header", weights(flipped),
         f"{NO_TENSORS}|does not fit", read_run),
    Case("weights.pt (old)", "a pickle", old_weights(pickled), NOT_READ, read_run),
    Case("weights.pt (old)", "payload in a torch file",
         old_weights(torch_file({"w": Payload()})), NOT_READ, read_run),
    Case("weights.pt (old)", "256 MiB packed into a few hundred KB", old_weights(bomb), "is compressed",
         read_run),
    Case("weights.pt (old)", "a list of tensors",
         old_weights(torch_file([torch.zeros(1)])), "something else than tensors by name", read_run),
    Case("metrics.csv", "field of a megabyte",
         text("metrics.csv", "counters/iter\n" + "1" * 2**20 + "\n"), "no table of metrics", read_rows),
    Case("metrics.csv", "bytes that are no text",
         lambda run: (run / "metrics.csv").write_bytes(b"\xff\n" * 50), "no table of metrics", read_rows),
    Case("metrics.csv", "formula for a spreadsheet",
         text("metrics.csv", "counters/iter\n=cmd|' /C calc'!A0\n"), "where a number belongs", read_rows),
    Case("metrics.csv", "16 GiB", sparse("metrics.csv"), "at most", read_rows),
    Case("checkpoint", "bit flipped in the tensors",
         in_checkpoint("state.safetensors", flipped), r"is damaged: state.safetensors", read_checkpoint),
    Case("checkpoint", "state cut in the middle",
         in_checkpoint("state.json", lambda c: c[: len(c) // 2]), "is damaged: state.json has",
         read_checkpoint),
    Case("checkpoint", "path out of the folder",
         checkpoint_manifest(lambda m: m["files"].update({"../../../../etc/passwd": ENTRY})),
         "which is not a plain file name", read_checkpoint),
    Case("checkpoint", "file without a size, with the right digest",
         checkpoint_manifest(lambda m: m["files"].update({"state.json": {}})),
         "the entry of state.json: of another form", read_checkpoint),
    Case("checkpoint", "list of files that is none, with the right digest",
         checkpoint_manifest(lambda m: m.update(files=[1], frames="many")),
         "frames, files: of another form", read_checkpoint),
    Case("checkpoint", "another format and no versions",
         checkpoint_manifest(lambda m: m.update(format=3, versions=None)),
         "written by marl_td of an unknown version", read_checkpoint),
    Case("checkpoint", "another format, with the right digest",
         checkpoint_manifest(lambda m: m.update(format=99)), "has format 99, this version", read_checkpoint),
    Case("checkpoint", "200,000 lists in each other", checkpoint_state(DEEP),
         "checkpoint '.*':", read_checkpoint),
    Case("checkpoint", "state that names tensors which are not there",
         checkpoint_state(b'{"$tensor": "nothing"}'), "does not describe a state", read_checkpoint),
    Case("checkpoint", "manifest changed by hand",
         in_checkpoint("manifest.json", lambda c: c.replace(b"frames", b"Frames")), "SHA-256",
         read_checkpoint),
    Case("checkpoint", "a pickle of an earlier version", old_checkpoint,
         "was written by an earlier version of marl_td", read_checkpoint),
    Case("bundle: manifest", "path out of the folder", traversal, "NAME or FOLDER/NAME", read_bundle),
    Case("bundle: manifest", "another format", other_format, "this version reads", read_bundle),
    Case("bundle: manifest", "file of 16 GiB",
         lambda b: listed(b, "golden.npz", {"size": SPARSE, "sha256": "0" * 64}), "at most", read_bundle),
    Case("bundle: manifest", "200,000 lists in each other",
         lambda b: (b / "manifest.json").write_bytes(DEEP), "is not JSON", read_bundle),
    Case("bundle: files", "link to another file", link, "is a link", read_bundle),
    Case("bundle: files", "bit flipped",
         lambda b: (b / "signature.json").write_bytes(flipped((b / "signature.json").read_bytes())),
         "is not the file that manifest.json lists", read_bundle),
    Case("bundle: signature", "actor outside of the bundle",
         signature(actor="../../../etc/passwd"), "has no 'actors/../../../etc/passwd.onnx'", read_bundle),
    Case("bundle: signature", "state of 2^50 numbers",
         signature(state=[{"name": "h", "dtype": "float32", "shape": [2**50], "next": "h"}]),
         "sizes must be at least 1|has the shape", read_bundle),
    Case("bundle: signature", "shield of a later version",
         safety({"quadratic": []}), "this version of marl_td cannot keep it", read_bundle),
    Case("bundle: signature", "shield with a number that is none",
         safety({"linear": [{"scope": "own", "weights": {"agents": [[1e999]]}, "limit": 1}]}),
         "safety|constraint|is not JSON", read_bundle),
    Case("bundle: actor", "random bytes", in_bundle("actors/agents.onnx", b"\x08\x07random"),
         "onnxruntime cannot load", read_bundle),
    Case("bundle: actor", "numbers from another file",
         in_bundle("actors/agents.onnx", b"\x0a\x08location\x12\x0b/etc/passwd"),
         "takes numbers from another file", read_bundle),
    Case("bundle: golden.npz", "pickled objects", in_bundle("golden.npz", objects),
         "holds no plain arrays", read_bundle),
    Case("bundle: golden.npz", "1.1 GiB packed into a few MB", in_bundle("golden.npz", npz_bomb),
         "unpacks to more than", read_bundle),
    Case("bundle: golden.npz", "array of 2^40 numbers without the numbers",
         in_bundle("golden.npz", huge_npz), "holds no plain arrays|unpacks", read_bundle),
]  # fmt: skip
