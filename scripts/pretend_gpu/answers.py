"""What `torch.cuda` says and does on the pretended GPU, whose operations are `device.cpp`.

A CPU build of torch has the functions of `torch.cuda` and stops in them, because its C++ side lacks what
they call. They are replaced here, by name, until what marl_td and its libraries ask is answered. Streams,
events and waiting do nothing: there is one device, and every operation is done when its call returns.
"""

import contextlib
import types
from collections.abc import Callable
from typing import Any

import torch

GIB = 2**30
NAME = "pretended GPU (the host's memory)"
PROPERTIES = types.SimpleNamespace(
    name=NAME, major=9, minor=0, multi_processor_count=132, total_memory=64 * GIB
)
KERNELS = torch.library.Library("aten", "IMPL")  # what it holds lasts as long as it does
MODES = ("default", "warn", "error")


class Idle(contextlib.nullcontext[Any]):
    """A stream, an event, or the choice of a device: nothing to wait for, nothing to choose."""

    cuda_stream = device_index = 0
    device = torch.device("cuda", 0)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(self)

    def nothing(self, *args: Any) -> None:
        """Do nothing, at once."""

    record = wait = synchronize = wait_stream = wait_event = nothing

    def record_event(self, event: Any = None) -> Any:
        """An event that has happened."""
        return event or Idle()

    def query(self) -> bool:
        """Whether all is done."""
        return True

    def elapsed_time(self, other: Any) -> float:
        """No time passes."""
        return 0.0


def each(make: Callable[[str], Any], *names: str) -> dict[str, Any]:
    """An answer of its own for every name: the compiler tells functions of `torch.cuda` apart by identity."""
    return {name: make(name) for name in names}


def general_answers() -> dict[str, Any]:
    """That there is one GPU, and what it is like."""
    memory = ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved")
    idle = ("empty_cache", "reset_peak_memory_stats", "set_device", "set_stream", "synchronize")
    return {
        "_initialized": True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda device=None: NAME,
        "get_device_properties": lambda device=None: PROPERTIES,
        "get_device_capability": lambda device=None: (PROPERTIES.major, PROPERTIES.minor),
        "mem_get_info": lambda device=None: (PROPERTIES.total_memory, PROPERTIES.total_memory),
        **each(lambda _: lambda *args, **options: True, "is_available", "is_initialized"),
        **each(lambda _: lambda: False, "_is_in_bad_fork", "is_current_stream_capturing"),
        **each(lambda _: lambda device=None: 0, *memory),
        **each(lambda _: lambda *args: None, "_lazy_init", *idle),
        **each(lambda name: type(name, (Idle,), {}), "Stream", "Event", "device", "stream"),
        **each(lambda _: lambda device=None: Idle(), "current_stream", "default_stream"),
    }


def random_answers(generator: torch.Generator) -> dict[str, Any]:
    """The stream of random numbers of the device."""
    return {
        "default_generators": (generator,),
        "manual_seed": lambda seed: generator.manual_seed(seed),
        "manual_seed_all": lambda seed: generator.manual_seed(seed),
        "get_rng_state": lambda device=None: generator.get_state(),
        "get_rng_state_all": lambda: [generator.get_state()],
        "set_rng_state": lambda state, device=None: generator.set_state(state),
        "set_rng_state_all": lambda states: generator.set_state(states[0]),
    }


def waiting_answers() -> dict[str, Any]:
    """Whether it is an error that the host waits for the device. A warning is not given."""
    mode = [0]

    def set_mode(new: int | str) -> None:
        mode[0] = MODES.index(new) if isinstance(new, str) else new
        torch.ops.pretend_gpu.waiting_is_an_error(MODES[mode[0]] == "error")

    return {"set_sync_debug_mode": set_mode, "get_sync_debug_mode": lambda: mode[0]}


def move_storages() -> None:
    """Let storages be copied to the device and on it, as reading files and `deepcopy` do."""
    to_others = torch._utils._to

    def on_device(storage: Any, non_blocking: bool = False) -> Any:
        empty = torch.empty(storage.nbytes(), dtype=torch.uint8, device="cuda")
        return empty.untyped_storage().copy_(storage, non_blocking)

    def to(self: Any, device: torch.device, non_blocking: bool = False) -> Any:
        if device.type == "cuda" and self.device.type != "cuda":
            return on_device(self, non_blocking)
        return to_others(self, device, non_blocking)

    def clone(self: Any) -> Any:
        if self.device.type == "cuda":
            return on_device(self)
        return type(self)(self.nbytes(), device=self.device).copy_(self)

    torch._utils._to = torch.storage._to = to
    torch.UntypedStorage.clone = torch.storage._StorageBase.clone = clone


def gru_cell(x: Any, h: Any, state: Any, x_bias: Any = None, h_bias: Any = None) -> Any:
    """A GRU's step from the products of input and state with the weights, as CUDA has it in one kernel."""
    if x_bias is not None:
        x, h = x + x_bias, h + h_bias
    (xr, xi, xn), (hr, hi, hn) = x.chunk(3, 1), h.chunk(3, 1)
    reset, update = (xr + hr).sigmoid(), (xi + hi).sigmoid()
    new = (xn + reset * hn).tanh()
    return new + update * (state - new), torch.cat([reset, update, new, state, hn], 1)


def gru_cell_backward(grad: Any, workspace: Any, has_bias: bool) -> Any:
    """Gradients of products, state and biases."""
    reset, update, new, state, hn = workspace.chunk(5, 1)
    d_new = grad * (1 - update) * (1 - new * new)
    d_update = grad * (state - new) * (1 - update) * update
    d_reset = d_new * hn * (1 - reset) * reset
    d_x = torch.cat([d_reset, d_update, d_new], 1)
    d_h = torch.cat([d_reset, d_update, d_new * reset], 1)
    biases = (d_x.sum(0), d_h.sum(0)) if has_bias else (None, None)
    return d_x, d_h, grad * update, *biases


def turn_on() -> None:
    """Answer for the device, whose library has been loaded."""
    torch.ops.pretend_gpu.turn_on()
    generator = torch.ops.pretend_gpu.default_generator()
    random = random_answers(generator)
    for name, answer in {**general_answers(), **random, **waiting_answers()}.items():
        setattr(torch.cuda, name, answer)
    for name, answer in random.items():
        setattr(torch.cuda.random, name, answer)
    torch._C._cuda_isInBadFork = lambda: False
    torch.backends.cudnn.is_acceptable = lambda tensor: False  # recurrent networks ask
    move_storages()
    KERNELS.impl("_thnn_fused_gru_cell", gru_cell, "CUDA")
    KERNELS.impl("_thnn_fused_gru_cell_backward", gru_cell_backward, "CUDA")
