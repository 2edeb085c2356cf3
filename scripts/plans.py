"""Fit the plans of a study and sample held-out prompts with each: see spectrum/commands/plans.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from spectrum.commands import main

if __name__ == "__main__":
    sys.exit(main(["plans", *sys.argv[1:]]))
