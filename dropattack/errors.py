"""The exceptions that end a run or a command with a sentence of their own."""

import signal

MOST = 2_000  # characters of a sentence


class UserError(Exception):
    """Bad input: one sentence that names the thing, the file or the key, and says what to do.

    `run.py` prints it on stderr, without a traceback, and exits with code 2.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


class DivergedError(Exception):
    """Training found no finite gradient for too many steps in a row; the record says where."""


class AlreadyRunningError(Exception):
    """Another process runs the same experiment at this moment."""


class Interrupted(BaseException):
    """A signal asked the run to stop, and its state was saved.

    Like KeyboardInterrupt no `Exception`: `except Exception` around one cell of a sweep must not go on to the next.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as a shell reports it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number


def one_line(text: str) -> str:
    """`text` as one printable line: it may quote a file, whose escapes are not the terminal's to obey."""
    shown = text if len(text) <= MOST else f"{text[: MOST // 2]} … {text[-MOST // 2 :]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)
