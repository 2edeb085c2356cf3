"""Download a model's weights, a prompt list or a metric's files: see spectrum/commands/fetch.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from spectrum.commands import main

if __name__ == "__main__":
    sys.exit(main(["fetch", *sys.argv[1:]]))
