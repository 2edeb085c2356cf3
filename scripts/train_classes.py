"""Train the embedded class-conditional model on a CPU, from the same pictures as the embedded model.

python scripts/train_classes.py                     about 40 minutes on two cores; killed, it goes on where it was
python scripts/train_classes.py --out spectrum/assets/tiny_dit --prompts spectrum/assets/prompts      write what ships

Needs the embedded model, whose autoencoder it takes, and npm once, as scripts/train_tiny.py does.
"""

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

import numpy as np
import torch
from diffusers import AutoencoderKL
from tiny import classes, export, scenes
from train_tiny import TRAINED, emoji

from spectrum.commands.guard import guarded
from spectrum.models.identity import EMBEDDED


def arguments() -> argparse.ArgumentParser:
    """What the command line may say."""
    root = Path(__file__).resolve().parent.parent
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--work", type=Path, default=root / "work" / "tiny", help="data and checkpoints")
    options.add_argument("--out", type=Path, default=TRAINED / "tiny_dit", help="the model; what is there goes")
    options.add_argument("--prompts", type=Path, default=TRAINED / "prompts", help="lists of classes")
    options.add_argument("--emoji", type=Path, help="a folder that has the 64-pixel pictures")
    options.add_argument("--scenes", type=int, default=24000)
    options.add_argument("--steps", type=int, default=4000, help="of the denoiser")
    options.add_argument("--batch", type=int, default=64, help="of the denoiser")
    options.add_argument("--no-compile", action="store_true", help="train the denoiser without torch.compile")
    return options


def write_prompts(folder: Path) -> None:
    """Half of the classes each: `classes` for tables, `classes_calibration` to fit on."""
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(6).permutation(len(classes.NAMES))
    for name, numbers in (("classes_calibration", order[: len(order) // 2]), ("classes", order[len(order) // 2 :])):
        (folder / f"{name}.txt").write_text("".join(f"{classes.NAMES[number]}\n" for number in numbers))


def main() -> None:
    """Paint and encode scenes of one object, train the denoiser, write the model."""
    given = arguments().parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    objects = scenes.load_objects(emoji(given.emoji, given.work))
    vae = AutoencoderKL.from_pretrained(EMBEDDED / "vae", torch_dtype=torch.float32).eval()
    pool = classes.encode_pool(vae, objects, given.scenes, given.work)
    trained = classes.train(pool, given.steps, given.work, given.batch, compiled=not given.no_compile)
    export.export(classes.assemble(vae, trained, pool["scale"]), given.out)
    write_prompts(given.prompts)
    facts = {"scenes": given.scenes, "steps": given.steps, "batch": given.batch, "classes": len(classes.NAMES)}
    size = export.write_card(given.out, facts, "classes_card.md")
    print(f"{given.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(guarded(main))
