"""Read PHEME's official archive (figshare 6392078): one row per thread, streamed without extracting it to disk."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
import tarfile
import zlib
from collections import defaultdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from dropattack.data.splits import stratified_order
from dropattack.errors import UserError

# …/<event>-all-rnr-threads/{rumours,non-rumours}/<thread>/{source-tweets,reactions}/<tweet>.json. Requiring
# digits excludes macOS's `._` files and all names that could point elsewhere.
MEMBER = re.compile(
    r"(?:^|/)(?P<event>[\w-]+)-all-rnr-threads/(?P<label>rumours|non-rumours)/(?P<thread>\d{1,20})"
    r"/(?P<part>source-tweets?|reactions)/(?P<tweet>\d{1,20})\.json$"
)
TWEETS = 45  # per thread, as in the DropAttack authors' files
MEMBER_BYTES = 1 << 20
OPENERS: dict[bytes, Any] = {b"BZh": bz2.open, b"\x1f\x8b\x08": gzip.open, b"\xfd7z": lzma.open}


def clean(tweet: str) -> str:
    """Clean a tweet as the authors did; the rules are reconstructed from their files (99 % of the tweets match)."""
    tweet = re.sub(r"https?://\S+", "", tweet)
    tweet = re.sub(r"^[A-Za-z](?![A-Za-z0-9])", "", tweet)
    tweet = re.sub(r"\bw/o\b", "without", tweet)
    tweet = tweet.replace("...", " dotdotdot ").replace(".", "")
    tweet = tweet.replace(",", " comma").replace("?", " questionmark ").replace("!", " exclamationmark ")
    tweet = re.sub(r"@[A-Za-z0-9]+\s", " ", tweet)
    words = re.sub(r"[^a-z]", " ", tweet.lower()).split()
    return " ".join(words[:-1] if words and len(words[-1]) == 1 else words)


def read_archive(archive: Path) -> tuple[list[dict[str, Any]], int]:
    """Return (rows, number of threads left out because none of their tweets has text).

    A row has `eid`, `text` (source tweet, then replies in order of time, cleaned, joined by ` | `), `label`
    (1: rumour), `event`, `form`, `n_tweets`, `source_text` (as posted). Rows are sorted by event and thread.

    Raises:
        UserError: not that archive, truncated, or a bad tweet, which the message names.
    """
    threads: dict[tuple[str, str, str], dict[str, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
    if not archive.is_file():
        raise UserError(f"{archive} cannot be read: there is no such file; name the archive that you downloaded.")
    try:
        with _unpacked(archive) as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for member in tar:
                match = MEMBER.search(member.name)
                if match and member.isfile():
                    part = "replies" if match["part"] == "reactions" else "source"
                    thread = threads[match["event"], match["thread"], match["label"]]
                    thread[part][int(match["tweet"])] = _text(tar, member, archive)
            while file.read(1 << 20):  # a compressed file is only verified at its end
                pass
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{archive} cannot be read ({error}); it may be truncated: download it again.") from error
    if not threads:
        raise UserError(
            f"{archive} holds no …-all-rnr-threads/…/<thread>/source-tweets/<tweet>.json; is it PHEME_veracity.tar.bz2 "
            "of figshare record 6392078?"
        )
    rows = [_row(*key, thread["source"], thread["replies"]) for key, thread in sorted(threads.items())]
    kept = [row for row in rows if row["n_tweets"]]
    return kept, len(rows) - len(kept)


def _unpacked(archive: Path) -> IO[bytes]:
    """Open the tar inside. tarfile's own decompression takes the end of a truncated file for the archive's end."""
    with archive.open("rb") as file:
        magic = file.read(3)
        if magic not in OPENERS:
            file.seek(max(0, archive.stat().st_size - 1024))
            if any(end := file.read()) or len(end) < 1024:
                raise EOFError("a tar ends with 1,024 zero bytes")
    return OPENERS.get(magic, open)(archive, "rb")


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo, archive: Path) -> str:
    where = f"{archive}, {member.name}"
    if member.size > MEMBER_BYTES:
        raise UserError(f"{where}: {member.size} bytes are too many for a tweet; download the archive again.")
    file = tar.extractfile(member)
    try:
        text = json.loads(file.read())["text"] if file else None
    except (ValueError, KeyError, TypeError, RecursionError):
        text = None
    if not isinstance(text, str):
        raise UserError(f"{where}: not a tweet with a text; download the archive again.")
    return text


def _row(event: str, thread: str, label: str, source: dict[int, str], replies: dict[int, str]) -> dict[str, Any]:
    # Twitter's ids increase with time.
    tweets = [text for tweets in (source, replies) for _, text in sorted(tweets.items())]
    segments = [segment for tweet in tweets if (segment := clean(tweet))][:TWEETS]
    return {
        "eid": thread,
        "text": " | ".join(segments),
        "label": int(label == "rumours"),
        "event": event,
        "form": "rebuilt" if replies else "source_only",
        "n_tweets": len(segments),
        "source_text": next(iter(source.values()), ""),
    }


def split_rows(rows: list[dict[str, Any]], seed: int) -> dict[str, list[dict[str, Any]]]:
    """Return the rows by split, stratified: a tenth each for validation and test, like the authors' (other threads).

    Raises:
        UserError: too few threads.
    """
    tenth = round(len(rows) / 10)
    if tenth == 0:
        raise UserError(f"{len(rows)} threads are too few for three splits; download the archive again.")
    order = stratified_order(np.array([row["label"] for row in rows]), seed)
    parts = {"train": order[2 * tenth :], "validation": order[:tenth], "test": order[tenth : 2 * tenth]}
    return {part: [rows[i] for i in np.sort(own)] for part, own in parts.items()}
