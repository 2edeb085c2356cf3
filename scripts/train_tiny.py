"""Train the embedded model on a CPU, from fetching its data to the folder that diffusers loads.

python scripts/train_tiny.py                      about two hours on two cores; killed, it goes on where it was
python scripts/train_tiny.py --out spectrum/assets/tiny --prompts spectrum/assets/prompts      write what ships here

Needs npm once, to fetch the pictures (the package emoji-datasource-google 16.0.0, 74 MB); --emoji names a folder that
has them unpacked. On Linux, preloading jemalloc (LD_PRELOAD) makes the denoiser's training about a third faster.
"""

import argparse
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from tiny import autoencoder, curvature, denoiser, export, scenes, vocabulary

from spectrum.commands.guard import guarded
from spectrum.core.errors import refuse

PACKAGE = "emoji-datasource-google@16.0.0"
PICTURES = "package/img/google/64"
TRAINED = Path(__file__).resolve().parent.parent / "outputs" / "trained"
"""Where what is trained goes, unless a folder is named."""


def fetch(work: Path) -> Path:
    """The folder of 64-pixel emoji pictures; fetched with npm unless it is there."""
    folder = work / PICTURES
    if folder.is_dir():
        return folder
    if shutil.which("npm") is None:
        refuse(f"npm is not installed; install it, or unpack {PACKAGE} yourself and type --emoji FOLDER/{PICTURES}")
    print(f"fetching {PACKAGE} (74 MB)", flush=True)
    ran = subprocess.run(["npm", "pack", PACKAGE], cwd=work, capture_output=True, text=True, check=False)
    if ran.returncode:
        refuse(f"npm could not fetch {PACKAGE}: {ran.stderr.strip().splitlines()[-1]}")
    with tarfile.open(next(work.glob("emoji-datasource-google-*.tgz"))) as archive:
        archive.extractall(work, filter="data")
    return folder


def emoji(folder: Path | None, work: Path) -> Path:
    """The folder of 64-pixel emoji pictures.

    Args:
        folder: the one that `--emoji` names; None to fetch it.
        work: where it is fetched to.

    Raises:
        SpectrumError: if a picture that the scenes need is not in the folder, or npm cannot fetch them.
    """
    found = folder or fetch(work)
    lacking = [f"{code}.png" for code in vocabulary.FILES.values() if not (found / f"{code}.png").is_file()]
    if lacking:
        refuse(
            f"{found} lacks {len(lacking)} of the pictures that the scenes are painted with, {lacking[0]} first: type "
            f"--emoji FOLDER/{PICTURES} with the folder that {PACKAGE} is unpacked in, or leave --emoji out"
        )
    return found


def write_prompts(folder: Path) -> None:
    """The prompt lists: `calibration` of pairs of object and colour that training shows, the others of the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    taken: list[str] = []
    for seed, name in enumerate(("development", "calibration", "heldout", "sealed")):
        prompts = scenes.tuned_prompts(64, name == "calibration", seed, taken)
        (folder / f"{name}.txt").write_text("\n".join(prompts) + "\n")
        taken += prompts


def arguments() -> argparse.ArgumentParser:
    """What the command line may say."""
    root = Path(__file__).resolve().parent.parent
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--work", type=Path, default=root / "work" / "tiny", help="data and checkpoints")
    options.add_argument("--out", type=Path, default=TRAINED / "tiny", help="the model; what lies there is replaced")
    options.add_argument("--emoji", type=Path, help="a folder that has the 64-pixel pictures")
    options.add_argument("--vae-steps", type=int, default=3000)
    options.add_argument("--scenes", type=int, default=60000)
    options.add_argument("--steps", type=int, default=6000, help="of the denoiser")
    options.add_argument("--batch", type=int, default=64, help="of the denoiser")
    options.add_argument("--measured", type=int, default=64, help="held-out prompts for the card's curvature")
    options.add_argument("--no-compile", action="store_true", help="train the denoiser without torch.compile")
    options.add_argument("--prompts", type=Path, default=TRAINED / "prompts", help="prompt lists")
    return options


def main() -> None:
    """Fetch, train the autoencoder, encode the scenes, train the denoiser, write the model."""
    given = arguments().parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    objects = scenes.load_objects(emoji(given.emoji, given.work))
    vae = autoencoder.train(objects, given.vae_steps, given.work).eval()
    pool = denoiser.encode_pool(vae, objects, given.scenes, given.work)
    parts = denoiser.train(pool, given.steps, given.work, given.batch, compiled=not given.no_compile)
    write_prompts(given.prompts)
    export.export(export.assemble(vae, parts, pool["shift"], pool["scale"]), given.out)
    facts = {"vae_steps": given.vae_steps, "scenes": given.scenes, "steps": given.steps, "heldout": 64}
    facts |= curvature.measure(given.out, scenes.tuned_prompts(64, False, seed=0)[: given.measured])
    size = export.write_card(given.out, facts)
    print(f"{given.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(guarded(main))
