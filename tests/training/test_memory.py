"""The memory of a run is its own: not that of the process, nor of the run before it."""

import torch

from dropattack.training.memory import STATUS, PeakMemory, keep_freed_memory

CPU = torch.device("cpu")
MB = 2**20


def test_the_peak_is_counted_from_where_it_began_and_outlives_what_was_freed():
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
