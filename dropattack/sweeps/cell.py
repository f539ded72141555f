"""One run of a sweep: its failure is reported but does not stop the others."""

from __future__ import annotations

import atexit
import gc
import time
from collections.abc import Sequence
from functools import cache

from dropattack.errors import AlreadyRunningError
from dropattack.runs import cli, experiment
from dropattack.runs.config import compose


@cache
def freeze_imports() -> None:
    """Exempt what a worker process has imported from garbage collection, which takes a third of a small run's time."""
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # otherwise Triton, which torch imports, reports all its types as leaked


def one_run(overrides: Sequence[str], *, patience: float = 0.0) -> str:
    """Do one run.

    Args:
        overrides: the overrides of the run.
        patience: seconds to wait while another process holds the run.

    Returns:
        The error as one sentence, or an empty string; the record, if any, has the details.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            experiment.run(compose(experiment.CONF, overrides))
            return ""
        except AlreadyRunningError as error:
            if time.monotonic() > deadline:
                return cli.sentence(error)
            time.sleep(1)
        except Exception as error:
            return cli.sentence(error)
