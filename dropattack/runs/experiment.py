"""Config → run → record: the only place, with `run.py`, `cli.py` and `config.py`, that knows Hydra.

Torch and all that stands on it is imported inside the functions that train: a run that is done already, or whose config
is bad, answers at once.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from dropattack import provenance
from dropattack.errors import DivergedError, UserError
from dropattack.files import disk_problem
from dropattack.runs import build, record
from dropattack.runs.checks import check
from dropattack.runs.config import register_resolvers

if TYPE_CHECKING:
    from accelerate import Accelerator

    from dropattack.training.checkpoint import Checkpoints
    from dropattack.training.loop import TrainResult

CONF = Path(__file__).resolve().parents[2] / "conf"


def resolve(config: DictConfig) -> dict[str, Any]:
    """The config as plain values, checked.

    Raises:
        UserError: a value that cannot be meant, or a model that does not fit the data.
    """
    register_resolvers()
    values: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    check(values, CONF)
    build.check_targets(values)
    return values


def done(config: Mapping[str, Any]) -> Path | None:
    """The record of this run if it need not be run again: it is `finished` or `diverged`, and no rerun is asked."""
    path = record.record_path(config)
    return path if not config["rerun"] and record.is_done(path) else None


def run(config: DictConfig) -> Path:
    """Run one experiment, from its beginning or from its last checkpoint, and write its record.

    Returns:
        The record's path; at once where a finished record is there.

    Raises:
        UserError: bad input; nothing was written.
        DivergedError: there is a record with status `diverged`.
        Interrupted: a signal came; the same command goes on from there.
        AlreadyRunningError: another process runs the same experiment.
        Exception: anything else; there is a record with status `failed`.
    """
    values = resolve(config)
    found = done(values)
    if found is not None:
        if record.is_done(found) == "diverged":
            raise DivergedError(f"{record.read(found)['error']} (on record: {found}; rerun=true tries again)")
        say(f"already done: {found} (rerun=true runs it again)")
        return found
    return run_values(values)


def run_values(config: dict[str, Any]) -> Path:
    """`run`, of a config that is resolved already, whatever is on record."""
    draft, path = record.blank(config), record.record_path(config)
    record.forget_error(path)
    try:
        finished = _execute(config, draft)
    except UserError:
        raise
    except Exception as error:
        from accelerate import PartialState

        if PartialState().is_main_process and record.is_done(path) is None:  # a rerun that fails takes no result away
            record.write(path, {**draft, "error": record.failure(config, error)})
        raise
    if finished["error"] is not None:
        raise DivergedError(f"{finished['error']} (on record: {path})")
    return path


def _execute(config: dict[str, Any], draft: dict[str, Any]) -> dict[str, Any]:
    """Build, train, test, and write the record; `draft` is filled in on the way, for the record of a failure."""
    found = build.read_data(config)  # first: data that is not there is said before seconds of imports
    import torch

    from dropattack.data.sets import warnings as set_warnings
    from dropattack.tracking.guard import Guarded
    from dropattack.training import seeding
    from dropattack.training.checkpoint import Checkpoints
    from dropattack.training.device import describe, make_accelerator
    from dropattack.training.lock import locked
    from dropattack.training.memory import PeakMemory, keep_freed_memory

    trainer, path = config["trainer"], record.record_path(config)
    if trainer["threads"] is not None:
        torch.set_num_threads(trainer["threads"])
    seeding.set_deterministic(trainer["deterministic"])
    with build.as_user_error("trainer"):
        accelerator = make_accelerator(precision=trainer["precision"], device=trainer["device"])
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    main = accelerator.is_main_process
    draft["hardware"] |= describe(accelerator.device, accelerator.num_processes)
    seeding.seed_everything(config["seed"])
    facts, encoded = build.encode_data(config, found)
    draft["data"] = {"fingerprint": facts.fingerprint, "classes": facts.classes, "sizes": facts.sizes,
                     "notes": dict(facts.notes)}  # fmt: skip
    if main and trainer["progress"] != "none":
        for sentence in set_warnings(facts.name, facts.sizes, facts.notes):
            say(sentence)
    memory = PeakMemory(accelerator.device)  # of the model and all that training adds, not of the data
    model = build.build_model(config, encoded, draft["data"]["notes"])
    draft["parameters"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    reg = build.build_reg(config, model, accelerator.process_index)
    loaders = build.build_loaders(config, encoded, accelerator)
    tracker = Guarded(build.instantiate("tracker", config["tracker"]))

    checkpoints = Checkpoints(Path(config["paths"]["output"]) / "checkpoints" / draft["run_id"])
    with locked(checkpoints.folder / "lock") if main else nullcontext():
        if done(config) is not None:  # by the process that held the lock before us
            return record.read(path)
        result, test = _train(config, model, reg, loaders, accelerator, checkpoints, tracker, memory)
        finished = {
            **draft, "status": result.status, "error": result.error, "validation": result.best, "test": test,
            "history": result.history, "passes_per_step": float(reg.passes), "skipped": int(reg.skipped),
            "steps": result.steps, "seconds_per_step": result.seconds_per_step,
            "cpu_seconds_per_step": result.cpu_seconds_per_step, "seconds": result.seconds,
            "peak_memory_mb": result.peak_memory_mb,
        }  # fmt: skip
        if main:
            # The record comes last, for it ends the run for good; then nothing goes on from the checkpoints.
            if test:
                kept = {key: finished[key] for key in ("run_id", "config", "validation", "test", "commit", "versions")}
                _keep(checkpoints, result.best_weights, kept)
            record.write(path, finished)
            checkpoints.clear()
            if test and trainer["progress"] != "none":
                say(f"test accuracy {test['accuracy']:.4f} by the weights of epoch {finished['validation']['epoch']} "
                    f"(validation {finished['validation']['accuracy']:.4f}); {reg.passes:g} passes a step, "
                    f"{result.seconds:.1f} s")  # fmt: skip
    return finished


def _keep(checkpoints: Checkpoints, weights: dict[str, Any], description: dict[str, Any]) -> None:
    try:
        checkpoints.keep(weights, description)
    except OSError as error:
        raise UserError(disk_problem(checkpoints.folder, error)) from error


def _train(
    config: dict[str, Any], model: Any, reg: Any, loaders: dict[str, Any], accelerator: Accelerator, checkpoints: Any,
    tracker: Any, memory: Any,
) -> tuple[TrainResult, dict[str, float] | None]:  # fmt: skip
    """Train, then test once, with the weights that validation chose."""
    from dropattack.training import seeding
    from dropattack.training.checkpoint import MisfitError
    from dropattack.training.evaluate import evaluate
    from dropattack.training.loop import train

    options = dict(config["trainer"])
    for handled in ("batch_size", "eval_batch_size", "precision", "device", "threads", "deterministic"):
        options.pop(handled)
    saving, main = options.pop("checkpoint"), accelerator.is_main_process
    probed = options.pop("probe_gradients")
    probe = _probe(probed if main else 0, config, model, loaders)
    if config["rerun"] and main:
        checkpoints.clear()
    accelerator.wait_for_everyone()
    snapshot = checkpoints.load()
    # After the regularizer was built: whatever it drew, all methods meet the same dropout.
    seeding.seed_everything(seeding.derive(config["seed"], f"training/rank{accelerator.process_index}"))
    extra: dict[str, Any] = {"tracker": None}
    if main:
        names = [config[group]["name"] for group in ("dataset", "model", "reg", "scale")]
        commit = (provenance.commit() or {}).get("hash", "")[:10]
        tracker.start(
            {"run_id": record.run_id(config), **record.identity(config)}, tags=[*names, *filter(None, [commit])],
            name=record.record_path(config).stem, group="-".join([*names[:2], names[3]]),
            resume=snapshot.state.get("extra", {}).get("tracker") if snapshot else None,
        )  # fmt: skip
        extra["tracker"] = tracker.run_id

    def on_epoch(entry: dict[str, Any]) -> None:
        if probe is not None:
            entry["gradients"] = probe()
        if main:
            tracker.log(_flat(entry), entry["step"])

    summary: dict[str, Any] = {"status": "stopped"}
    try:
        result = train(
            model, reg, loaders["train"], loaders["validation"], resume=snapshot, accelerator=accelerator,
            classes=loaders["classes"], checkpoints=checkpoints, extra=extra,
            on_epoch=on_epoch, memory=memory, **saving, **options,
        )  # fmt: skip
        test = None
        if result.status == "finished":
            model.load_state_dict(result.best_weights)
            test = evaluate(model, loaders["test"].batches(), classes=loaders["classes"])
        summary = {"status": result.status, **_flat({"test": test or {}, "validation": result.best or {}})}
    except MisfitError as error:
        raise UserError(f"{checkpoints.folder}: {error}; rerun=true starts again") from error
    finally:
        tracker.finish(summary, failed=summary["status"] != "finished")
    return result, test


def _probe(count: int, config: dict[str, Any], model: Any, loaders: dict[str, Any]) -> Any:
    """What measures gradient norms on the first `count` training batches at each epoch's end; None for none."""
    if not count:
        return None
    from dropattack.probes.gradients import EpochProbe

    batches = list(itertools.islice(loaders["train"].batches(), count))
    return EpochProbe(model, batches, config["model"].get("attack_points") or {}, std=loaders["std"])


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """{"train": {"loss": 1.0}} → {"train/loss": 1.0}."""
    flat: dict[str, float] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}/"))
        elif isinstance(value, int | float) and math.isfinite(value):
            flat[f"{prefix}{key}"] = value
    return flat


def say(sentence: str) -> None:
    """Tell the person at the keyboard, on stderr: stdout is for the record's path."""
    if os.environ.get("RANK", "0") == "0":
        print(sentence, file=sys.stderr, flush=True)
