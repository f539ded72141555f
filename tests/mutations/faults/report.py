"""Faults in dropattack/report."""

from tests.mutations.fault import Fault

CLAIMS = "tests/report/test_claims.py"

FAULTS = (
    Fault("report/claims.py", "The claims of a source are not corrected for their number.",
          "zip(family, holm([open_claims[i].p for i in family]), strict=True)",
          "zip(family, [open_claims[i].p for i in family], strict=True)", CLAIMS),
    Fault("report/claims.py", "A claim about all data sets is decided by one.",
          "enough = 1 if len(claim.datasets) == 1 else 2",
          "enough = 1", CLAIMS),
    Fault("report/claims.py", "A data set that two tables have counts twice.",
          "if cell.dataset not in seen:",
          "if True:", CLAIMS),
    Fault("report/claims.py", "Fewer than three seeds decide a claim.",
          "return self.difference.n >= MIN_SEEDS",
          "return True", CLAIMS),
    Fault("report/claims.py", "Norms are compared by their difference instead of their ratio.",
          "{seed: math.log(number) for seed, number in known.items() if number > 0}",
          "{seed: number for seed, number in known.items() if number > 0}", CLAIMS),
    Fault("report/page.py", "A record's text is markup of the page.",
          "autoescape=True",
          "autoescape=False", "tests/report/test_page.py"),
    Fault("report/page.py", "The page's policy allows no script, its own included.",
          "base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()",
          "hashlib.sha256(script.encode()).hexdigest()", "tests/report/test_page.py"),
)  # fmt: skip
