"""Distil the embedded model into one that samples in 4 or 8 steps without guidance, on a CPU.

python scripts/distil_tiny.py 8                  about an hour on one core; killed, the same command goes on
python scripts/distil_tiny.py 4 --out spectrum/assets/tiny_4step

Nothing is fetched: the teacher is the embedded model, and what it samples is what the student learns from.
"""

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from diffusers import FluxPipeline
from tiny import distil, export
from train_tiny import TRAINED

from spectrum.commands.guard import guarded
from spectrum.core.errors import refuse
from spectrum.models.identity import EMBEDDED, digest


def arguments() -> argparse.ArgumentParser:
    """What the command line may say."""
    root = Path(__file__).resolve().parent.parent
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("steps", type=int, help=f"of the student, a divisor of {distil.STEPS}")
    options.add_argument("--work", type=Path, default=root / "work" / "tiny", help="trajectories and checkpoints")
    options.add_argument("--out", type=Path, help="the model's folder; what is there goes")
    options.add_argument("--prompts", type=int, default=768, help="trajectories to learn from, a multiple of 16")
    options.add_argument("--updates", type=int, default=400)
    options.add_argument("--batch", type=int, default=32, help="states of each update")
    return options


def main() -> None:
    """Sample the teacher, train the student, write the model."""
    given = arguments().parse_args()
    if given.steps < 1 or distil.STEPS % given.steps:
        refuse(f"{given.steps} steps do not divide the teacher's {distil.STEPS}: type 4, 6, 8 or 12")
    if given.prompts % 16 or given.prompts < 16:
        refuse(f"--prompts {given.prompts}: type a multiple of 16")
    name = f"tiny_{given.steps}step"
    out: Path = given.out or TRAINED / name
    given.work.mkdir(parents=True, exist_ok=True)
    pipe = FluxPipeline.from_pretrained(EMBEDDED)
    shown = distil.sample(pipe, given.prompts, given.work / f"trajectories-{digest(EMBEDDED)[:12]}.pt")
    where = given.work / f"{name}-{given.prompts}-prompts-{given.updates}-updates-of-{given.batch}.pt"
    pipe.transformer = distil.train(pipe.transformer, shown, given.steps, given.updates, where, given.batch)
    export.export(pipe, out)
    facts = {"steps": given.steps, "prompts": given.prompts, "updates": given.updates, "batch": given.batch}
    size = export.write_card(out, facts, "distilled_card.md")
    print(f"{out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(guarded(main))
