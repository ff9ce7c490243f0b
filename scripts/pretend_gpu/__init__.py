"""A GPU that is none: what would fail on a GPU fails here, on a machine that has only a CPU.

    python scripts/pretend_gpu -m marl_td train --out runs/x ... experiment.train_device=cuda
    make pretend-gpu

A small C++ library (`device.h`, `device.cpp`; `build.py` compiles it) gives torch's CPU build a device
`cuda`. Its memory is the host's, and every operation on it is the CPU's. `answers.py` lets `torch.cuda`
say that the device is there. `trainings.py` holds short runs.

It shows what fails on a GPU because of where things are: a tensor or a generator of the CPU that meets one
of the device, a tensor of the device that is handed to NumPy, the state of a generator that is put back on
the other device, files of a GPU that are read on a machine without one, and, where
`torch.cuda.set_sync_debug_mode("error")` asks for it, an update that waits for the device.

It does not show how fast anything is, how much memory it takes, what real kernels round or in which order
they add, what goes wrong between streams or because the host runs ahead of the device, more than one
device, nor anything compiled: Triton's kernels and CUDA graphs are not part of it. Processes that a command
starts do not have the device. A single number of the CPU (a tensor without dimensions) may meet the device
in any operation; on a GPU not all take one.
"""
