"""The one exception that speaks to the person at the keyboard."""

MOST = 2_000  # characters of a sentence


class UserError(Exception):
    """Bad input: one sentence that names the thing, the file or the key, and says what to do.

    `run.py` prints it on stderr, without a traceback, and exits with code 2.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


def one_line(text: str) -> str:
    """`text` as one printable line: it may quote a file, whose escapes are not the terminal's to obey."""
    shown = text if len(text) <= MOST else f"{text[: MOST // 2]} … {text[-MOST // 2 :]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)
