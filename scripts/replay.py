"""Score forecasts on a trace: see spectrum/commands/replay.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from spectrum.commands import main

if __name__ == "__main__":
    sys.exit(main(["replay", *sys.argv[1:]]))
