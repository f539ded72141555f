"""The scorecard of faults: how an end is judged, and how the table is made. The faults themselves take minutes."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks.faults.__main__ import markdown
from benchmarks.faults.faults import FAULTS
from benchmarks.faults.judge import EXACT, LOSS, TRACE, WRONG, Ended, Whole, outcome, reads_all_rows
from benchmarks.faults.task import BATCH, BATCHES, STEPS, new_trail
from benchmarks.faults.trainers import TRAINERS

ROWS = list(range(BATCH * BATCHES))


def ended(rows: list[int], steps: int) -> Ended:
    """Return a process that read these rows and made these steps."""
    trail, read = new_trail(), torch.tensor(rows).view(-1, BATCH)
    trail[1 : 1 + len(read)] = read
    trail[0, 0], trail[0, 1] = steps, len(read)
    return Ended(0, "", trail)


def test_a_resumed_run_reads_each_row_once_in_each_epoch():
    first = ended([*ROWS, *ROWS[: 5 * BATCH]], BATCHES + 5)  # killed in the second epoch, saved after 9 steps
    rest = [*ROWS[3 * BATCH :], *reversed(ROWS)]
    assert reads_all_rows(first, ended(rest, STEPS - 9), ROWS)
    assert not reads_all_rows(first, ended([*ROWS[: 3 * BATCH], *ROWS], STEPS - 9), ROWS)  # half an epoch again
    assert not reads_all_rows(first, ended([*ROWS[:BATCH], *3 * ROWS], STEPS + 1), ROWS)
    assert reads_all_rows(first, ended(3 * ROWS, STEPS), ROWS)  # from the beginning


@pytest.mark.parametrize(("value", "known", "wanted"), [
    (1.0, False, EXACT), (1.5, True, LOSS), (1.5, False, WRONG), (float("nan"), True, WRONG),
])  # fmt: skip
def test_outcomes(value, known, wanted):
    assert outcome({"w": torch.tensor([value])}, Whole({"w": torch.ones(1)}, ROWS), known) == wanted


def test_other_names_of_weights_are_not_exact():
    assert outcome({"v": torch.ones(1)}, Whole({"w": torch.ones(1)}, ROWS), False) == WRONG


def test_the_table_lists_where_another_trainer_does_better():
    one, two = FAULTS[0].name, FAULTS[1].name
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    rows = {
        (one, "DropAttack"): {"outcome": LOSS, "ends": ["finished"]},
        (one, "Lightning"): {"outcome": EXACT, "ends": ["finished"]},
        (two, "DropAttack"): {"outcome": EXACT, "ends": ["finished"]},
        (two, "Lightning"): {"outcome": TRACE, "ends": ["hung", "trace"]},
    }
    made = markdown(rows, dict.fromkeys(("torch", "transformers", "lightning", "accelerate"), "1"))
    assert f"| {two} | {EXACT} | {TRACE}, after it hung |" in made
    assert made.endswith(f"- {one}: {LOSS}; better: Lightning ({EXACT})\n")


@pytest.mark.slow
def test_a_fault_is_judged(tmp_path):
    output = tmp_path / "scorecard.json"
    command = [sys.executable, "-m", "benchmarks.faults", "--only", "NaN in one batch", "--json", str(output)]
    subprocess.run(command, check=True, capture_output=True, timeout=500)
    rows = {row["trainer"]: row["outcome"] for row in json.loads(output.read_text())["rows"]}
    assert rows["DropAttack"] == LOSS
    assert set(rows) == set(TRAINERS)
