"""The one exception that speaks to the person at the keyboard."""


class UserError(Exception):
    """Bad input: one sentence that names the thing, the file or the key, and says what to do.

    `run.py` prints it on stderr, without a traceback, and exits with code 2.
    """
