"""Do one thing for each of many runs, several at a time. A run that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dropattack.errors import UserError
from dropattack.progress import counting
from dropattack.runs import experiment


def each(calls: Mapping[str, Callable[[], object]], jobs: int) -> int:
    """Make the calls in `jobs` processes of one torch thread, and print the error of each that fails.

    Args:
        calls: by the name of the run.
        jobs: number of processes.

    Returns:
        The exit code: 0, 2 after a `UserError`, or 1 after another error; the largest of all calls.
    """
    from joblib import Parallel, delayed, parallel_config

    codes = [0]
    with counting("runs", len(calls)) as done, parallel_config("loky", inner_max_num_threads=1):
        made = Parallel(n_jobs=jobs, return_as="generator_unordered")(
            delayed(_one)(name, call) for name, call in calls.items()
        )
        for name, code, problem in made:
            codes.append(code)
            done(name)
            if problem:
                experiment.say(f"error: {problem}")
    return max(codes)


def _one(name: str, call: Callable[[], object]) -> tuple[str, int, str]:
    """Return the name, an exit code, and the error message."""
    try:
        call()
    except UserError as error:
        return name, 2, str(error)
    except Exception as error:
        return name, 1, f"{name}: {type(error).__name__}: {error}"
    return name, 0, ""
