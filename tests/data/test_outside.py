"""The reviews that other sets rewrite are left out of IMDB, and these sets are read with their pairs."""

import numpy as np
import pytest

from dropattack.commands.main import main
from dropattack.data import imdb, outside
from dropattack.data.types import TextSplit
from dropattack.errors import UserError
from tests.data.makers import texts, write_split, write_table


def write_outside(root, originals=("a fine film", "a dull film")):
    """Write all sets; each paired file has the originals, labelled 1 and 0, and a version of each that flips it."""
    changed = [f"not {text}" for text in originals]
    labels = [1 - row % 2 for row in range(len(originals))]
    for name, splits in outside.PAIRED.items():
        kind = "revised" if name == "imdb_counterfactual" else "contrast"
        for split in splits:
            write_table(root / name / f"{split}.parquet", {
                "text": [*changed, *originals], "label": [*(1 - label for label in labels), *labels],
                "kind": [kind] * len(changed) + ["original"] * len(originals),
                "pair": [*range(len(changed)), *range(len(originals))],
            })  # fmt: skip
    for name in ("mr", "sst2"):
        write_split(root / outside.FILES[name], texts(8, prefix=name))


@pytest.fixture
def folder(tmp_path):
    """Write IMDB with the first two training reviews, and the first test review, in another spelling in the sets."""
    train, test = texts(60, prefix="r"), texts(60, seed=1, prefix="t")
    for split, names in ((train, ("Ann", "Bob", "Cid")), (test, ("Dan",))):
        for row, name in enumerate(names):
            split.texts[row] = f"{name} liked it"
    write_split(tmp_path / "imdb" / "train.parquet", train)
    write_split(tmp_path / "imdb" / "test.parquet", test)
    write_outside(tmp_path, ["ann, liked it 5", "Bob liked it...", "DAN liked it"])
    return tmp_path


def test_rewritten_reviews_are_left_out_of_train_and_validation(folder):
    made, whole = (imdb.load(root=folder, drop_rewritten=drop) for drop in (True, False))
    assert made.notes["rewritten_dropped"] == {"train": 2}
    assert "rewritten_dropped" not in whole.notes
    seen = {*made.train.texts, *made.validation.texts}
    assert seen == {*whole.train.texts, *whole.validation.texts} - {"Ann liked it", "Bob liked it"}
    assert made.test.texts == whole.test.texts


def test_with_pooled_splits_also_out_of_test(folder, monkeypatch):
    monkeypatch.setattr(imdb, "AUTHOR_ROWS", 20)
    made = imdb.load(root=folder, drop_rewritten=True, split="author")
    assert made.notes["rewritten_dropped"] == {"train": 2, "test": 1}
    assert [len(split) for split in made.splits.values()] == [77, 20, 20]
    assert made.notes["author"].startswith("77 / 20 / 20 drawn from the pooled 117")
    assert not {f"{name} liked it" for name in ("Ann", "Bob", "Dan")} & {
        t for s in made.splits.values() for t in s.texts
    }


def test_without_the_list_the_run_is_refused(folder, capsys):
    (folder / "imdb_contrast" / "dev.parquet").unlink()
    run = ["run", "dataset=imdb", "dataset.drop_rewritten=true", "scale=smoke", "tracker=none", "trainer.device=cpu"]
    assert main([*run, f"paths.data={folder}", f"paths.output={folder / 'out'}"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "imdb_contrast/dev.parquet, which is missing" in said[0]
    assert not (folder / "out").exists()


def test_letters_are_what_copies_have_in_common():
    assert outside.letters("A film.<br />6/10") == outside.letters("a FILM <br>4/10 é") == b"afilmbr"


def test_pairs_are_originals_and_their_changed_versions(folder):
    sets = {one.name: one for one in outside.load(folder)}
    assert list(sets) == list(outside.FILES)
    one = sets["contrast_test"]
    assert one.partners.tolist() == [[3, 0], [4, 1], [5, 2]]
    assert {one.kinds[row] for row in one.partners[:, 1]} == {"contrast"}
    assert (one.rows.labels[one.partners[:, 0]] != one.rows.labels[one.partners[:, 1]]).all()
    assert sets["mr"].partners is None
    assert len(sets["mr"].rows) == 8
    assert sets["mr"].fingerprint != sets["sst2"].fingerprint
    relabelled = TextSplit(sets["mr"].rows.texts, 1 - sets["mr"].rows.labels)
    assert outside.OutsideSet("mr", relabelled).fingerprint != sets["mr"].fingerprint


@pytest.mark.parametrize(("change", "message"), [
    ({"kind": ["original"] * 4}, "one original and one changed text"),
    ({"pair": [0, 1, 2, 3]}, "one original and one changed text"),
    ({"kind": None}, "has no column kind"),
])  # fmt: skip
def test_broken_pairs_are_refused(folder, change, message):
    columns = {"text": list("abcd"), "label": [0, 1, 1, 0], "kind": ["original", "contrast"] * 2, "pair": [0, 0, 1, 1]}
    columns = {name: value for name, value in {**columns, **change}.items() if value is not None}
    write_table(folder / "imdb_contrast" / "test.parquet", columns)
    with pytest.raises(UserError, match=message):
        outside.load(folder)


def test_a_missing_set_is_named(folder):
    (folder / outside.FILES["sst2"]).unlink()
    with pytest.raises(UserError, match=r"sst2_sentences/test\.parquet is missing"):
        outside.load(folder)
    assert np.isin(outside.absent(["Dan liked it", "unseen"], outside.rewritten(str(folder))), [1]).all()
