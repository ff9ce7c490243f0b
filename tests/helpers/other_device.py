"""A device beside the CPU on machines that have none: what would fail on a GPU fails here.

Tensors of PyTorch's "meta" device have shapes and no values. Inside :func:`strict` an operation that mixes
them with the CPU's is an error, as on a GPU, and so is whatever reads a value on the host (`.item()`,
`if tensor:`, a mask as an index), which makes a GPU wait.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch._functorch.config
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map

OTHER = torch.device("meta")


def there(tensors: Any) -> Any:
    """The same nest of tensors on the other device."""
    return tree_map(lambda x: x.to(OTHER) if isinstance(x, torch.Tensor) else x, tensors)


@contextmanager
def strict() -> Iterator[None]:
    """No operation may mix devices or wait for a value."""
    with (
        torch._functorch.config.patch(fake_tensor_allow_meta=True),
        FakeTensorMode(allow_non_fake_inputs=True),
    ):
        yield
