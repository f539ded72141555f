"""Run one experiment: `python run.py dataset=imdb model=lstm reg=dropattack`. The same as `dropattack run`."""

import sys

from dropattack.commands.main import main

if __name__ == "__main__":
    raise SystemExit(main(["run", *sys.argv[1:]]))
