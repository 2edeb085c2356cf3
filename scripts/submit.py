"""Check a method by others and put it on the leaderboard: see spectrum/commands/submit.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from spectrum.commands import main

if __name__ == "__main__":
    sys.exit(main(["submit", *sys.argv[1:]]))
