"""Adversarial training as a regularizer: one call a step, `reg.backward(forward)`, adds the objective's gradient."""

from dropattack.regularizers.base import Regularizer
from dropattack.regularizers.dropattack import DropAttack
from dropattack.regularizers.fgm import FGM
from dropattack.regularizers.freelb import FreeLB
from dropattack.regularizers.identity import Identity
from dropattack.regularizers.naming import INPUT
from dropattack.regularizers.passes import Losses, Output
from dropattack.regularizers.pgd import PGD
from dropattack.regularizers.randomattack import RandomAttack
from dropattack.regularizers.rdrop import RDrop
from dropattack.regularizers.sam import SAM

__all__ = [
    "FGM",
    "INPUT",
    "PGD",
    "SAM",
    "DropAttack",
    "FreeLB",
    "Identity",
    "Losses",
    "Output",
    "RDrop",
    "RandomAttack",
    "Regularizer",
]
