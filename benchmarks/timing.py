"""Interleaved timing: each method between two plain steps, so that varying load on the machine affects both."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from benchmarks.methods import Step, Steps
from benchmarks.workloads import KEPT

PLAIN = "plain"


class Clock:
    """Measure the seconds of a call.

    On a CPU with one thread, this is the process's CPU time (including page faults), which other processes disturb
    least; with more threads, wall-clock time. On a GPU, the time between two CUDA events, including host delays.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.kind = "cuda events" if device.type == "cuda" else "wall" if torch.get_num_threads() > 1 else "cpu time"

    def __call__(self, call: Callable[[], None]) -> float:
        if self.device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize(self.device)
            start.record()
            call()
            end.record()
            torch.cuda.synchronize(self.device)
            return start.elapsed_time(end) / 1000
        now = time.process_time if self.kind == "cpu time" else time.perf_counter
        before = now()
        call()
        return now() - before


def time_methods(
    steps: Steps, methods: Sequence[str], *, rounds: int, least_seconds: float, done: Callable[[str], None]
) -> tuple[dict[str, dict], int]:
    """Time each of `methods` once per round, in rotating order, with a plain step before and after each.

    Args:
        steps: makes the steps.
        methods: names of the methods.
        rounds: number of rounds.
        least_seconds: minimum per timing; shorter steps are repeated.
        done: called with the method's name after each timing, `timings(methods, rounds)` times in total.

    Returns:
        By method: `passes`, `seconds` (median), `samples` and, for all but plain, `ratios` to the mean of the two
        surrounding plain steps and their median `to_plain`. Second, the number of steps per timing.
    """
    clock, others = Clock(steps.setup.device), [m for m in methods if m != PLAIN]
    samples: dict[str, list[float]] = {method: [] for method in (PLAIN, *others)}
    ratios: dict[str, list[float]] = {method: [] for method in others}
    passes: dict[str, float] = {}
    repeats = 1

    def sample(method: str, n: int) -> float:
        step, passes[method] = steps.make(method)
        seconds = clock(lambda: _repeat(step, n, repeats)) / repeats
        done(method)
        return seconds

    for method in samples:
        sample(method, 0)  # optimizer state, cuDNN plans, allocator blocks
        if steps.setup.compile:  # compile each shape; record a CUDA graph and replay it once
            for n in range(1, 3 * KEPT):
                _repeat(steps.make(method)[0], n, 1)
    repeats = max(1, math.ceil(least_seconds / sample(PLAIN, 0)))
    for n in range(rounds):
        before = sample(PLAIN, n)
        samples[PLAIN].append(before)
        for i in range(len(others)):
            method = others[(i + n) % len(others)]
            seconds, after = sample(method, n), sample(PLAIN, n)
            samples[method].append(seconds)
            samples[PLAIN].append(after)
            ratios[method].append(2 * seconds / (before + after))
            before = after
    result = {}
    for method, taken in samples.items():
        result[method] = {"passes": passes[method], "seconds": statistics.median(taken), "samples": taken}
        if method != PLAIN:
            result[method] |= {"to_plain": statistics.median(ratios[method]), "ratios": ratios[method]}
    return result, repeats


def timings(methods: Sequence[str], rounds: int) -> int:
    others = len([m for m in methods if m != PLAIN])
    return 2 + others + rounds * (1 + 2 * others)


def _repeat(step: Step, n: int, times: int) -> None:
    for i in range(times):
        step(n + i)
