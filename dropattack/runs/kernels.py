"""Pin the CPU's math kernels to instructions that every x86-64 machine since 2015 has, so that results travel.

oneDNN, MKL and torch choose their kernels by the CPU's instruction set, and the choice changes the last bits of a sum:
enough to move a run's accuracy by a tenth of a point. With the same instructions a run is bit-equal on CPUs of one
maker. Between Intel's and AMD's, the losses of a GRU on PHEME differed in the eighth digit, and LeNet's accuracy on
MNIST by 0.3 points.
"""

from __future__ import annotations

import os
import sys

from dropattack.errors import UserError

PORTABLE = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"}


def pin(kernels: str) -> None:
    """Set the variables that torch reads when it is imported.

    Args:
        kernels: `native` leaves the environment as it is; `portable` limits all libraries to AVX2.

    Raises:
        UserError: torch was imported before, with other values.
    """
    if kernels == "native" or all(os.environ.get(name) == value for name, value in PORTABLE.items()):
        return
    if "torch" in sys.modules:
        exports = " ".join(f"{name}={value}" for name, value in PORTABLE.items())
        raise UserError(
            f"trainer.kernels=portable has no effect after torch has been imported; start Python with {exports}"
        )
    os.environ.update(PORTABLE)


def pinned() -> str:
    """Return `portable` if the environment pins the kernels, else `native`."""
    return "portable" if all(os.environ.get(name) == value for name, value in PORTABLE.items()) else "native"
