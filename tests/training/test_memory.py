"""The peak memory of a run excludes the process before it and earlier runs."""

import torch

from dropattack.training.memory import STATUS, PeakMemory, keep_freed_memory

CPU = torch.device("cpu")
MB = 2**20


def test_the_peak_starts_at_construction_and_includes_freed_memory():
    keep_freed_memory()
    first = PeakMemory(CPU)
    before = first.mb()
    held = torch.ones(64 * MB // 4)
    del held
    if STATUS.exists():
        assert 60 < first.mb() - before < 80
    again = PeakMemory(CPU)
    held = torch.ones(32 * MB // 4)
    if STATUS.exists():
        assert 28 < again.mb() < 48  # neither the 64 MB before it, nor nothing for being kept from them
    del held
