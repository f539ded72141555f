"""Faults in dropattack/sweeps."""

from tests.mutations.fault import Fault

FAULTS = (
    Fault("runs/store.py", "A run that another table names leaves the store.",
          "if lost := set(dropped) - others:",
          "if lost := set(dropped):", "tests/sweeps/test_store.py"),
    Fault("runs/store.py", "Of a run that two commits measured, the store keeps one record.",
          "{str(commit.get('hash', '-'))[:10]}",
          "-", "tests/sweeps/test_store.py"),
    Fault("jsonl.py", "A line separator inside a string cuts a record in two.",
          'enumerate(text.split("\\n"), 1)',
          "enumerate(text.splitlines(), 1)", "tests/sweeps/test_store.py"),
    Fault("jsonl.py", "Tables that are made at the same time lose each other's records.",
          'with FileLock(path.parent / f".{path.name}.lock"):',
          "if True:", "tests/sweeps/test_store.py"),
    Fault("sweeps/tuning.py", "Of two equal trials, the one with the larger loss wins.",
          '-trial["validation_accuracy"], trial["validation_loss"])',
          '-trial["validation_accuracy"], -trial["validation_loss"])', "tests/sweeps/test_tuning.py"),
    Fault("sweeps/tuning.py", "A trial that failed on one seed is judged by the others.",
          'lacking = next((one for one in outcomes if one["validation_accuracy"] is None), None)',
          "lacking = None", "tests/sweeps/test_tuning.py"),
    Fault("sweeps/search.py", "A control is searched with the settings of its method, and the method is not.",
          "self._tuned(*key).write_text(header + OmegaConf.to_yaml(chosen))",
          "pass", "tests/sweeps/test_tuning.py"),
    Fault("sweeps/search.py", "A control keeps its own defaults where those of its method differ.",
          'differs = option not in ("_target_", "name")', 'differs = option in ("_target_", "name")',
          "tests/sweeps/test_tuning.py"),
    Fault("sweeps/table.py", "A table's own seeds are kept where the command line names others.",
          "if not _is_seed(o)) for grid in grids)",
          "if True) for grid in grids)", "tests/sweeps/test_plan.py"),
)  # fmt: skip
