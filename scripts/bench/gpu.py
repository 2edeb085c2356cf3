"""Benchmark on a GPU: full-size architectures with random weights, time and memory only.

python scripts/bench/gpu.py [parts=ceilings,sums,flux,...] [seconds=900] [weights=random] [rounds=7] [to=outputs/gpu]
    [commit=]

Each part writes a file of its own into to=, which is kept up to date while the part is measured. A part that is there
in full for the same weights, rounds and commit is left as it is, and one that would not fit into what is left of
seconds= is not begun. weights=tiny tries everything at toy width, on any machine, into outputs/gpu-tiny.
"""

import contextlib
import json
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from parts import Found, Parts, SideError, TimeUpError

from spectrum.bench.provenance import environment
from spectrum.commands.guard import guarded, number, options, wants_help
from spectrum.core.errors import refuse
from spectrum.records.files import write_json

NEEDS = {
    "ceilings": 10, "sums": 20, "flux": 90, "ledger": 20, "host": 20, "peers": 60, "cachedit": 40, "blocks": 60,
    "sdxl": 30, "sd35": 35, "hunyuan_video": 40, "wan21_14b": 50, "sd35_run": 60, "fit": 120, "whole": 150,
}  # fmt: skip
"""Parts in their order, and the seconds below which one is not begun."""
USAGE = "python scripts/bench/gpu.py [parts=flux,sums] [seconds=900]"
OPTIONS = {
    "parts": "names with commas between them; all by default",
    "seconds": "in all; 900 by default",
    "weights": "random (the default), or tiny for toy width",
    "rounds": "of FLUX.1's three main sides; 7 by default, the other sides get a third as many",
    "to": "the folder of the files; outputs/gpu by default, outputs/gpu-tiny for weights=tiny",
    "commit": "of the code, where it runs without its repository",
}


def measure(parts: Parts, part: str, path: Path, same: Found) -> bool:
    """Measure one part and write its file, unless it is there already.

    Args:
        parts: the measurements.
        part: the name.
        path: the file.
        same: what a file of the same measurement has.

    Returns:
        Whether the file is whole.
    """
    before = json.loads(path.read_text()) if path.exists() else {}
    if before.get("whole") and all(before.get(key) == value for key, value in same.items()):
        print(f"{part}: measured before, see {path}", flush=True)
        return True
    if parts.left() < NEEDS[part] and same["weights"] == "random":
        print(f"{part}: left out, {parts.left():.0f} s are left", flush=True)
        return False
    began = time.monotonic()
    about = environment(parts.device)
    if same["commit"]:
        about.pop("git")
    found: Found = {"part": part, **same, "whole": False, "environment": about, "before": machine()}

    def keep() -> None:
        write_json(path, found)

    try:
        parts.measure(part, found, keep)
        found["whole"] = True
    except TimeUpError:
        print("  the time is up", flush=True)
    except SideError as error:
        print(f"  {error}", flush=True)
    except Exception:
        found["failed"] = traceback.format_exc()[-3000:]
        print(found["failed"], flush=True)
    found |= {"after": machine(), "took": time.monotonic() - began}
    keep()
    print(f"{part}: {found['took']:.0f} s, {parts.left():.0f} s left", flush=True)
    return bool(found["whole"])


def machine() -> dict[str, Any]:
    """The GPU's clocks, power and temperature, and the driver, as nvidia-smi says them; empty without it."""
    asked = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.draw,power.limit,temperature.gpu,memory.used"
    with contextlib.suppress(OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
        values = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        return dict(zip(asked.split(","), [value.strip() for value in values.split(",")], strict=False))
    return {}


def main() -> int:
    """Measure the parts that were asked for.

    Returns:
        0 if every one of them is there in full, else 1.
    """
    if wants_help(sys.argv[1:], __doc__ or "", OPTIONS):
        return 0
    given = options(sys.argv[1:], OPTIONS, USAGE)
    chosen = given.get("parts", ",".join(NEEDS)).split(",")
    unknown = [part for part in chosen if part not in NEEDS]
    if unknown:
        refuse(f"parts={unknown[0]} is unknown: type parts= with some of {','.join(NEEDS)}")
    weights = given.get("weights", "random")
    if weights not in ("random", "tiny"):
        refuse(f"weights={weights}: type weights=random or weights=tiny")
    rounds, end = number(given, "rounds", 7), time.monotonic() + number(given, "seconds", 900)
    folder = Path(given.get("to", "outputs/gpu" if weights == "random" else "outputs/gpu-tiny"))
    warnings.filterwarnings("ignore", category=FutureWarning)
    parts = Parts(lambda: end - time.monotonic(), weights, rounds)
    same = {"weights": weights, "commit": given.get("commit", ""), "rounds_asked": rounds}
    whole = [measure(parts, part, folder / f"{part}.json", same) for part in chosen]
    return 0 if all(whole) else 1


if __name__ == "__main__":
    sys.exit(guarded(main))
