"""Exceptions that end a run or a command with one sentence, and what sentences are made of."""

import signal

MOST = 2_000  # characters per sentence
# Modules of the packages that the extra `experiments` brings.
EXPERIMENTS = (
    "accelerate", "datasets", "filelock", "foolbox", "hydra", "jinja2", "joblib", "latex2mathml", "markdown_it",
    "matplotlib", "mdit_py_plugins", "numpy", "omegaconf", "pandas", "PIL", "pyarrow", "rich", "safetensors", "scipy",
    "sklearn", "statsmodels", "tokenizers", "torchvision", "trackio", "transformers", "wandb", "yaml",
)  # fmt: skip


class UserError(Exception):
    """Bad input: one sentence that names the file, key or value, and says what to do.

    The command line prints it on stderr, without a traceback, and exits with code 2.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


def missing_package(error: ModuleNotFoundError) -> str | None:
    """Return one sentence about a package that only the command line needs; None for any other module."""
    name = (error.name or "").partition(".")[0]
    if name not in EXPERIMENTS:
        return None
    return (
        f"{name} is not installed: the command line needs the extra `experiments`; in a clone of the repository, "
        "`pip install '.[experiments]'` brings it"
    )


class DivergedError(Exception):
    """Gradients stayed non-finite for too many steps; see the record."""


class AlreadyRunningError(Exception):
    """Another process is running the same experiment."""


class Interrupted(BaseException):
    """A signal stopped the run, and its state was saved.

    Like KeyboardInterrupt, this is not an `Exception`: `except Exception` around one cell of a sweep must not continue
    with the next.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as a shell reports it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number


def counted(count: float, what: str, plural: str = "s") -> str:
    """Return a number and what it counts: `1 run`, `2 runs`; `plural` is added to all but one."""
    return f"{count:g} {what}{plural if count != 1 else ''}"


def printable(text: str) -> str:
    """Return `text` with its escape sequences spelled out, so that it cannot command a terminal; lines stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """Return `text` as one printable line, because it may quote escape sequences from a file."""
    shown = text if len(text) <= MOST else f"{text[: MOST // 2]} … {text[-MOST // 2 :]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)
