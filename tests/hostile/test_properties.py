"""Property tests: whatever a file or command line holds, a reader raises UserError or returns what is really there."""

from __future__ import annotations

import csv
import io
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dropattack import provenance
from dropattack.analysis.records import read_records
from dropattack.data.mnist import read_idx
from dropattack.data.sources import read_table
from dropattack.data.text import WordTokenizer
from dropattack.data.types import Dataset, TextSplit
from dropattack.data.vectors import load_vectors
from dropattack.errors import UserError
from dropattack.runs import experiment, record
from dropattack.runs.config import compose, parse
from tests.data.makers import idx, write_table
from tests.hostile.records import finished

# The same examples for everybody: a failure in one place is a failure in all.
ALWAYS = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
MANY, SOME, FEW = (settings(ALWAYS, max_examples=settings.default.max_examples // part) for part in (1, 2, 6))

# JSON values, including NaN, infinity, integers of any size and lone surrogates, but without subnormal numbers, which
# are zero in a process that has executed a run.
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_subnormal=False) | st.text()
    | st.sampled_from([10**400, "\ud800"])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


@pytest.fixture(scope="module", autouse=True)
def _no_git() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "commit", lambda: {"hash": "0123456789abcdef", "dirty": False})
        yield


@contextmanager
def file(name: str, content: bytes | str = b"") -> Iterator[Path]:
    """Make a file that exists during one example."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        yield path


def answer(read: Callable[[], Any]) -> tuple[Any, str | None]:
    """Return what a reader returned, or the UserError it raised; any other error fails the test."""
    try:
        return read(), None
    except UserError as error:
        return None, str(error)


def as_json_has_it(value: Any) -> Any:
    """Replace NaN and infinity by null, and tuples by lists."""
    if isinstance(value, dict):
        return {key: as_json_has_it(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json_has_it(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@SOME
@given(st.dictionaries(st.text(), VALUES, max_size=5), st.lists(VALUES, max_size=3))
def test_record_round_trip(notes, history):
    whole = finished() | {"data": {"notes": notes}, "history": history}
    with file("r.json") as path:
        record.write(path, whole)
        assert record.read(path) == as_json_has_it(whole)


@MANY
@given(st.binary() | st.text() | VALUES.map(json.dumps))
def test_rejects_arbitrary_records(content):
    with file("r.json", content) as path, pytest.raises(UserError, match=r"r\.json"):
        record.read(path)


@st.composite
def mutated(draw) -> str:
    """Change or remove one value, at any depth, of a complete record."""
    whole = finished()
    inner: Any = whole
    while True:
        key = draw(st.sampled_from(sorted(inner)))
        if not (isinstance(inner[key], dict) and inner[key] and draw(st.booleans())):
            break
        inner = inner[key]
    if draw(st.booleans()):
        inner[key] = draw(VALUES)
    else:
        del inner[key]
    return json.dumps(whole)


@MANY
@given(mutated(), st.none() | st.integers(0, 2000))
def test_mutated_record_is_counted_or_listed(text, cut):
    with file("mutated.json", text if cut is None else text[:cut]) as path:
        read, _ = answer(lambda: record.read(path))
        found = read_records(path)
        assert len(found.frame) + len(found.left_out) == 1
        if len(found.frame):
            assert read is not None
            row = found.frame.iloc[0]
            assert row["test_accuracy"] == read["test"]["accuracy"]
            assert row["seed"] == read["config"]["seed"]
        for left in found.left_out:
            assert str(left).startswith("mutated.json: ")
            assert str(left).isprintable()


@MANY
@given(st.binary(max_size=300), st.sampled_from([".csv", ".csv.gz", ".parquet"]))
def test_rejects_arbitrary_bytes_as_table(content, suffix):
    with file(f"train{suffix}", content) as path, pytest.raises(UserError, match=r"train\."):
        read_table(path, 2)


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
ROWS = st.lists(st.tuples(CELLS.filter(str.strip), st.integers(0, 1)), min_size=1, max_size=8)


@MANY
@given(ROWS, st.booleans())
def test_table_round_trip(rows, packed):
    """Written by Python's csv module: quotes, commas and line breaks inside a text lose no row."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows([("text", "label"), *rows])
    with file("train.csv", buffer.getvalue()) as path:
        split, _ = read_table(path, 2)
        assert list(zip(split.texts, split.labels.tolist(), strict=True)) == rows
        if packed:
            table = write_table(path.with_name("t.parquet"), {"text": split.texts, "label": split.labels})
            assert read_table(table, 2)[0].texts == split.texts


@SOME
@given(ROWS, st.data())
def test_damaged_table_is_rejected_or_read_like_another_reader(rows, data):
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows([("text", "label"), *rows])
    content = bytearray(buffer.getvalue().encode())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    with file("train.csv", bytes(content)) as path:
        table, refused = answer(lambda: read_table(path, 2))
        if refused:
            return
        others = [row for row in csv.reader(io.StringIO(content.decode(), newline="")) if row]
        assert len(table[0]) == len(others) - 1


@MANY
@given(st.binary(max_size=300), st.sampled_from(["", ".gz"]), st.integers(1, 3))
def test_rejects_arbitrary_bytes_as_idx(content, suffix, dimensions):
    with file(f"images{suffix}", content) as path, pytest.raises(UserError, match="images"):
        read_idx(path, dimensions)


@MANY
@given(st.integers(0, 40), st.integers(-4, 40), st.binary(max_size=4), st.integers(0, 50))
def test_idx_has_the_rows_in_its_header(rows, said, more, cut):
    content = bytearray(idx(np.arange(rows, dtype=np.uint8)) + more)
    content[4:8] = said.to_bytes(4, "big", signed=True)
    content = content[: len(content) - cut] if cut else content
    with file("labels", bytes(content)) as path:
        if 0 <= said == len(content) - 8:
            assert len(read_idx(path, 1)) == said
        else:
            with pytest.raises(UserError, match="labels"):
                read_idx(path, 1)


@MANY
@given(st.lists(st.text(max_size=60), min_size=1, max_size=6), st.booleans(), st.integers(3, 12), st.integers(1, 9))
def test_tokenizes_any_text(texts, lowercase, vocabulary_size, max_length):
    split = TextSplit(texts, np.zeros(len(texts), np.int64))
    dataset = object.__new__(Dataset)  # unchecked, to include texts that a data set would reject
    for name, value in {"train": split, "validation": split, "test": split}.items():
        object.__setattr__(dataset, name, value)
    words = WordTokenizer(lowercase=lowercase, vocabulary_size=vocabulary_size, max_length=max_length).fit(dataset)
    assert len(words.vocabulary) == len(set(words.vocabulary)) <= vocabulary_size
    for ids in words(texts):
        assert 1 <= len(ids) <= max_length
        assert all(0 <= i < len(words.vocabulary) for i in ids)


@MANY
@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from(["red", "1", "0.5", "nan", "1e39", "x", "2 2", "\n"])).map(" ".join)
)
def test_arbitrary_vectors(content):
    vocabulary = ("[PAD]", "red", "green")
    with file("glove.txt", content) as path:
        read, refused = answer(lambda: load_vectors(path, vocabulary))
        if refused:
            assert "glove.txt" in refused
            return
        values, found = read
        assert values.isfinite().all()
        assert len(values) == len(found) == len(vocabulary)
        assert found.any()
        assert not values[~found].any()


KEYS = ("seed", "reg", "dataset", "model", "trainer", "scale", "settings", "experiment", "reg.epsilon",
        "trainer.epochs", "model.tokenizer", "dataset.name", "paths.output", "hydra.run.dir")  # fmt: skip
MEANT = ("null", "[]", "{}", "1,2", "${seed}", "${nothing}", "${oc.env:HOME}", "'a b'", "../..", "~", "fgm", "tuned")
MEANINGFUL = st.builds(
    "{}{}={}".format,
    st.sampled_from(["", "+", "++", "~"]),
    st.sampled_from(KEYS) | st.text(max_size=8),
    st.sampled_from(MEANT) | st.text(max_size=8),
)


@MANY
@given(st.lists(MEANINGFUL | st.text(max_size=30), max_size=3))
def test_arbitrary_overrides_are_parsed_or_rejected(overrides):
    parsed, refused = answer(lambda: parse(overrides))
    assert refused.isprintable() if refused else len(parsed) == len(overrides)


def composed_or_rejected(overrides):
    values, refused = answer(lambda: experiment.resolve(compose(experiment.CONF, overrides)))
    if refused:
        assert refused.isprintable()
    else:
        assert record.record_path(values).parent == Path(values["paths"]["output"]) / "records"


@FEW
@given(st.lists(MEANINGFUL, min_size=1, max_size=2))
def test_arbitrary_overrides_are_composed_or_rejected(overrides):
    composed_or_rejected(overrides)


@pytest.mark.slow
@MANY
@given(st.lists(MEANINGFUL, min_size=1, max_size=2))
def test_many_more_overrides_are_composed_or_rejected(overrides):
    composed_or_rejected(overrides)
