"""The sets of `outside`, read from clones of the repositories that publish them."""

from pathlib import Path

import pytest

from dropattack.commands.data import OUTSIDE
from dropattack.commands.main import main
from dropattack.data import outside
from dropattack.data.outside_sources import SOURCES

PAIRED = "Sentiment\tText\tbatch_id\n" + 'Negative\t"A ""bad""\tfilm.\nReally."\t7\nPositive\tA good film.\t7\n'
ORIGINAL = "Sentiment\tText\nPositive\tGood.\nNegative\tBad.\n"
CHANGED = "Sentiment\tText\nNegative\tNot good.\nPositive\tNot bad.\n"


def clone(folder: Path) -> Path:
    """Write the files that are read of all four repositories."""
    files = {
        **{f"sentiment/combined/paired/{split}_paired.tsv": PAIRED for split in ("train", "dev", "test")},
        **{f"IMDb/data/{split}_original.tsv": ORIGINAL for split in ("dev", "test")},
        **{f"IMDb/data/{split}_contrast.tsv": CHANGED for split in ("dev", "test")},
        "data/rt-polaritydata/rt-polarity.neg": "dull — and long .\n",
        "data/rt-polaritydata/rt-polarity.pos": "a delight .\nlovely\x85 .\n",
        "data/stsa.binary.test": "0 no fun .\n1 fun , at 1 o'clock .\n",
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())
    return folder


def test_the_clones_give_what_outside_reads(tmp_path, capsys):
    assert set(OUTSIDE) == set(SOURCES)
    data, source = tmp_path / "data", clone(tmp_path / "clone")
    for name in OUTSIDE:
        assert main(["data", name, "--archive", str(source), "--to", str(data)]) == 0
    assert f"{data / 'sentences'}: mr 3 rows" in capsys.readouterr().out
    sets = {one.name: one for one in outside.load(data)}
    paired = sets["counterfactual_test"]
    assert paired.rows.texts == ['A "bad"\tfilm.\nReally.', "A good film."]
    assert (paired.rows.labels.tolist(), paired.kinds) == ([0, 1], ("original", "revised"))
    contrast = sets["contrast_dev"]
    assert contrast.rows.texts == ["Good.", "Not good.", "Bad.", "Not bad."]
    assert contrast.rows.labels.tolist() == [1, 0, 0, 1]
    assert contrast.partners.tolist() == [[0, 1], [2, 3]]
    assert sets["mr"].rows.texts == ["dull — and long .", "a delight .", "lovely\x85 ."]
    assert sets["mr"].rows.labels.tolist() == [0, 1, 1]
    assert sets["sst2"].rows.texts == ["no fun .", "fun , at 1 o'clock ."]
    assert len(outside.rewritten(data)) == 6


@pytest.mark.parametrize(("name", "path", "content", "said"), [
    ("imdb_counterfactual", "sentiment/combined/paired/dev_paired.tsv", "Sentiment\tText\nNegative\tBad.\n",
     "row 1 is not one of imdb_counterfactual"),
    ("imdb_contrast", "IMDb/data/dev_contrast.tsv", "<html>", "different numbers of rows"),
    ("imdb_contrast", "IMDb/data/dev_original.tsv", "Sentiment\tText\nNeutral\tSo.\n", "row 1 is not one of imdb_con"),
    ("mr", "data/rt-polaritydata/rt-polarity.neg", None, "No such file or directory): pass a clone"),
    ("sst2_sentences", "data/stsa.binary.test", "2 so .\n", "must have 0 or 1 and a sentence in each line"),
])  # fmt: skip
def test_a_clone_that_is_not_whole_is_named(name, path, content, said, tmp_path, capsys):
    source = clone(tmp_path / "clone")
    (source / path).unlink()
    if content is not None:
        (source / path).write_text(content)
    assert main(["data", name, "--archive", str(source), "--to", str(tmp_path / "data")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1
    assert not list((tmp_path / "data").rglob("*.parquet"))


@pytest.mark.parametrize("name", OUTSIDE)
def test_without_a_clone_the_repository_is_named(name, tmp_path, capsys):
    assert main(["data", name, "--to", str(tmp_path)]) == 2
    assert f"`git clone {SOURCES[name][0]}`" in capsys.readouterr().err


@pytest.mark.parametrize(("missing", "name"), [
    ("sentences/mr.parquet", "mr"), ("imdb_contrast/dev.parquet", "imdb_contrast"),
    ("sentences/sst2_sentences/test.parquet", "sst2_sentences"),
])  # fmt: skip
def test_a_missing_set_is_answered_with_the_command_that_makes_it(missing, name, tmp_path, capsys):
    data, source = tmp_path / "data", clone(tmp_path / "clone")
    for each in OUTSIDE:
        assert main(["data", each, "--archive", str(source), "--to", str(data)]) == 0
    (data / missing).unlink()
    with pytest.raises(outside.UserError, match=f"`dropattack data {name}`"):
        outside.load(data)
