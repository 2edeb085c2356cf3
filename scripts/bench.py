"""Print what this machine can do: see spectrum/commands/bench.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from spectrum.commands import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
