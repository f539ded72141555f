"""Publish tables and figures of finished runs on the dashboard of the runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dropattack.runs import build, experiment
from dropattack.runs.config import compose
from dropattack.tracking.guard import Guarded


def publish(
    files: Sequence[Path], *, name: str, kind: str, group: str, about: Mapping[str, Any], overrides: Sequence[str] = ()
) -> None:
    """Publish `files` as one artifact, and show its pictures, in a separate run beside the runs of `group`.

    Args:
        files: the files.
        name: the name of that run and of the artifact.
        kind: the artifact's type and the run's job type, such as `table`.
        group: the group of the run.
        about: the run's config, only strings and numbers.
        overrides: overrides of a run, such as `tracker=trackio` (`tracker=none`: publish nothing) or `paths.output=…`.
    """
    if "tracker=none" in overrides:
        return
    config = experiment.resolve(compose(experiment.CONF, [f"tracker.group={group}", *overrides]))
    tracker = Guarded(build.instantiate("tracker", config["tracker"]))
    tags = [str(value) for key, value in about.items() if key in ("dataset", "model", "scale", "table")]
    tracker.start(about, name=name, group=group, tags=tags, job=kind)
    tracker.publish(files, name=name, kind=kind)
    tracker.finish({})
