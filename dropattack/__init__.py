"""DropAttack: adversarial training as a regularizer.

The regularizers are the public library: they know torch and nothing else. They are imported on first use, so that
`import dropattack` costs nothing to those who only want the command line.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dropattack.regularizers import *  # noqa: F403


def __getattr__(name: str) -> object:
    # The library exports `make` and names that begin with a capital letter, and no submodule has such a name:
    # `from dropattack import config` asks here first, and must not import torch.
    if name in ("__all__", "make") or name[:1].isupper():
        library = import_module("dropattack.regularizers")
        if name == "__all__":
            return library.__all__
        if name in library.__all__:
            return getattr(library, name)
    raise AttributeError(f"module 'dropattack' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*import_module("dropattack.regularizers").__all__, "__all__", "__version__"])
