"""The files written by `dropattack data` are those that `load` reads."""

import io
import json
import tarfile

import datasets
import pytest

from dropattack.commands.data import main
from dropattack.data import hub, imdb, pheme
from dropattack.data.pheme_archive import clean, read_archive
from dropattack.errors import UserError
from tests.data.makers import joined, texts

FOLDER = "all-rnr-annotated-threads/storm-all-rnr-threads"


def archive(path, extra=(), threads=30):
    """Write a small archive in the official layout, with the extra files of macOS and of an attacker."""
    members = []
    for thread in range(threads):
        label = "rumours" if thread % 3 == 0 else "non-rumours"
        place = f"{FOLDER}/{label}/{1000 + thread}"
        members.append(
            (f"{place}/source-tweets/{1000 + thread}.json", {"text": f"Source {'x' * (thread + 2)}, really?"})
        )
        for reply in (9, 5):  # not in order of time
            members.append(
                (f"{place}/reactions/{20 * thread + 5000 + reply}.json", {"text": f"@who reply {'y' * reply}!"})
            )
        members.append((f"{place}/annotation.json", {"is_rumour": label}))
    with tarfile.open(path, "w:bz2") as tar:
        for name, content in [*members, *extra]:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo(f"{FOLDER}/rumours/7/reactions/8.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return path


def test_pheme_from_its_archive(tmp_path, capsys):
    odd = [
        (f"{FOLDER}/rumours/1000/reactions/._5009.json", b"\x00\x05\x16\x07"),
        ("../../outside.json", {"text": "out"}),
        (f"{FOLDER}/rumours/2000/source-tweets/2000.json", {"text": "http://only.a/link"}),
    ]
    path = archive(tmp_path / "pheme.tar.bz2", odd)
    assert main(["pheme", "--archive", str(path), "--to", str(tmp_path / "data")]) == 0
    assert "1 left out" in capsys.readouterr().out
    made = pheme.load(root=tmp_path / "data")
    assert [len(split) for split in made.splits.values()] == [24, 3, 3]
    assert made.validation.labels.sum() == made.test.labels.sum() == 1
    everything = joined(split.texts for split in made.splits.values())
    assert (
        "source xx comma really questionmark | reply yyyyy exclamationmark | reply yyyyyyyyy exclamationmark"
        in everything
    )
    assert not list(tmp_path.glob("**/outside*"))
    assert {path.name for path in (tmp_path / "data" / "pheme").iterdir()} == {
        "train.parquet", "val.parquet", "test.parquet",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tweet", "cleaned"),
    [
        ("Is it true... or not? http://t.co/abc", "is it true dotdotdot or not questionmark"),
        ("@one @two_2 U.S. news, now!", "two news comma now exclamationmark"),
        ("I am here w/o you @me", "am here without you me"),
        ("RT @a: x", "rt a"),
        ("A320 crashed @news http://t.co/x", "a crashed"),
        ("!!! 12 34", "exclamationmark exclamationmark exclamationmark"),
        ("http://t.co/x", ""),
    ],
)
def test_clean(tweet, cleaned):
    # "U.S." becomes "us"; the rule does not match a mention with an underscore.
    assert clean(tweet) == cleaned.replace("two news", "two us news")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{}", "not a tweet with a text"),
        (b"not json", "not a tweet with a text"),
        (b" " * (1 << 21), "bytes are too many for a tweet"),
    ],
)
def test_bad_tweet_is_named(tmp_path, content, said):
    path = archive(tmp_path / "p.tar.bz2", [(f"{FOLDER}/rumours/1/reactions/2.json", content)])
    with pytest.raises(UserError, match=rf"p\.tar\.bz2.*rumours/1/reactions/2\.json.*{said}"):
        read_archive(path)


def test_invalid_archives(tmp_path, capsys):
    path = archive(tmp_path / "p.tar.bz2", threads=2)
    for data, said in ((path.read_bytes()[:-40], "cannot be read"), (b"nothing", "cannot be read")):
        path.write_bytes(data)
        assert main(["pheme", "--archive", str(path), "--to", str(tmp_path / "data")]) == 2
        assert said in capsys.readouterr().err
    with tarfile.open(path, "w:bz2"):
        pass
    with pytest.raises(UserError, match=r"is it PHEME_veracity"):
        read_archive(path)
    with pytest.raises(UserError, match=r"cannot be read"):
        read_archive(tmp_path / "missing.tar.bz2")
    assert not (tmp_path / "data").exists()


def test_texts_from_the_hub(tmp_path, monkeypatch, capsys):
    def load_dataset(repository, split):
        rows = texts(40, prefix=split)
        return datasets.Dataset.from_dict({"text": rows.texts, "label": rows.labels})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub, "hub_reachable", lambda: True)
    assert main(["imdb", "--to", str(tmp_path)]) == 0
    assert "train 40, test 40 rows" in capsys.readouterr().out
    monkeypatch.undo()
    assert imdb.load(root=tmp_path).notes["source"].startswith("local copy")


@pytest.mark.parametrize("name", ["imdb", "agnews", "mnist", "cifar10"])
def test_without_a_network(tmp_path, capsys, name):
    assert main([name, "--to", str(tmp_path / "data")]) == 2
    error = capsys.readouterr().err
    assert f"Dataset {name} cannot be fetched" in error
    assert len(error.strip().splitlines()) == 1


def test_other_uses(tmp_path, capsys):
    assert main(["digits"]) == 0
    assert main(["pheme", "--to", str(tmp_path)]) == 2
    assert "6392078" in capsys.readouterr().err
    assert main(["imdb", "--archive", "x", "--to", str(tmp_path)]) == 2
