"""Tables and figures of finished runs → the dashboard that has the runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dropattack.runs import build, experiment
from dropattack.runs.config import compose
from dropattack.tracking.guard import Guarded


def publish(
    files: Sequence[Path], *, name: str, kind: str, group: str, about: Mapping[str, Any], overrides: Sequence[str] = ()
) -> None:
    """Keep `files` as one artifact, and show the pictures among them, in a run of its own beside the runs of `group`.

    Args:
        name: of that run and the artifact.
        kind: what they are, such as `table`: the artifact's type and the run's job type.
        about: the run's config: strings and numbers alone.
        overrides: of run.py, such as `tracker=trackio` (`tracker=none` publishes nothing) or `paths.output=…`.
    """
    if "tracker=none" in overrides:
        return
    config = experiment.resolve(compose(experiment.CONF, [f"tracker.group={group}", *overrides]))
    tracker = Guarded(build.instantiate("tracker", config["tracker"]))
    tags = [str(value) for key, value in about.items() if key in ("dataset", "model", "scale", "table")]
    tracker.start(about, name=name, group=group, tags=tags, job=kind)
    tracker.publish(files, name=name, kind=kind)
    tracker.finish({})
