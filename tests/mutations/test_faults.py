"""The list of deliberate faults fits the code, and the tests that it names catch every one."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.mutations.__main__ import TABLE, problem, rows_of, start_of
from tests.mutations.faults import FAULTS


def test_every_fault_applies():
    problems = [f"{fault.breaks} {found}" for fault in FAULTS if (found := problem(fault))]
    assert not problems, "the code has changed: correct tests/mutations/faults/"


def test_faults_are_distinct_and_change_something():
    assert len({(fault.path, fault.old, fault.new) for fault in FAULTS}) == len(FAULTS) >= 40
    assert all(fault.old != fault.new and fault.breaks.endswith(".") for fault in FAULTS)


def test_the_table_names_the_test_that_catches_each_fault():
    starts = [row.rpartition(" | ")[0] for row in rows_of(TABLE)]
    assert starts == [start_of(fault) for fault in FAULTS], "run `make mutations ARGS='--table --new'`"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_fault_is_caught():
    command = [sys.executable, "-m", "tests.mutations", "--show"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1700)
    assert ended.returncode == 0, "\n".join(line for line in ended.stdout.splitlines() if not line.startswith("caught"))
