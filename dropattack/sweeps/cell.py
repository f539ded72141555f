"""One run among many: what goes wrong with it is said and stops no other."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dropattack.errors import AlreadyRunningError
from dropattack.runs import cli, experiment
from dropattack.runs.config import compose


def one_run(overrides: Sequence[str], *, patience: float = 0.0) -> str:
    """One run; returns what went wrong, or nothing. The record, if there is one, says more.

    Args:
        patience: seconds to wait where another process still holds the run.
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
