"""Hostile checkpoints. A broken one is reported and skipped, so the run starts over; one of another run is rejected."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dropattack.runs import experiment, identity
from tests.hostile.case import CANARY, QUIET, Bomb, Case, composed

RUN = ("dataset=digits", "model=cnn", "trainer.max_steps=1")
Change = Callable[[Path, Path], object]  # (the checkpoint's folder, the case's)


def checkpoint(change: Change) -> Callable[[Path], Sequence[str]]:
    """Put a complete checkpoint where this run looks for one, then change it."""

    def make(folder: Path) -> Sequence[str]:
        import torch

        from dropattack.training.checkpoint import Checkpoints, Snapshot

        run_id = identity.run_id(experiment.resolve(composed(experiment.CONF, (*QUIET, *RUN))))
        state = {"progress": {"epoch": 0, "step": 3}, "extra": {"tracker": None}, "processes": [{}],
                 "model": {"weight": torch.zeros(3)}}  # fmt: skip
        change(Checkpoints(folder / "out" / "checkpoints" / run_id).save(Snapshot(3, state)), folder)
        return RUN

    return make


def halved(name: str) -> Change:
    def change(place: Path, folder: Path) -> None:
        data = (place / name).read_bytes()
        (place / name).write_bytes(data[: len(data) // 2])

    return change


def lost(name: str) -> Change:
    return lambda place, folder: (place / name).unlink()


def said(edit: Callable[[dict[str, Any]], Any]) -> Change:
    """Replace state.json by another with a correct sha256, as if written on purpose."""

    def change(place: Path, folder: Path) -> None:
        content = json.loads((place / "state.json").read_text().partition("\n")[2])
        sealed(place, json.dumps(edit(content)))

    return change


def sealed(place: Path, body: str) -> None:
    (place / "state.json").write_text(f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}\n")


def pickled(place: Path, folder: Path) -> None:
    """Replace the tensors by a pickle with code, with the correct size and sha256 in the state."""
    data = pickle.dumps(Bomb(folder / CANARY))
    (place / "tensors.safetensors").write_bytes(data)
    stated = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    said(lambda content: content | {"files": {"tensors.safetensors": stated}})(place, folder)


def of_two_processes(content: dict[str, Any]) -> dict[str, Any]:
    return content | {"state": content["state"] | {"processes": [{}, {}]}}


def nested(place: Path, folder: Path) -> None:
    sealed(place, 50_000 * "[" + 50_000 * "]")


CASES = (
    Case(
        "a checkpoint with half its tensors",
        checkpoint(halved("tensors.safetensors")),
        r"step-00000003-1 is broken \(tensors\.safetensors is cut short or was changed\): passed over",
        0,
    ),
    Case(
        "a checkpoint with half its state",
        checkpoint(halved("state.json")),
        r"step-00000003-1 is broken \(state\.json is cut short or was changed\): passed over",
        0,
    ),
    Case(
        "a checkpoint without its state",
        checkpoint(lost("state.json")),
        r"step-00000003-1 is broken \(.*No such file.*state\.json'\): passed over",
        0,
    ),
    Case(
        "a checkpoint with other keys",
        checkpoint(said(lambda content: {"epoch": 3})),
        r"step-00000003-1 is broken \(it has another format.*\): passed over",
        0,
    ),
    Case(
        "a checkpoint that is a list",
        checkpoint(said(lambda content: [content])),
        r"step-00000003-1 is broken \(it has another format.*\): passed over",
        0,
    ),
    Case(
        "a checkpoint of another format",
        checkpoint(said(lambda content: content | {"format": 99})),
        r"step-00000003-1 is broken \(it has another format.*\): passed over",
        0,
    ),
    Case(
        "a checkpoint nested 50,000 deep",
        checkpoint(nested),
        r"step-00000003-1 is broken \(maximum recursion depth.*\): passed over",
        0,
    ),
    Case(
        "a checkpoint of a pickle with code in it",
        checkpoint(pickled),
        r"step-00000003-1 is broken \(.*deserializing header.*\): passed over",
        0,
    ),
    Case(
        "a checkpoint of two processes",
        checkpoint(said(of_two_processes)),
        r"2 processes saved the checkpoint, in epochs of an unknown number of batches, .* rerun=true starts again",
    ),
    Case(
        "a checkpoint of another network",
        checkpoint(lambda place, folder: None),
        r"the checkpoint of step 3 belongs to another run \(.*\); rerun=true starts again",
    ),
)
