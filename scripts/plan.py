"""Print what a method will do: see spectrum/commands/plan.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from spectrum.commands import main

if __name__ == "__main__":
    sys.exit(main(["plan", *sys.argv[1:]]))
