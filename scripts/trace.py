"""Keep every step of one full run, for scripts/replay.py to score forecasters and schedules on.

python scripts/trace.py                                     16 calibration prompts of the embedded model
python scripts/trace.py model=flux prompts=calibration prompts.limit=2 trace=FILE
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from spectrum.config import RunConfig, compose
from spectrum.generate import Sampling
from spectrum.main import guarded
from spectrum.pipeline import device_of, load_pipeline, model_identity
from spectrum.prompts import read_prompts, samples
from spectrum.store import identity, writable
from spectrum.trace import record


def file_of(config: RunConfig) -> Path:
    """Where a config's trace lies unless `trace=` says otherwise."""
    about = [model_identity(config.model), read_prompts(config.prompts), config.seeds, vars(Sampling.of(config))]
    return Path(config.out) / "traces" / f"{config.model.name}-{identity(about)}.pt"


def main() -> None:
    """Sample in full, and write the trace."""
    words = [word for word in sys.argv[1:] if not word.startswith("trace=")]
    named = [word.partition("=")[2] for word in sys.argv[1:] if word.startswith("trace=")]
    defaults = [] if any(w.startswith("prompts=") for w in words) else ["prompts=calibration"]
    defaults += [] if any(w.startswith("prompts.limit=") for w in words) else ["prompts.limit=16"]
    config = compose([*defaults, *words])
    path = Path(named[0]) if named else file_of(config)
    writable(path.parent)
    prompts = read_prompts(config.prompts)
    pipe = load_pipeline(config.model, device_of(config.device))
    about = {"model": model_identity(config.model), "prompts": prompts, "seeds": config.seeds}
    trace = record(pipe, samples(prompts, config.seeds), Sampling.of(config), about)
    trace.save(path)
    size = path.stat().st_size / 1e6
    print(f"trace={path}   {len(prompts)} prompts, {trace.steps} steps, {len(trace.branches)} branches, {size:.0f} MB")


if __name__ == "__main__":
    sys.exit(guarded(main))
