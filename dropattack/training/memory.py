"""What a run needs of memory at most, and how the C library keeps what is freed."""

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
    """The most memory that was in use since this was made, in MB (2**20 bytes).

    On a GPU what torch allocated there. On a CPU the process's resident memory beyond that of the moment this was made,
    for which memory that an earlier run of the process freed is given back first; without Linux's /proc, the whole
    process's peak since its start.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before = 0.0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        gc.collect()
        if _is_glibc():
            ctypes.CDLL(None).malloc_trim(0)
        with suppress(OSError):
            CLEAR.write_text("5")  # forgets the peak so far
            self._before = _resident("VmRSS")

    def mb(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return max(0.0, _resident("VmHWM") - self._before)


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed for the next step, where it would give it back to the system each time.

    glibc maps every large tensor anew, and the kernel fills its pages with zeros: a third of a step on a CPU with an
    embedding of 80,000 × 300. Returns whether there was such a library to tell.
    """
    if not _is_glibc():
        return False
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(mmap_max, 0) and libc.mallopt(trim_threshold, 2**31 - 1))


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


def _resident(key: str) -> float:
    """MB resident now (`VmRSS`) or at most (`VmHWM`). A system without /proc tells the latter alone."""
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) / 2**10
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
