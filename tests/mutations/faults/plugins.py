"""Faults in dropattack/plugins.py and source.py."""

from tests.mutations.fault import Fault

PLUGINS = "tests/test_plugins.py"

FAULTS = (
    Fault("plugins.py", "A plug-in takes the name of another silently.",
          "if before != place:",
          "if False:", PLUGINS),
    Fault("plugins.py", "A file in the current folder takes the place of a library.",
          "sys.path.append(folder)",
          "sys.path.insert(0, folder)", PLUGINS),
    Fault("plugins.py", "The code of a plug-in is not a part of its run.",
          "source.digest_of_other(name.partition(\".\")[0])",
          '"0"', PLUGINS),
    Fault("plugins.py", "An installed plug-in that a run uses is not in its record.",
          "installed = sorted(top for top in tops - declared if top in source.others)",
          "installed: list[str] = []", PLUGINS),
    Fault("plugins.py", "A registered method takes its targets from nowhere.",
          'made[option] = ["input"]',
          "made[option] = []", PLUGINS),
    Fault("source.py", "Comments and docstrings change the digest of a run's code.",
          "value = value[1:]",
          "pass", PLUGINS),
    Fault("source.py", "The digest of a run's code stops at its own module.",
          "todo += _imports(path) if path is not None else []",
          "pass", "tests/test_source.py"),
)  # fmt: skip
