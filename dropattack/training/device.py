"""Device and precision of a run: an Accelerator, rebuilt for each run of a sweep."""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

Precision = Literal["fp32", "bf16", "fp16"]


def make_accelerator(*, precision: Precision = "fp32", device: Literal["auto", "cpu", "cuda"] = "auto") -> Accelerator:
    """Return the Accelerator: device, autocast, loss scaler and, under torchrun, the other processes.

    Raises:
        ValueError: `device="cuda"` without a CUDA device, or fp16 without a GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda: there is no CUDA device; use device=auto or cpu")
    if precision == "fp16" and (device == "cpu" or not torch.cuda.is_available()):
        raise ValueError("precision=fp16 needs a GPU; a CPU supports fp32 and bf16")
    AcceleratorState._reset_state(reset_partial_state=True)  # a process's runs may differ in precision
    # Accumulation is left to the loop, which weights each micro-batch by its rows.
    return Accelerator(mixed_precision="no" if precision == "fp32" else precision, cpu=device == "cpu")


def describe(device: torch.device, processes: int) -> dict[str, Any]:
    """Return the device entries of a record's `hardware`."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "device": device.type, "gpu": gpu, "processes": processes, "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(), "libraries": _libraries(),
    }  # fmt: skip


def _libraries() -> dict[str, str]:
    """Return the versions of the libraries whose kernels a CPU runs, as far as torch tells them."""
    built = torch.__config__.show()
    patterns = {"onednn": r"MKL-DNN v([\d.]+)", "mkl": r"oneAPI Math Kernel Library Version ([\d.]+)"}
    return {name: found[1] for name, pattern in patterns.items() if (found := re.search(pattern, built))}
