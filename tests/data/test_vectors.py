"""Files of pretrained word vectors."""

import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from dropattack.data import glove
from dropattack.data.vectors import find_vectors, load_vectors
from dropattack.errors import UserError

VOCABULARY = ("[PAD]", "[UNK]", "cat", "dog", "axolotl")


@pytest.mark.parametrize("header", ["", "4 2\n"])
def test_load(tmp_path, header):
    path = tmp_path / "glove.txt"
    path.write_text(header + "dog 1 2\ncat -1 0.5e0\n. . 9 9\ndog 7 7\nbird 3 3\n")
    values, found = load_vectors(path, VOCABULARY)
    assert values.dtype == torch.float32
    assert values.tolist() == [[0, 0], [0, 0], [-1, 0.5], [1, 2], [0, 0]]
    assert found.tolist() == [False, False, True, True, False]
    assert int(found.sum()) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cat 1 2\ndog 1\n", "line 2: 1 numbers where 2"),
        ("cat 1 2\ndog 1 2 3\n", "line 2: 3 numbers where 2"),
        ("cat 1 2\ndog 1 x\n", "line 2: .*x"),
        ("cat 1 2\ndog 1 nan\n", "line 2: .*finite"),
        ("cat 1 2\ndo", "line 2: 0 numbers"),
        ("cat\n", "line 1"),
        ("", "empty"),
    ],
)
def test_bad_lines_are_named(tmp_path, text, said):
    path = tmp_path / "glove.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"glove\.txt.*{said}"):
        load_vectors(path, VOCABULARY)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.txt.*glove\.6B"):
        load_vectors(tmp_path / "nothing.txt", VOCABULARY)
    with pytest.raises(UserError, match=r"cannot read word vectors"):
        load_vectors(tmp_path, VOCABULARY)


def test_glove_comes_from_its_archive(tmp_path):
    lines = [f"{word} {' '.join(str(n + i / 4) for i in range(100))}" for n, word in enumerate(("the", "of", "film"))]
    with zipfile.ZipFile(tmp_path / "glove.6B.zip", "w") as archive:
        archive.writestr("glove.6B.100d.txt", "\n".join(lines) + "\n")
    assert "3 words" in glove.prepare(tmp_path / "data", tmp_path / "glove.6B.zip")
    path = find_vectors("glove", tmp_path / "data")
    values, found = load_vectors(path, ["[PAD]", "film", "nothing", "the"])
    assert found.tolist() == [False, True, False, True]
    assert values[1].tolist() == [2 + i / 4 for i in range(100)]
    (tmp_path / "plain.txt").write_text("\n".join(lines))
    glove.prepare(tmp_path / "other", tmp_path / "plain.txt")
    again, _ = load_vectors(find_vectors("glove", tmp_path / "other"), ["[PAD]", "film", "nothing", "the"])
    assert (again == values).all()


@pytest.mark.parametrize("content", [b"", b"the 1 2 3\n", b"the " + b"x " * 100, b"\xff\xfe"])
def test_another_archive_is_refused(tmp_path, content):
    (tmp_path / "file.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"GloVe|numbers for each word"):
        glove.prepare(tmp_path, tmp_path / "file.txt")


def test_missing_glove_is_named(tmp_path):
    with pytest.raises(UserError, match=r"dropattack data glove"):
        find_vectors("glove", tmp_path)
    assert find_vectors("my/file.txt", tmp_path) == Path("my/file.txt")


@pytest.mark.parametrize("columns", [{"word": ["a"]}, {"word": ["a", "b"], "vector": [[1.0], [1.0, 2.0]]}])
def test_a_parquet_table_of_another_form_is_refused(tmp_path, columns):
    pa.parquet.write_table(pa.table(columns), tmp_path / "v.parquet")
    with pytest.raises(UserError, match="word and vector"):
        load_vectors(tmp_path / "v.parquet", ["a"])
