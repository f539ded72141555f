"""Files of pretrained word vectors."""

import pytest
import torch

from dropattack.data.vectors import load_vectors
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
    with pytest.raises(UserError, match=r"no word vectors"):
        load_vectors(tmp_path, VOCABULARY)
