"""Peak memory of a run, and allocator settings."""

from __future__ import annotations

import ctypes
import gc
import platform
import sys
from contextlib import suppress
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Peak memory since construction, in MB (2**20 bytes).

    On a GPU: memory allocated by torch. On a CPU: the growth of the process's resident memory since construction, which
    first returns memory freed by an earlier run to the system; without Linux's /proc, the process's peak since its
    start.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before = 0.0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        return_freed_memory()
        with suppress(OSError):
            CLEAR.write_text("5")  # resets the peak
            self._before = _resident("VmRSS")

    def mb(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return max(0.0, _resident("VmHWM") - self._before)


def return_freed_memory() -> None:
    """Return what `keep_freed_memory` has kept to the system, if the C library is glibc."""
    gc.collect()
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed_memory() -> bool:
    """Make the C library reuse freed memory instead of returning it to the system.

    By default glibc maps new pages for each large tensor, which the kernel zeroes: a third of a step on a CPU with an
    embedding of 80,000 × 300.

    Returns:
        Whether the C library is glibc and accepted the settings.
    """
    if not _is_glibc():
        return False
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(mmap_max, 0) and libc.mallopt(trim_threshold, -1))  # -1: no threshold


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


def _resident(key: str) -> float:
    """Return the current (`VmRSS`) or peak (`VmHWM`) resident MB; without /proc, always the peak."""
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) / 2**10
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
