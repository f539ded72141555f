"""NVIDIA's Multi-Process Service, which runs kernels of several processes concurrently on one GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from dropattack.errors import UserError

MPS = "nvidia-cuda-mps-control"


@contextmanager
def mps() -> Iterator[None]:
    """Run NVIDIA's Multi-Process Service for the processes started inside the block.

    Raises:
        UserError: it is not installed or does not start.
    """
    if shutil.which(MPS) is None:
        raise UserError(f"{MPS} is not installed: leave out --mps")
    with tempfile.TemporaryDirectory() as folder:
        places = dict.fromkeys(("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"), folder)
        before = {name: os.environ.get(name) for name in places}
        os.environ.update(places)
        try:
            started = subprocess.run([MPS, "-d"], capture_output=True, text=True, timeout=30, check=False)
            if started.returncode:
                raise UserError(f"{MPS} did not start: {started.stderr.strip() or started.stdout.strip()}")
            yield
        finally:
            subprocess.run([MPS], input="quit\n", capture_output=True, text=True, timeout=30, check=False)
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name)
                else:
                    os.environ[name] = value
