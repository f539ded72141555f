"""Faults in dropattack/tracking."""

from tests.mutations.fault import Fault

FAULTS = (
    Fault("tracking/guard.py", "After an error, the tracker is still called.",
          'if not self._stopped or method == "finish":',
          "if True:", "tests/tracking/test_guard.py"),
    Fault("tracking/guard.py", "Every error of a tracker is printed, instead of the first.",
          "            self._stopped = True\n",
          "", "tests/tracking/test_guard.py"),
)  # fmt: skip
