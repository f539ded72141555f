"""DropAttack: adversarial training as a regularizer.

The regularizers are the public library: they know torch and nothing else. They are imported on first use, so that
`import dropattack` costs nothing to those who only want the command line.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

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

if TYPE_CHECKING:
    from dropattack.regularizers import (
        FGM,
        INPUT,
        PGD,
        SAM,
        DropAttack,
        FreeLB,
        Identity,
        Losses,
        Output,
        RandomAttack,
        RDrop,
        Regularizer,
    )


def __getattr__(name: str):
    if name in __all__:
        return getattr(import_module("dropattack.regularizers"), name)
    raise AttributeError(f"module 'dropattack' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
