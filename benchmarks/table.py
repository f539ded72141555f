"""The table and the promises of a benchmark, from its JSON alone: `python -m benchmarks.table FILE`."""

import sys

from dropattack.report.cost import main

if __name__ == "__main__":
    main(sys.argv[1:])
