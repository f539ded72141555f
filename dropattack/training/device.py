"""Where a run computes, and in what precision: Accelerate's answer, made anew for each run of a sweep."""

from __future__ import annotations

from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

Precision = Literal["fp32", "bf16", "fp16"]


def make_accelerator(*, precision: Precision = "fp32", device: Literal["auto", "cpu", "cuda"] = "auto") -> Accelerator:
    """Make the object that knows device, autocast, loss scaler and, under torchrun, the other processes.

    Raises:
        ValueError: `device="cuda"` where there is none, or fp16 without a GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda: no CUDA device is there; take device=auto or cpu")
    if precision == "fp16" and (device == "cpu" or not torch.cuda.is_available()):
        raise ValueError("precision=fp16 needs a GPU; on a CPU there are fp32 and bf16")
    AcceleratorState._reset_state(reset_partial_state=True)  # a process's second run may differ in precision or device
    # Dividing by the number of micro-batches is the loop's: it knows how many rows each has.
    return Accelerator(mixed_precision="no" if precision == "fp32" else precision, cpu=device == "cpu")


def describe(device: torch.device, processes: int) -> dict[str, Any]:
    """What a record's `hardware` says of where the run computed."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"device": device.type, "gpu": gpu, "processes": processes, "threads": torch.get_num_threads()}
