"""Fit what a method needs on a model: see spectrum/commands/calibrate.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from spectrum.commands import main

if __name__ == "__main__":
    sys.exit(main(["calibrate", *sys.argv[1:]]))
