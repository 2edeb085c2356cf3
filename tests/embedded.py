"""What every model that ships has to be: loaded by diffusers alone, whole, and small."""

import json
import subprocess
import sys

from spectrum.models.identity import digest

LOADED = """
import sys, torch
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1])
image = pipe({call}, num_inference_steps=3, generator=torch.Generator().manual_seed(0)).images[0]
assert type(pipe).__name__ == {name!r} and image.size == (96, 96)
assert not [name for name in sys.modules if name.partition(".")[0] in ("spectrum", "baselines", "eval")]
"""


def check_diffusers_loads_it(folder, name, call, tmp_path):
    """diffusers makes the pipeline `name` of a folder, and calling it imports nothing of this project."""
    program = LOADED.format(name=name, call=call)
    ran = subprocess.run(
        [sys.executable, "-c", program, str(folder)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def check_whole_and_small(folder):
    """Nothing but data lies in the folder, 16 MB at most, and digest and card go with it."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 16e6
    assert not [p for p in files if p.suffix in (".bin", ".pt", ".pkl")]
    assert json.loads((folder / "digest.json").read_text())["sha256"] == digest(folder)
    assert digest(folder) in (folder / "README.md").read_text()
