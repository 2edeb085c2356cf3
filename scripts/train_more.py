"""Train the other embedded models, from the same pictures as the embedded model and on its autoencoder.

python scripts/train_more.py tiny_dit                         a class-conditional DiT; killed, it goes on where it was
python scripts/train_more.py tiny_unet --device cuda          a UNet with a text encoder, on a GPU

The card of a model that ships says which options it was trained with. Needs npm once, as scripts/train_tiny.py does.
"""

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

import torch
from diffusers import AutoencoderKL
from tiny import classes, export, noise, scenes, unet
from train_tiny import TRAINED, emoji

from spectrum.commands.guard import guarded
from spectrum.core.errors import refuse
from spectrum.models.identity import EMBEDDED

MODELS = {"tiny_dit": classes, "tiny_unet": unet}


def arguments() -> argparse.ArgumentParser:
    """What the command line may say."""
    root = Path(__file__).resolve().parent.parent
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", choices=MODELS)
    options.add_argument("--work", type=Path, default=root / "work" / "tiny", help="data and checkpoints")
    options.add_argument("--out", type=Path, help="the model's folder; what is there goes")
    options.add_argument("--prompts", type=Path, default=TRAINED / "prompts", help="lists of classes")
    options.add_argument("--emoji", type=Path, help="a folder that has the 64-pixel pictures")
    options.add_argument("--scenes", type=int, default=24000, help="a multiple of 50")
    options.add_argument("--steps", type=int, default=4000, help="of the denoiser")
    options.add_argument("--batch", type=int, default=64, help="of the denoiser")
    options.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    options.add_argument("--start", type=Path, help="a folder of trained weights to begin with")
    options.add_argument("--no-compile", action="store_true", help="train the denoiser without torch.compile")
    return options


def main() -> None:
    """Paint and encode scenes, train the denoiser, write the model."""
    given = arguments().parse_args()
    kind, name = MODELS[given.model], given.model
    out: Path = given.out or TRAINED / name
    where = given.work / f"{name}.pt"
    if given.start is not None and where.exists():
        refuse(f"{where} has a training that was begun: to go on with it, leave --start out; else delete it")
    given.work.mkdir(parents=True, exist_ok=True)
    objects = scenes.load_objects(emoji(given.emoji, given.work))
    vae = AutoencoderKL.from_pretrained(EMBEDDED / "vae", torch_dtype=torch.float32).eval()
    path = given.work / f"{name}_pool.pt"
    pool = noise.encode_pool(vae, kind.draw, objects, given.scenes, kind.SEED, path, given.device)
    torch.manual_seed(0)
    levels = kind.scheduler().alphas_cumprod
    model = kind.Denoiser()
    if given.start is not None:
        model.load(given.start)
    trained = noise.train(model, pool, levels, given.steps, where, given.batch, given.device, not given.no_compile)
    export.export(kind.assemble(vae, trained, pool.scale), out)
    kind.write_prompts(given.prompts)
    facts = {"scenes": given.scenes, "steps": given.steps, "batch": given.batch, "classes": len(classes.NAMES)}
    size = export.write_card(out, facts, kind.CARD)
    print(f"{out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(guarded(main))
