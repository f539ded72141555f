"""Text from strangers' files commands neither a terminal, nor a spreadsheet, nor LaTeX."""

import csv
import io

import pandas as pd
import pytest

from dropattack.analysis import formats
from dropattack.runs import cli, experiment, record
from dropattack.training.checkpoint import Checkpoints, Snapshot
from tests.hostile.records import finished

TITLE = "\x1b]0;mine\x07"  # sets the title of a terminal
CLEAR = "\x1b[2J\r\x9b31m"


def tame(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def test_error_with_escape_sequences_is_spelled_out(capsys):
    def broken() -> int:
        raise RuntimeError(f"bad value {TITLE}{CLEAR}")

    assert cli.guarded(broken) == 1
    said = capsys.readouterr().err
    assert tame(said)
    assert "\\x1b]0;mine\\x07" in said
    assert said.count("\n") > 3, "the traceback keeps its lines"


def test_reason_of_a_stranger_s_record_is_spelled_out(tmp_path, capsys):
    path = tmp_path / "r.json"
    record.write(path, finished() | {"status": "failed", "error": f"{TITLE}{CLEAR}"})
    experiment.say(f"failed: seed=0 ({record.why(path)})")
    assert tame(capsys.readouterr().err)


def test_file_names_of_a_stranger_s_checkpoint_are_spelled_out(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dropattack.training.checkpoint._fingerprint", lambda path: {})
    monkeypatch.setattr("dropattack.training.checkpoint._read_state", lambda folder: None)
    Checkpoints(tmp_path).save(Snapshot(1, {}))
    monkeypatch.undo()
    (folder,) = tmp_path.iterdir()
    state = (folder / "state.json").read_text().partition("\n")[2].strip()
    state = state.replace("tensors.safetensors", TITLE.replace("\x1b", "\\u001b").replace("\x07", "\\u0007"))
    import hashlib

    (folder / "state.json").write_text(f"{hashlib.sha256(state.encode()).hexdigest()}\n{state}\n")
    assert Checkpoints(tmp_path).load() is None
    said = capsys.readouterr().err
    assert "is broken" in said
    assert tame(said)


@pytest.mark.parametrize("cell", ["=cmd|'/c calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1"])
def test_formula_stays_text_in_csv(cell):
    frame = pd.DataFrame({"method": ["fgm", cell], "n": [3, -3], "mean": [0.5, -0.25], "why": [None, cell]})
    (_, first, second) = csv.reader(io.StringIO(formats.csv(frame), newline=""))
    assert first == ["fgm", "3", "0.5", ""]
    shown = "'" + cell.replace("\r", " ")
    assert second == [shown, "-3", "-0.25", shown]


def test_latex_runs_no_command_of_a_name():
    name = r"\input{/etc/passwd}$^~&%#_"
    note = "a note\n\\input{/etc/passwd}\r\\write18{x}"
    text = formats.latex(formats.Table(("method", "n"), ((name, "3"),), 1, (note,)))
    lines = text.splitlines()
    assert [line for line in lines if "passwd" in line] == [
        r"% a note \input{/etc/passwd} \write18{x}",
        r"\textbackslash{}input\{/etc/passwd\}\$\^{}\~{}\&\%\#\_ & 3 \\",
    ]
