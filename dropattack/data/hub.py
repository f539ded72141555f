"""Access to the Hugging Face hub. Check that it is reachable first: offline, its clients retry for up to a minute."""

from __future__ import annotations

import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Unavailable(Exception):  # noqa: N818  (not an error of the program, like KeyboardInterrupt)
    """An official source is not available. The message gives the reason as a clause that can follow "and"."""


def reachable(url: str, timeout: float = 4.0) -> bool:
    """Return whether a server answers within `timeout` seconds. Honours the proxies in the environment."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # it answered; the client may accept its certificate
    except (OSError, ValueError):
        return False
    return True


def hub_reachable() -> bool:
    """Return whether the hub (or the mirror in HF_ENDPOINT) answers; False immediately in offline mode."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and reachable(constants.ENDPOINT)


@contextmanager
def offline_unless_reachable() -> Iterator[None]:
    """Make the hub's clients use only their caches, and fail immediately, if the hub does not answer."""
    import datasets.config
    from huggingface_hub import constants

    if hub_reachable():
        yield
        return
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def is_cached(repository: str) -> bool:
    """Return whether one of the hub clients' caches may hold the data set."""
    from huggingface_hub import constants

    prepared = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")
    downloaded = Path(constants.HF_HUB_CACHE) / f"datasets--{repository.replace('/', '--')}"
    return (prepared / repository.replace("/", "___")).is_dir() or downloaded.is_dir()


def hub_columns(repository: str, split: str) -> dict[str, list[Any]]:
    """Return the columns of one split of a data set on the hub, or in its cache.

    Raises:
        Unavailable: neither holds it.
    """
    if not (is_cached(repository) or hub_reachable()):  # importing `datasets` takes seconds
        raise Unavailable(f"the Hugging Face hub, which has {repository}, does not answer")
    try:
        import datasets

        with offline_unless_reachable():
            return datasets.load_dataset(repository, split=split).to_dict()
    except Exception as error:  # the client raises a dozen kinds of errors; all mean that there is no data
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise Unavailable(f"the Hugging Face hub gave no {repository} ({reason})") from error
