"""Each hostile input gives one sentence and the right exit code, and leaves no partial file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.hostile.case import CANARY, Case, Said
from tests.hostile.corpus import CASES, main

ALL = [pytest.param(case, id=case.name) for cases in CASES.values() for case in cases]


@pytest.mark.parametrize("case", ALL)
def test_input_is_handled(case: Case, tmp_path: Path) -> None:
    said = case.meet(tmp_path)
    assert "Traceback" not in said.err
    assert said.code == case.code, said.err
    lines = said.err.splitlines()
    assert len(lines) == case.lines, said.err
    assert re.search(case.says, lines[0]), lines[0]
    assert all(line.isprintable() for line in lines)
    if case.code:
        assert lines[0].startswith("error: ")
        assert said.out == ""
        assert left_behind(said) == []
    assert not (tmp_path / CANARY).exists(), "code in the input was run"


def left_behind(said: Said) -> list[Path]:
    """Return what a rejected input must not leave: records, checkpoints, files outside the output, partial caches."""
    kept = [path for path in said.written if path.name != "lock"]  # the run's own, and empty
    return [path for path in kept if path.parent.name != "cache" or path.name.startswith(".")]


def test_names_are_unique_and_there_are_enough() -> None:
    names = [case.name for cases in CASES.values() for case in cases]
    assert len(set(names)) == len(names) >= 60


def test_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    room = "PHEME's archive"
    assert main([room]) == 0
    out = capsys.readouterr().out
    assert "| input | message | exit code |" in out
    assert out.endswith(f"{len(CASES[room])} inputs.\n")
