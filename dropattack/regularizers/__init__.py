"""Adversarial training as a regularizer: one call per step, `reg.backward(forward)`, adds the objective's gradient.

One line here exports a method. `dropattack` exports the same names and imports torch only when one of them is used.
"""

from dropattack.regularizers.awp import AWP as AWP
from dropattack.regularizers.base import Regularizer as Regularizer
from dropattack.regularizers.compose import Compose as Compose
from dropattack.regularizers.creat import CreAT as CreAT
from dropattack.regularizers.dropattack import DropAttack as DropAttack
from dropattack.regularizers.factory import make as make
from dropattack.regularizers.fgm import FGM as FGM
from dropattack.regularizers.flooding import Flooding as Flooding
from dropattack.regularizers.freelb import FreeLB as FreeLB
from dropattack.regularizers.fsam import FSAM as FSAM
from dropattack.regularizers.identity import Identity as Identity
from dropattack.regularizers.msam import MSAM as MSAM
from dropattack.regularizers.naming import INPUT as INPUT
from dropattack.regularizers.neftune import NEFTune as NEFTune
from dropattack.regularizers.passes import Losses as Losses
from dropattack.regularizers.passes import Output as Output
from dropattack.regularizers.pgd import PGD as PGD
from dropattack.regularizers.randomattack import RandomAttack as RandomAttack
from dropattack.regularizers.rat import RAT as RAT
from dropattack.regularizers.rdrop import RDrop as RDrop
from dropattack.regularizers.rwp import RWP as RWP
from dropattack.regularizers.sam import SAM as SAM
from dropattack.regularizers.smart import SMART as SMART
from dropattack.regularizers.vat import VAT as VAT

__all__ = sorted(name for name in dir() if name[:1].isupper() or name == "make")
