"""Hostile archives for `dropattack data pheme`."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.hostile.case import Case, command

TWEET = "threads/en/a-all-rnr-threads/rumours/{}/source-tweets/{}.json"
prepare = command("data")


def archive(
    change: Callable[[bytes], bytes] = bytes, *more: tuple[str, bytes], mode: str = "bz2", rows: int = 12
) -> Callable[[Path], Sequence[str]]:
    """Make an archive of `rows` threads and more members, then change its bytes."""

    def make(folder: Path) -> Sequence[str]:
        members = [(TWEET.format(i, i), json.dumps({"text": f"a tweet with words {i}"}).encode()) for i in range(rows)]
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=f"w:{mode}") as tar:  # type: ignore[call-overload]
            for name, data in (*members, *more):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        (folder / "pheme.tar").write_bytes(change(buffer.getvalue()))
        return arguments(folder)

    return make


def arguments(folder: Path) -> Sequence[str]:
    return ["pheme", "--archive", "pheme.tar", "--to", "out"]


def directory(folder: Path) -> Sequence[str]:
    (folder / "pheme.tar").mkdir()
    return arguments(folder)


def spoilt(name: str, make: Callable[[Path], Sequence[str]], says: str) -> Case:
    return Case(name, make, says, use=prepare)


CASES = (
    spoilt("no archive", arguments, r"pheme\.tar cannot be read: there is no such file; name the archive"),
    spoilt("a folder for an archive", directory, r"pheme\.tar cannot be read: there is no such file; name the archive"),
    spoilt(
        "a file that is not an archive",
        archive(lambda data: b"PK\3\4 a zip file, say"),
        r"pheme\.tar cannot be read \(a tar ends with 1,024 zero bytes\).*download it again",
    ),
    spoilt(
        "an archive cut short, bzip2",
        archive(lambda data: data[: len(data) // 2]),
        r"pheme\.tar cannot be read \(Compressed file ended.*download it again",
    ),
    spoilt(
        "an archive cut short, gzip",
        archive(lambda data: data[: len(data) // 2], mode="gz"),
        r"pheme\.tar cannot be read \(Compressed file ended.*download it again",
    ),
    spoilt(
        "an archive with broken bytes, gzip",
        archive(lambda data: data[:60] + bytes(99) + data[159:], mode="gz"),
        r"pheme\.tar cannot be read .*download it again",
    ),
    spoilt(
        "an archive with broken bytes, xz",
        archive(lambda data: data[:90] + bytes(60) + data[150:], mode="xz"),
        r"pheme\.tar cannot be read .*download it again",
    ),
    spoilt("an archive of something else", archive(rows=0), r"pheme\.tar holds no .*is it PHEME_veracity\.tar\.bz2"),
    spoilt(
        "an archive of members that climb out",
        archive(bytes, ("../../evil.json", b"{}"), rows=0),
        r"pheme\.tar holds no .*is it PHEME_veracity\.tar\.bz2",
    ),
    spoilt("too few threads", archive(rows=3), r"3 threads are too few for three splits; download the archive again"),
    spoilt(
        "a tweet that is no JSON",
        archive(bytes, (TWEET.format(99, 99), b"{")),
        r"rumours/99/source-tweets/99\.json: not a tweet with a text; download the archive again",
    ),
    spoilt(
        "a tweet without a text",
        archive(bytes, (TWEET.format(99, 99), b'{"text": 7}')),
        r"rumours/99/source-tweets/99\.json: not a tweet with a text; download the archive again",
    ),
    spoilt(
        "a tweet nested 50,000 deep",
        archive(bytes, (TWEET.format(99, 99), 50_000 * b"[")),
        r"rumours/99/source-tweets/99\.json: not a tweet with a text; download the archive again",
    ),
    spoilt(
        "a tweet of 2 MB",
        archive(bytes, (TWEET.format(99, 99), bytes(2 << 20))),
        r"rumours/99/source-tweets/99\.json: 2097152 bytes are too many for a tweet; download the archive again",
    ),
)
