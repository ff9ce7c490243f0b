"""States of random generators as tensors and plain numbers, so that a checkpoint can hold them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

Packed = dict[str, Any]


def pack_numpy(state: Any) -> Packed:
    """What ``numpy.random.get_state()`` gives, without NumPy's arrays."""
    kind, key, position, has_gauss, gauss = state
    words = torch.from_numpy(np.asarray(key, dtype=np.int64).copy())
    return {
        "kind": str(kind),
        "words": words,
        "position": int(position),
        "has_gauss": int(has_gauss),
        "gauss": float(gauss),
    }


def unpack_numpy(packed: Packed) -> Any:
    """What ``numpy.random.set_state`` takes."""
    words = packed["words"].numpy().astype(np.uint32)
    return (packed["kind"], words, packed["position"], packed["has_gauss"], packed["gauss"])


def pack_python(state: Any) -> Packed:
    """What ``random.getstate()`` gives."""
    version, words, gauss = state
    return {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss}


def unpack_python(packed: Packed) -> Any:
    """What ``random.setstate`` takes."""
    return (packed["version"], tuple(packed["words"].tolist()), packed["gauss"])
