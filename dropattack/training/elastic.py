"""Resuming with another number of processes: what each of them takes from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator

from dropattack.training import seeding


def share(
    saved: Sequence[Mapping[str, Any]], *, rank: int, world: int, step: int, seed: int, device: torch.device
) -> dict[str, Any]:
    """Return the state of process `rank` of `world`, from the states of another number of processes.

    Every process takes the states of the regularizer and of mixup of process 0. Its random generators and the global
    ones are seeded again from (seed, rank, world, step), so processes draw different numbers and the same resumption
    draws the same ones. Process 0 continues the sums of all processes over the epoch.

    Args:
        saved: the state of each process that saved: `generators`, `reg`, and `sums` (float64 [4]).
        rank: the number of this process.
        world: the number of processes now.
        step: the optimizer step at which the run continues.
        seed: the seed of this process.
        device: the device of this process.
    """

    def derived(purpose: str) -> int:
        return seeding.derive(seed, f"{purpose}/rank{rank}of{world}/step{step}")

    def reseeded(tree: Any, place: str) -> Any:
        if not isinstance(tree, Mapping):
            return [reseeded(item, f"{place}/{i}") for i, item in enumerate(tree)] if isinstance(tree, list) else tree
        return {
            key: _generators(value, device, derived(place))
            if key == "generators"
            else reseeded(value, f"{place}/{key}")
            for key, value in tree.items()
        }

    seeding.seed_everything(derived("training"))
    total = torch.stack([one["sums"] for one in saved]).sum(0)
    return {
        "generators": seeding.generators(), "reg": reseeded(saved[0]["reg"], "reg"),
        "sums": total if rank == 0 else torch.zeros_like(total),
        **({"mixup": saved[0]["mixup"]} if "mixup" in saved[0] else {}),
    }  # fmt: skip


def _generators(states: Mapping[str, Any], device: torch.device, seed: int) -> dict[str, Any]:
    """Seed a generator for each saved one; those of another process's GPU become this process's."""
    places = {place if torch.device(place).type == "cpu" else str(device) for place in states}
    return {place: Generator(place).manual_seed(seed).get_state() for place in sorted(places)}


def sentence(step: int, before: int, now: int) -> str:
    """Return what changes when a run that `before` processes saved continues with `now`."""
    return (
        f"going on from step {step} with {_processes(now)} instead of {before}: the batches and their order stay the "
        "same, random numbers are drawn again, and attacks on weights and BatchNorm see other parts of each batch"
    )


def misfit(before: int, now: int, batches_before: int | None, batches_now: int) -> str | None:
    """Return why a run that `before` processes saved cannot continue with `now`, or None if it can."""
    if batches_before == batches_now:
        return None
    known = "an unknown number of" if batches_before is None else batches_before
    return (
        f"{_processes(before)} saved the checkpoint, in epochs of {known} batches, but with {_processes(now)} an epoch "
        f"has {batches_now}; resume it with {_processes(before)}"
    )


def _processes(count: int) -> str:
    return f"{count} process" + "es" * (count != 1)
