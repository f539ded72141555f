"""A deliberate fault, and the names of the tests that several faults share."""

from typing import NamedTuple

ORACLES, CONTRACT = "tests/regularizers/test_oracles.py", "tests/regularizers/test_contract.py"
LOOP, RESUME = "tests/training/test_loop.py", "tests/training/test_resume.py"
OPTIM, AVERAGING = "tests/training/test_optim.py", "tests/training/test_averaging.py"


class Fault(NamedTuple):
    """In the file `path`, below dropattack/, `old` becomes `new`; `breaks` says what is wrong then.

    `old` occurs once in the file. `tests` are test files in which at least one test must fail, and `chosen` is
    pytest's -k. They name files and parameters rather than tests, whose names change.
    """

    path: str
    breaks: str
    old: str
    new: str
    tests: str
    chosen: str = ""
