"""Faults in dropattack/probes."""

from tests.mutations.fault import Fault

FAULTS = (
    Fault("probes/hessian.py", "The trace is estimated with zeros and ones instead of random signs.",
          "generator=generator) * 2 - 1)",
          "generator=generator))", "tests/probes/test_flatness.py"),
    Fault("probes/flatness.py", "The ascent leaves the ball in which sharpness is defined.",
          "shrink = (rho / _norm(ball)).clamp(max=1)",
          "shrink = 1", "tests/probes/test_flatness.py"),
    Fault("probes/calibration.py", "Bins that are too confident cancel bins that are not confident enough.",
          "gaps.abs().sum()",
          "gaps.sum().abs()", "tests/probes/test_calibration.py"),
    Fault("probes/directions.py", "Directions are normalized by weight instead of by filter.",
          "size = filter_norms(w) / (filter_norms(d) + TINY)",
          "size = w.norm() / (d.norm() + TINY)", "tests/probes/test_landscape.py"),
    Fault("probes/corruptions.py", "Dropping words also drops [CLS] and [SEP].",
          "kept = fixed | (draws >= rate)",
          "kept = draws >= rate", "tests/probes/test_robustness.py"),
    Fault("commands/landscape.py", "Landscapes of other splits are drawn on one scale.",
          "json.dumps([way, content[\"axes\"]], sort_keys=True)", '""', "tests/probes/test_commands.py", "landscape"),
    Fault("probes/suite.py", "The probes of earlier weights stay after a rerun.",
          'if content.get("result", result) != result or not content:', "if not content:",
          "tests/probes/test_commands.py", "earlier_weights"),
)  # fmt: skip
