"""Run an experiment from its config and write its record.

Torch and everything that needs it is imported inside the functions that train, so that a run that is already done, or
has a bad config, is answered immediately.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from dropattack import plugins
from dropattack.data.content import digest
from dropattack.errors import AlreadyRunningError, DivergedError, UserError, counted, printable
from dropattack.files import disk_problem
from dropattack.runs import attacked, build, identity, kernels, record
from dropattack.runs.checks import check, with_reals
from dropattack.runs.config import compose
from dropattack.runs.resolvers import register_resolvers

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from dropattack.probes.gradients import EpochProbe
    from dropattack.regularizers import Regularizer
    from dropattack.runs.reader import Reader
    from dropattack.tracking.guard import Guarded
    from dropattack.training.checkpoint import Checkpoints
    from dropattack.training.evaluate import Tested
    from dropattack.training.loop import TrainResult
    from dropattack.training.memory import PeakMemory

PACKAGE = Path(__file__).resolve().parents[1]
# The folder of config groups: in an installed package, or beside the package in a checkout.
INSTALLED = (PACKAGE / "conf").is_dir()
CONF = (PACKAGE if INSTALLED else PACKAGE.parent) / "conf"


def resolve(config: DictConfig) -> dict[str, Any]:
    """Return the config as plain values, checked, with digests of each plug-in's code and of the user's own files.

    Raises:
        UserError: an invalid value, or a model that does not fit the data.
    """
    register_resolvers()
    values: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    check(values, CONF)
    values = with_reals(values)
    plugins.load(values["plugins"])
    build.check_targets(values)
    attacked.check(values)
    return {**values, **_contents(values["model"]), "plugins": plugins.digests(plugins.used(values))}


def _contents(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return keys of the config that identify word vectors and a tokenizer of the user's own, beyond their paths."""
    tokenizer = (model.get("tokenizer") or {}).get("name")
    own = {"vectors": model.get("vectors"), "tokenizer": None if tokenizer == model.get("pretrained") else tokenizer}
    found = {key: digest(".", str(path)) for key, path in own.items() if path not in (None, "glove")}
    return {key: content for key, content in found.items() if content is not None}


@dataclass(frozen=True)
class Run:
    """One experiment: its config as plain, checked values, its id, and the path of its record."""

    config: dict[str, Any]
    run_id: str
    record_path: Path

    @classmethod
    def of(cls, config: DictConfig) -> Run:
        """Return the run of a composed config.

        Raises:
            UserError: as in `resolve`.
        """
        return cls.of_values(resolve(config))

    @classmethod
    def of_values(cls, values: dict[str, Any]) -> Run:
        """Return the run of a config that is already resolved and checked."""
        return cls(values, identity.run_id(values), record.record_path(values))

    @classmethod
    def asked(cls, overrides: Sequence[str]) -> Run:
        """Return the run that `dropattack run` does with these overrides.

        Raises:
            UserError: as in `compose` and `resolve`.
        """
        return cls.of(compose(CONF, overrides))

    @property
    def name(self) -> str:
        return self.record_path.stem

    @property
    def checkpoints(self) -> Path:
        """The folder of the run's checkpoints and best weights."""
        return Path(self.config["paths"]["output"]) / "checkpoints" / self.run_id

    def done(self) -> dict[str, Any] | None:
        """Return the record if the run is `finished` or `diverged` and no rerun is requested, else None."""
        return None if self.config["rerun"] else record.done(self.record_path)


def run(config: DictConfig) -> Path:
    """Run one experiment, from the start or from its last checkpoint, and write its record.

    Returns:
        The record's path; immediately, if there is a finished record.

    Raises:
        UserError: bad input; nothing was written.
        DivergedError: the record has status `diverged`.
        Interrupted: a signal arrived; the same command resumes the run.
        AlreadyRunningError: another process is running the same experiment.
        Exception: anything else; the record has status `failed`.
    """
    asked = Run.of(config)
    path, found = asked.record_path, asked.done()
    if found is None:
        return run_anyway(asked)
    if found["status"] == "diverged":
        raise DivergedError(f"{found['error']} (on record: {path}; rerun=true tries again)")
    say(f"already done: {path} (rerun=true runs it again)")
    return path


def run_anyway(asked: Run) -> Path:
    """Run an experiment like `run`, even if there is a record."""
    draft, path = record.blank(asked.config), asked.record_path
    record.forget_error(path)
    try:
        finished = _execute(asked, draft)
    except (UserError, AlreadyRunningError):
        raise
    except Exception as error:
        from accelerate import PartialState

        if PartialState().is_main_process and record.is_done(path) is None:  # a failed rerun keeps the old result
            record.write(path, {**draft, "error": record.failure(asked.config, error)})
        raise
    if finished["error"] is not None:
        raise DivergedError(f"{finished['error']} (on record: {path})")
    return path


def _execute(asked: Run, draft: dict[str, Any]) -> dict[str, Any]:
    """Build, train, test, and write the record. Fill in `draft` meanwhile, for the record of a failure."""
    kernels.pin(asked.config["trainer"]["kernels"])
    found = build.read_data(asked.config)  # first: missing data is reported before seconds of imports
    if asked.config["trainer"]["progress"] != "none":
        say(f"run {asked.name}")
    import torch

    from dropattack.data.sets import warnings as set_warnings
    from dropattack.runs.reader import Reader
    from dropattack.tracking.guard import Guarded
    from dropattack.training import seeding
    from dropattack.training.checkpoint import Checkpoints
    from dropattack.training.device import describe, make_accelerator
    from dropattack.training.lock import locked
    from dropattack.training.memory import PeakMemory, keep_freed_memory

    config, trainer = asked.config, asked.config["trainer"]
    if trainer["threads"] is not None:
        torch.set_num_threads(trainer["threads"])
    seeding.set_deterministic(trainer["deterministic"])
    with build.as_user_error("trainer"):
        accelerator = make_accelerator(precision=trainer["precision"], device=trainer["device"])
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    main = accelerator.is_main_process
    draft["hardware"] |= {**describe(accelerator.device, accelerator.num_processes), "kernels": kernels.pinned()}
    seeding.seed_everything(config["seed"])
    facts, encoded = build.encode_data(config, found)
    draft["data"] = {"fingerprint": facts.fingerprint, "classes": facts.classes, "sizes": facts.sizes,
                     "notes": dict(facts.notes)}  # fmt: skip
    if main and trainer["progress"] != "none":
        for sentence in set_warnings(facts.name, facts.sizes, facts.notes):
            say(sentence)
    memory = PeakMemory(accelerator.device)  # includes the model and training, but not the data
    model = build.build_model(config, encoded, draft["data"]["notes"])
    draft["parameters"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    reg = build.build_reg(config, model, accelerator.process_index)
    loaders = build.build_loaders(config, encoded, accelerator)
    tracker = Guarded(build.instantiate("tracker", config["tracker"]))

    checkpoints = Checkpoints(asked.checkpoints)
    with locked(checkpoints.folder / "lock") if main else nullcontext():
        if (found_now := asked.done()) is not None:  # by the process that held the lock before
            return found_now
        result, tested = _train(asked, draft, model, reg, loaders, accelerator, checkpoints, tracker, memory)
        test = tested and {**tested.metrics, "correct": record.pack_correct(tested.correct.tolist())}
        finished = {
            **draft, "status": result.status, "error": result.error, "validation": result.best, "test": test,
            "history": result.history, "passes_per_step": float(reg.passes), "skipped": int(reg.skipped),
            "steps": result.steps, "seconds_per_step": result.seconds_per_step,
            "cpu_seconds_per_step": result.cpu_seconds_per_step, "seconds": result.seconds,
            "peak_memory_mb": result.peak_memory_mb,
        }  # fmt: skip
        if result.topology:  # [first step, processes] of each part
            finished["hardware"] = {**draft["hardware"], "topology": result.topology}
        if main:
            # Write the record last, because it marks the run as done; after that the checkpoints are not needed.
            if tested:
                kept = {key: finished[key] for key in ("run_id", "config", "validation", "test", "commit", "versions")}
                _keep(checkpoints, result.best_weights, kept, tested, Reader.of(config, found, encoded))
            record.write(asked.record_path, finished)
            checkpoints.clear()
            if test and trainer["progress"] != "none":
                say(f"test accuracy {test['accuracy']:.4f} by the weights of epoch {finished['validation']['epoch']} "
                    f"(validation {finished['validation']['accuracy']:.4f}); {counted(reg.passes, 'pass', 'es')} per "
                    f"step, {result.seconds:.1f} s")  # fmt: skip
    return finished


def _keep(
    checkpoints: Checkpoints, weights: dict[str, Any], description: dict[str, Any], tested: Tested, reader: Reader
) -> None:  # fmt: skip
    """Keep the weights, how the model reads inputs, and each test row's prediction, in the order of the test split."""
    rows = {"predicted": tested.predicted, "probabilities": tested.probabilities, "labels": tested.labels}
    try:
        reader.save(checkpoints.folder)
        checkpoints.keep(weights, description, rows)
    except OSError as error:
        raise UserError(disk_problem(checkpoints.folder, error)) from error


def _train(
    asked: Run, draft: Mapping[str, Any], model: nn.Module, reg: Regularizer, loaders: build.Loaders,
    accelerator: Accelerator, checkpoints: Checkpoints, tracker: Guarded, memory: PeakMemory,
) -> tuple[TrainResult, Tested | None]:  # fmt: skip
    """Train, then test once with the weights that are best on validation."""
    from dropattack.training import seeding
    from dropattack.training.checkpoint import MisfitError
    from dropattack.training.evaluate import test
    from dropattack.training.loop import train

    config, fingerprint = asked.config, draft["data"]["fingerprint"]
    options, metrics = dict(config["trainer"]), config["dataset"].get("metrics") or ()
    for handled in ("batch_size", "eval_batch_size", "precision", "device", "threads", "kernels", "deterministic"):
        options.pop(handled)
    saving, main = options.pop("checkpoint"), accelerator.is_main_process
    probed = options.pop("probe_gradients")
    probe = _probe(probed if main else 0, config, model, loaders)
    code = record.code(config)
    if config["rerun"] and main and not _continues_rerun(checkpoints, fingerprint, code):
        checkpoints.clear()
    accelerator.wait_for_everyone()
    snapshot = checkpoints.load()
    earlier: dict[str, Any] = snapshot.state.get("extra", {}) if snapshot else {}
    codes = {part: _joined(earlier.get("code", {}).get(part), digest) for part, digest in code.items()}
    if codes != code and main:
        say("the code has changed since this run was stopped: its record names both versions, and tables leave it out")
    if draft["commit"] is not None:
        draft["commit"].update(codes)
    if earlier.get("data", fingerprint) != fingerprint:
        raise UserError(
            f"{checkpoints.folder}: the data changed after this run was stopped (its fingerprint was {earlier['data']} "
            f"and is {fingerprint}); restore the data, or rerun=true starts again"
        )
    # Seed after building the regularizer, so that all methods get the same dropout masks.
    seeding.seed_everything(seeding.derive(config["seed"], f"training/rank{accelerator.process_index}"))
    extra: dict[str, Any] = {"tracker": None, "data": fingerprint, "code": codes, "rerun": config["rerun"]}
    if main:
        names = [config[group]["name"] for group in ("dataset", "model", "reg", "scale")]
        commit = (draft["commit"] or {}).get("hash", "")[:10]
        tracker.start(
            {"run_id": asked.run_id, **draft["config"]}, tags=[*names, *filter(None, [commit])],
            name=asked.name, group="-".join([*names[:2], names[3]]),
            resume=earlier.get("tracker"),
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
            model, reg, loaders.train, loaders.validation, resume=snapshot, accelerator=accelerator,
            classes=loaders.classes, checkpoints=checkpoints, extra=extra,
            on_epoch=on_epoch, memory=memory, metrics=metrics, **saving, **options,
        )  # fmt: skip
        tested = None
        if result.status == "finished":
            model.load_state_dict(result.best_weights)
            tested = test(model, loaders.test, classes=loaders.classes, metrics=metrics)
        summary = {
            "status": result.status,
            **_flat({"test": tested.metrics if tested else {}, "validation": result.best or {}}),
        }
    except MisfitError as error:
        raise UserError(f"{checkpoints.folder}: {error}; rerun=true starts again") from error
    finally:
        tracker.finish(summary, failed=summary["status"] != "finished")
    return result, tested


def _continues_rerun(checkpoints: Checkpoints, fingerprint: str, code: Mapping[str, str]) -> bool:
    """Return whether the last checkpoint is that of an interrupted `rerun=true` with this data and code."""
    snapshot = checkpoints.load()
    earlier = snapshot.state.get("extra", {}) if snapshot else {}
    return bool(earlier.get("rerun")) and earlier.get("data") == fingerprint and earlier.get("code") == code


def _joined(earlier: str | None, now: str) -> str:
    """Return the digests of the code of a run's parts, `abc+def`, in which none comes twice."""
    parts = (earlier or now).split("+")
    return "+".join([*parts, *([] if now in parts else [now])])


def _probe(count: int, config: dict[str, Any], model: nn.Module, loaders: build.Loaders) -> EpochProbe | None:
    """Return the probe of gradient norms on the first `count` training batches, run after each epoch; None if 0."""
    if not count:
        return None
    from dropattack.probes.gradients import EpochProbe

    batches = list(itertools.islice(loaders.train.batches(), count))
    return EpochProbe(model, batches, build.attack_points(config, model), std=loaders.train.std)


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
    """Print a message for the user on stderr: stdout is for the record's path. It may quote a stranger's file."""
    if os.environ.get("RANK", "0") == "0":
        print(printable(sentence), file=sys.stderr, flush=True)
