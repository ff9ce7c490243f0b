"""The deployable policy of a run: weights and signature, without any pickled object.

``policy/weights.safetensors`` holds tensors by name, ``policy/signature.json`` says what goes in and comes
out: per group the agents, and name, type and shape of every input and action.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchrl.data import Categorical, Composite

import marl_td
from marl_td.training.files import write_atomic
from marl_td.training.tensor_files import load_tensors, require_alike, save_tensors

WEIGHTS_FILE = "weights.safetensors"
OLD_WEIGHTS_FILE = "weights.pt"
"""What earlier versions wrote: tensors by name, read with ``weights_only``."""
SIGNATURE_FILE = "signature.json"


def policy_tensors(policy: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    named = [*policy.named_parameters(), *policy.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}


def save_policy(folder: Path, policy: nn.Module, signature: dict[str, Any]) -> None:
    """Write weights and signature into ``folder``, each atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / WEIGHTS_FILE, policy_tensors(policy))
    text = json.dumps(signature, indent=2)
    write_atomic(folder / SIGNATURE_FILE, text.encode())


def load_weights(folder: Path, policy: nn.Module) -> None:
    """Load the weights in ``folder`` into ``policy``, which must have been built alike.

    Raises:
        ValueError: if the file is missing or damaged, or its tensors are not the policy's.
    """
    own = dict([*policy.named_parameters(), *policy.named_buffers()])
    loaded = read_weights(folder, own)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(loaded[name])


def read_weights(folder: Path, expected: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The policy's tensors by name, on the CPU.

    Args:
        folder: the ``policy`` folder of a run.
        expected: tensors whose names, shapes and types they must have.

    Raises:
        ValueError: if the file is missing or damaged, does not hold ``expected``, or holds a number that is
            not finite where ``expected`` has another.
    """
    path = _weights_path(folder)
    if path.name == WEIGHTS_FILE:
        loaded = load_tensors(path, expected)
    else:
        loaded = _load_old(path)
        if expected is not None:
            require_alike(loaded, expected, path)
    _require_finite(loaded, expected or {}, path)
    return loaded


def _require_finite(loaded: dict[str, Tensor], fresh: dict[str, Tensor], path: Path) -> None:
    """Numbers must be finite, but for constants that are infinite in a fresh policy, too (open bounds)."""
    for name, tensor in loaded.items():
        good = tensor.isfinite()  # of integers and booleans all
        if name in fresh and not good.all():
            good |= tensor == fresh[name].detach().cpu()
        if not good.all():
            raise ValueError(
                f"'{path}' holds numbers that are not finite in '{name}': training went wrong or the file "
                "is damaged. Train again, or copy the file again."
            )


def _load_old(path: Path) -> dict[str, Tensor]:
    """The tensors of an earlier version's file; whatever else is in it is refused, not run."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [info for info in archive.infolist() if info.compress_type]
        if packed:  # torch never compresses; a small file must not become a large one
            raise ValueError(f"{packed[0].filename} is compressed")
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's errors for such files have no common class
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"'{path}' holds no plain tensors, or is damaged, and is not read: {reason}"
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise ValueError(f"'{path}' holds something else than tensors by name, and is not read.")
    return loaded


def weights_size(folder: Path) -> int:
    """Bytes of the file with the policy's weights; raises ``ValueError`` if there is none."""
    return _weights_path(folder).stat().st_size


def _weights_path(folder: Path) -> Path:
    path, old = folder / WEIGHTS_FILE, folder / OLD_WEIGHTS_FILE
    if not path.is_file() and not old.is_file():
        raise ValueError(
            f"'{folder}' holds no policy ({WEIGHTS_FILE} is missing); the run ended before its first "
            "checkpoint. Go on with it (`marl-td resume`), or train it again."
        )
    return path if path.is_file() else old


def policy_signature(
    group_map: dict[str, list[str]],
    inputs: Composite,
    actions: Composite,
    run: dict[str, Any],
) -> dict[str, Any]:
    """What the policy of each group reads and writes, per agent and without a batch dimension.

    Args:
        group_map: groups and their agents.
        inputs: specs of the groups' observations (and masks).
        actions: specs of the groups' actions.
        run: what the policy comes from, added as it is.
    """
    groups = {
        group: {
            "agents": agents,
            "inputs": {
                key if isinstance(key, str) else ".".join(key): _tensor(spec)
                for key, spec in inputs[group].items(True, True)
            },
            "action": _action(actions[group, "action"]),
        }
        for group, agents in group_map.items()
    }
    versions = {"marl_td": marl_td.__version__, "torch": torch.__version__}
    return {"format": 1, **run, "versions": versions, "groups": groups}


def _tensor(spec: Any) -> dict[str, Any]:
    return {"dtype": str(spec.dtype).removeprefix("torch."), "shape": list(spec.shape[1:])}


def _action(spec: Any) -> dict[str, Any]:
    if isinstance(spec, Categorical):
        return {"kind": "discrete", **_tensor(spec), "n": int(spec.space.n)}
    low, high = spec.space.low[0].tolist(), spec.space.high[0].tolist()
    return {"kind": "continuous", **_tensor(spec), "low": low, "high": high}
