"""Several processes of one run on this machine, forked after the imports: torchrun takes seconds to start each."""

import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def in_processes(count: int, folder: Path, function: Callable[..., Any], *arguments: Any, limit: float = 300) -> list:
    """Call `function(*arguments)` in `count` processes with torchrun's variables.

    Returns:
        The result of each, by rank.

    Raises:
        AssertionError: one of them failed (with its traceback), or took more than `limit` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    children = [
        context.Process(target=_child, args=(rank, count, port, folder, function, arguments)) for rank in range(count)
    ]
    for child in children:
        child.start()
    end = time.monotonic() + limit
    for child in children:
        child.join(max(0.0, end - time.monotonic()))
    late = [child for child in children if child.is_alive()]
    for child in late:
        child.kill()
        child.join()
    assert not late, f"{len(late)} of {count} processes still run after {limit} s"
    errors = [file.read_text() for file in sorted(folder.glob("*.error"))]
    assert not errors, "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]


def _child(rank: int, count: int, port: int, folder: Path, function: Callable[..., Any], arguments: tuple) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip
    try:
        torch.save(function(*arguments), folder / f"{rank}.pt")
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # neither may close its connections while another still reads
            torch.distributed.destroy_process_group()
    except BaseException:
        (folder / f"{rank}.error").write_text(traceback.format_exc())
    os._exit(0)
