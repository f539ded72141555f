"""Every method's objective and gradient, written out by hand with `torch.autograd.grad` in float64.

Nothing of the library is imported here. No weight is ever changed: the loss is evaluated at θ + r and x + δ by handing
the sums to the network (`Landscape.at`), with r and δ constants. Each function below returns what the library must
give, and reads like the method's row in docs/architecture.md.

Passes are made in the library's order (the first pass, then target by target, step by step), because each forward
with fresh dropout consumes the global generator. Randomness of the method itself (masks, starts) is handed in.
"""

from tests.regularizers.oracles.divergences import creat, divergence, rat, rdrop, smart, vat
from tests.regularizers.oracles.landscape import Expected, Landscape, Point, Shift, add, spread
from tests.regularizers.oracles.neighbours import awp, fsam, msam, rwp, sam
from tests.regularizers.oracles.perturbations import dropattack, fgm, freelb, identity, neftune, pgd, randomattack

__all__ = [
    "Expected", "Landscape", "Point", "Shift", "add", "awp", "creat", "divergence", "dropattack", "fgm", "freelb",
    "fsam", "identity", "msam", "neftune", "pgd", "randomattack", "rat", "rdrop", "rwp", "sam", "smart",
    "spread", "vat",
]  # fmt: skip
