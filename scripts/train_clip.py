"""Train the small CLIP that scores the embedded model's text alignment, on its scenes. About 25 minutes on two cores.

python scripts/train_clip.py --emoji FOLDER                killed, it goes on where it was
python scripts/train_clip.py --out eval/assets/clip_tiny   write what ships here
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

import numpy as np
import torch
from open_clip.model import CLIP
from PIL import Image
from safetensors.torch import save_file
from tiny import scenes
from tiny.checkpoint import restore, save
from tiny.optim import optimisers, set_lr, warmup_then_decay
from torch import Tensor
from train_tiny import TRAINED, emoji

from eval.metrics.text import UNKNOWN, WordTokenizer, embedded, retrieval
from spectrum.commands.guard import guarded

CONTEXT = 20
CARD = """# The CLIP that ships here

An open_clip architecture of {parameters:.2f} M parameters, trained by `scripts/train_clip.py` on {pictures} captioned
scenes of the embedded model (same data and licence: see its model card; weights under Apache-2.0), {steps} steps of
batch {batch}. It knows those captions' words and nothing else.

On {held} scenes with captions that it never saw, a picture's own caption is the nearest of all {held} for {top_1:.0%}
of them, and among the five nearest for {top_5:.0%}.
"""


def architecture(words: int) -> dict:
    """Arguments of `open_clip.model.CLIP`: 96-pixel pictures in patches of 12."""
    vision = {"image_size": scenes.SIZE, "patch_size": 12, "width": 192, "head_width": 32, "layers": 4}
    text = {"context_length": CONTEXT, "vocab_size": words + UNKNOWN + 2, "width": 128, "heads": 4, "layers": 2}
    return {"embed_dim": 96, "vision_cfg": vision, "text_cfg": text}


def paint(objects: dict[str, Image.Image], count: int, seed: int) -> tuple[Tensor, list[str]]:
    """`count` scenes: pictures (count, 3, SIZE, SIZE) uint8, and captions."""
    made = [scenes.draw(objects, np.random.default_rng([seed, number])) for number in range(count)]
    pixels = torch.from_numpy(np.stack([scene.pixels for scene in made]))
    return pixels.permute(0, 3, 1, 2).contiguous(), [scene.caption for scene in made]


def held_out(objects: dict[str, Image.Image], seen: set[str], count: int) -> tuple[Tensor, list[str]]:
    """Scenes with captions that are not in `seen`, each caption once; float pictures in [0, 1]."""
    found: dict[str, Tensor] = {}
    number = 0
    while len(found) < count:
        pictures, captions = paint(objects, 64, 10_000 + number)
        found |= {c: p for c, p in zip(captions, pictures, strict=True) if c not in seen}
        number += 1
    captions = list(found)[:count]
    return torch.stack([found[c] for c in captions]).float() / 255, captions


def loss_of(model: CLIP, pictures: Tensor, ids: Tensor) -> Tensor:
    """The symmetric cross-entropy of CLIP over a batch; pictures of one caption count as each other's."""
    image = model.encode_image(2 * (pictures.float() / 255) - 1, normalize=True)
    text = model.encode_text(ids, normalize=True)
    logits = model.logit_scale.exp() * image @ text.T
    same = (ids[:, None] == ids[None]).all(-1).float()
    target = same / same.sum(1, keepdim=True)
    return -(target * (logits.log_softmax(1) + logits.T.log_softmax(1))).sum(1).mean() / 2


def train(pictures: Tensor, ids: Tensor, words: int, steps: int, batch: int, work: Path, lr: float = 1e-3) -> CLIP:
    """Train, or go on from `work/clip.pt`."""
    torch.manual_seed(0)
    model = CLIP(**architecture(words))
    optims = optimisers(model, lr, exclude=("embedding", "proj", "conv1"))
    start = restore(work / "clip.pt", model, *optims)
    began, running = time.time(), 0.0
    for step in range(start, steps):
        rows = torch.from_numpy(np.random.default_rng([5, step]).integers(0, len(pictures), batch))
        set_lr(optims, lr * warmup_then_decay(step, steps))
        loss = loss_of(model, pictures[rows], ids[rows])
        loss.backward()
        for optim in optims:
            optim.step()
            optim.zero_grad()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
        running = 0.98 * running + 0.02 * loss.item() if running else loss.item()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            print(f"clip {step + 1}/{steps}  loss {running:.4f}  {time.time() - began:.0f} s", flush=True)
            save(work / "clip.pt", step + 1, model, *optims)
    return model.eval()


def export(model: CLIP, words: list[str], folder: Path, held: tuple[Tensor, list[str]], facts: dict) -> None:
    """Write weights in float16, config and card; the retrieval is measured on what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({n: v.half().contiguous() for n, v in model.state_dict().items()}, folder / "model.safetensors")
    about = {"architecture": architecture(len(words)), "words": words, "held_out_retrieval": {}}
    (folder / "config.json").write_text(json.dumps(about) + "\n")
    hits = retrieval(embedded(folder), *held)
    about["held_out_retrieval"] = {**hits, "captions": len(held[1])}
    (folder / "config.json").write_text(json.dumps(about) + "\n")
    size = sum(p.numel() for p in model.parameters()) / 1e6
    (folder / "README.md").write_text(CARD.format(parameters=size, held=len(held[1]), **hits, **facts))
    print(f"{folder}: held-out retrieval {hits}")


def arguments() -> argparse.ArgumentParser:
    """What the command line may say."""
    root = Path(__file__).resolve().parent.parent
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--work", type=Path, default=root / "work" / "tiny", help="data and checkpoints")
    options.add_argument("--emoji", type=Path, help="a folder that has the 64-pixel pictures")
    options.add_argument("--out", type=Path, default=TRAINED / "clip_tiny", help="the CLIP")
    options.add_argument("--pictures", type=int, default=24000)
    options.add_argument("--steps", type=int, default=1500)
    options.add_argument("--batch", type=int, default=128)
    options.add_argument("--held", type=int, default=256)
    return options


def main() -> None:
    """Paint, train, measure, write."""
    given = arguments().parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    objects = scenes.load_objects(emoji(given.emoji, given.work))
    pictures, captions = paint(objects, given.pictures, 4)
    words = sorted({word for caption in captions for word in caption.split()})
    ids = WordTokenizer(words, CONTEXT)(captions)
    model = train(pictures, ids, len(words), given.steps, given.batch, given.work)
    facts = {"pictures": given.pictures, "steps": given.steps, "batch": given.batch}
    export(model, words, given.out, held_out(objects, set(captions), given.held), facts)


if __name__ == "__main__":
    sys.exit(guarded(main))
