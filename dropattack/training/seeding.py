"""Seeding: all random numbers of a run follow from its seed; the generators can be saved and restored."""

from __future__ import annotations

import hashlib
import os
import random
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  libraries draw from the global generator
    torch.manual_seed(seed)


def derive(seed: int, purpose: str) -> int:
    """Derive a seed for one purpose (`"reg"`, `"dropout/rank1"`), independent of others from the same seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:4], "little")


def set_deterministic(enabled: bool) -> None:
    """Make runs reproducible, at some cost on a GPU, where this also enforces full float32 precision.

    An operation without a deterministic form only warns. Call this before the first use of CUDA.
    """
    if enabled:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # A debugging aid that costs an extra pass over memory.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(enabled, warn_only=True)
    torch.backends.cudnn.benchmark = not enabled
    torch.backends.cudnn.allow_tf32 = False
    # Adam's moments of words not seen for about 800 steps become denormal and stay so forever (a tenth of four units
    # rounds to zero). If all are, the optimizer is 1.4 times slower on a CPU (80,000 × 64, one thread). Flushing makes
    # them zero and leaves the weights the same bit for bit. It is always on, so that runs are comparable.
    torch.set_flush_denormal(True)


def generators() -> dict[str, Any]:
    """Return the states of all global generators of this process."""
    state: Any = np.random.get_state(legacy=True)  # noqa: NPY002
    algorithm, keys, *rest = state
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (algorithm, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_generators(states: dict[str, Any]) -> None:
    """Restore the states that `generators` returned."""
    random.setstate(states["python"])
    algorithm, keys, *rest = states["numpy"]
    np.random.set_state((algorithm, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
