"""Bundles for tests of the server, of policies that were never trained, which is all the same to it."""

import hashlib
import json
import shutil

from small_policies import GRU, MLP

OWN = {"scope": "own", "weights": {"agents": [[1.0, 1.0], [1.0, 1.0]]}, "limit": 0.1}
JOINT = {"scope": "joint", "weights": {"agents": [[1.0, 0.0], [1.0, 0.0]]}, "limit": 0.2}
CENTRE = {"agents": [[0.05, -0.5], [0.05, -0.5]]}
KINDS = {
    "plain": ("marl_td/iddpg", MLP),
    "memory": ("marl_td/iql", (*GRU, "experiment.prefer_continuous_actions=false")),
    "entries": ("marl_td/belief_ppo", (*MLP, "experiment.prefer_continuous_actions=false")),
}
"""Continuous actions; discrete ones with masks and a memory; observations of several parts."""


def changed(bundle, folder, **entries):
    """A copy of a bundle whose signature has other entries, and a manifest that fits it."""
    shutil.copytree(bundle, folder)
    signature = json.loads((folder / "signature.json").read_text()) | entries
    return rewritten(folder, "signature.json", json.dumps(signature).encode())


def rewritten(folder, name, content):
    """Replace a file of a bundle and what the manifest says of it."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"][name] = {"size": len(content), "sha256": digest}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
