"""Sample a model in full and with a caching method, and compare: see spectrum/commands/run.py, or type --help."""

import sys

from spectrum.commands import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
