"""Try the hook on toys of all denoiser classes: see spectrum/commands/probe.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from spectrum.commands import main

if __name__ == "__main__":
    sys.exit(main(["probe", *sys.argv[1:]]))
