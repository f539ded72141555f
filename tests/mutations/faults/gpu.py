"""Faults in dropattack/gpu."""

from tests.mutations.fault import Fault

FAULTS = (
    Fault("gpu/stages.py", "A stage that failed or was cut off is never run again.",
          'if known is not None and known.state == "done":',
          "if known is not None:", "tests/gpu/test_stages.py"),
    Fault("gpu/stages.py", "Processes that a stage started go on after its end.",
          "    with suppress(ProcessLookupError):\n        os.killpg(group, signal.SIGKILL)",
          "    pass", "tests/gpu/test_stages.py"),
    Fault("gpu/parts.py", "A packed part grows beyond its limit.",
          "        if size > room:",
          "        if size > limit:", "tests/gpu/test_parts.py"),
)  # fmt: skip
