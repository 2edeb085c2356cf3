"""Fit a plan: see spectrum/commands/fit.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from spectrum.commands import main

if __name__ == "__main__":
    sys.exit(main(["fit", *sys.argv[1:]]))
