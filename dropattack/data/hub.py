"""The Hugging Face hub, asked only when it answers: without a route its clients retry for up to a minute."""

from __future__ import annotations

import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Unavailable(Exception):  # noqa: N818  (a state of the world, as KeyboardInterrupt is)
    """An official source gave nothing; the message says why, to stand after "and"."""


def reachable(url: str, timeout: float = 4.0) -> bool:
    """Whether a server answers at all; `timeout` in seconds. Honours the proxies of the environment."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # it answered; its client may know other certificates
    except (OSError, ValueError):
        return False
    return True


def hub_reachable() -> bool:
    """Whether the hub (or HF_ENDPOINT's mirror) answers; False at once where the environment says to stay offline."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and reachable(constants.ENDPOINT)


@contextmanager
def offline_unless_reachable() -> Iterator[None]:
    """Within it the hub's clients look in their caches alone, and fail at once, when the hub does not answer."""
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


def _has_cached(repository: str) -> bool:
    """Whether an earlier call may have left the data set in one of the hub clients' caches."""
    from huggingface_hub import constants

    prepared = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")
    downloaded = Path(constants.HF_HUB_CACHE) / f"datasets--{repository.replace('/', '--')}"
    return (prepared / repository.replace("/", "___")).is_dir() or downloaded.is_dir()


def hub_columns(repository: str, split: str) -> dict[str, list[Any]]:
    """The columns of one split of a data set on the hub, or in its cache.

    Raises:
        Unavailable: it cannot be had.
    """
    if not (_has_cached(repository) or hub_reachable()):  # `datasets` takes seconds to import, only to say the same
        raise Unavailable(f"the Hugging Face hub, which has {repository}, does not answer")
    try:
        import datasets

        with offline_unless_reachable():
            return datasets.load_dataset(repository, split=split).to_dict()
    except Exception as error:  # the client raises errors of a dozen kinds; each means that it gave no data
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise Unavailable(f"the Hugging Face hub gave no {repository} ({reason})") from error
