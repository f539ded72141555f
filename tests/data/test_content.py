"""The identity of a run on a user's own data: it follows from the content of files, and not from their places."""

import json
from pathlib import Path

from dropattack.data import content
from dropattack.runs import experiment, identity
from dropattack.runs.config import compose
from tests.data.makers import texts
from tests.data.test_own import table


def identified(folder: Path, path: str, *extra: str) -> tuple[str, dict]:
    overrides = ["dataset=csv", f"dataset.path={path}", "scale=smoke", f"paths.data={folder / 'data'}", *extra]
    values = experiment.resolve(compose(experiment.CONF, overrides))
    return identity.run_id(values), identity.of(values)["dataset"]


def test_a_run_is_identified_by_the_content_of_its_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("data", "else"):
        (tmp_path / name).mkdir()
    table(tmp_path, "own.csv")
    table(tmp_path / "data", "own.csv")
    table(tmp_path / "else", "renamed.csv")
    here, relative = identified(tmp_path, "own.csv")
    inside, in_data = identified(tmp_path, str(tmp_path / "data" / "own.csv"))
    elsewhere, absolute = identified(tmp_path, str(tmp_path / "else" / "renamed.csv"))
    assert here == inside == elsewhere
    assert (relative["path"], in_data["path"], absolute["path"]) == ("own.csv", "<data>/own.csv", "renamed.csv")
    assert str(tmp_path) not in json.dumps([relative, in_data, absolute])
    table(tmp_path, "own.csv", rows=texts(50))
    changed, _ = identified(tmp_path, "own.csv")
    assert changed != here
    assert identified(tmp_path, "own.csv", "dataset.seed=1")[0] != changed
    values = experiment.resolve(compose(experiment.CONF, ["dataset=csv", "dataset.path=own.csv"]))
    assert identity.run_id(identity.of(values)) == identity.run_id(values), "a record's config has the run's identity"


def test_a_column_called_as_the_data_file_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table(tmp_path, "text")
    table(tmp_path, "renamed.csv")
    asked = "dataset.text_column=text"
    assert identified(tmp_path, "text", asked)[0] == identified(tmp_path, "renamed.csv", asked)[0]


def test_a_run_is_identified_by_the_content_of_its_vectors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table(tmp_path, "own.csv")

    def known(text: str, name: str = "v.txt") -> str:
        Path("v.txt").write_text(text)
        return identified(tmp_path, "own.csv", f"model.vectors={name}")[0]

    assert known("a 1 2\n") == known("a 1 2\n")
    assert known("a 1 2\n") != known("a 1 23\n")
    assert known("a 1\n", "glove") == known("b 23\n", "glove")
    asked = ["dataset=csv", "dataset.path=own.csv", "model.vectors=v.txt"]
    values = experiment.resolve(compose(experiment.CONF, asked))
    assert identity.run_id(identity.of(values)) == identity.run_id(values)


def test_content_of_folders(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    before = content.digest(tmp_path, "a")
    assert before is not None
    (tmp_path / "a" / ".hidden").write_text("2")
    assert content.digest(tmp_path, "a") == before
    (tmp_path / "a" / "y").write_text("2")
    assert content.digest(tmp_path, "a") != before
    assert content.digest(tmp_path, "a", "nowhere") is None


def test_the_content_of_linked_folders_counts(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "store" / name).mkdir(parents=True)
        (tmp_path / "store" / name / "x").write_text(name)
        (tmp_path / name).mkdir()
        (tmp_path / name / "inside").symlink_to(tmp_path / "store" / name)
    assert content.digest(tmp_path, "a") != content.digest(tmp_path, "b")
    (tmp_path / "copy" / "inside").mkdir(parents=True)
    (tmp_path / "copy" / "inside" / "x").write_text("a")
    assert content.digest(tmp_path, "a") == content.digest(tmp_path, "copy")
    (tmp_path / "a" / "around").symlink_to(tmp_path / "a")
    assert content.digest(tmp_path, "a") == content.digest(tmp_path, "copy")
