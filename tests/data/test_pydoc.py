"""The docstrings of installed packages."""

import re

import numpy as np
import pytest

from dropattack.data import pydoc
from dropattack.errors import UserError
from tests.data.makers import joined

SOURCE = b'''"""A module of Numpy, np for short, with enough words in it."""
def f():
    """Too short."""
class C:
    """Uses PyTorch, sklearn and scikit-learn: torch.nn, `pandas_like`, plt."""
    def method(self):
        """Not of np_like_thing but of spam and pdf, seven eight nine."""
        def inner():
            """Inner functions are nobody's documentation, so they are left out here."""
'''


def test_docstrings_are_found_and_masked():
    found = [pydoc.NAMES.sub(pydoc.MASK, text) for text in pydoc.docstrings(SOURCE)]
    mask = pydoc.MASK
    assert sorted(found) == [
        f"A module of {mask}, {mask} for short, with enough words in it.",
        "Not of np_like_thing but of spam and pdf, seven eight nine.",
        f"Uses {mask}, {mask} and {mask}: {mask}.nn, `{mask}`, {mask}.",
    ]


@pytest.mark.parametrize("source", [b'"""" broken', b'"""x\x00"""', b"x = 1"])
def test_invalid_sources(source):
    assert pydoc.docstrings(source) == []


def test_missing_package(monkeypatch):
    monkeypatch.setattr(pydoc, "PACKAGES", {"no_such_package": "no-such-package"})
    with pytest.raises(UserError, match=r"pip install no-such-package"):
        pydoc.load()


def test_small_draw(tmp_path, monkeypatch):
    monkeypatch.setattr(pydoc, "ROWS", 20)
    made, again = (pydoc.load(cache=tmp_path) for _ in range(2))
    assert made.fingerprint == again.fingerprint
    assert set(made.notes["versions"]) == set(pydoc.PACKAGES)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_full_draw_is_balanced_and_masks_all_names():
    made = pydoc.load()
    texts = joined(split.texts for split in made.splits.values())
    assert len(set(texts)) == len(texts)
    assert len(texts) > 2500
    counts = np.bincount(np.concatenate([split.labels for split in made.splits.values()]))
    assert len(set(counts.tolist())) == 1
    named = re.compile(r"numpy|scipy|pandas|sklearn|torch|matplotlib|\b(np|pd|plt)\b", re.IGNORECASE)
    assert not any(named.search(text) for text in texts)
