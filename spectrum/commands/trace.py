"""Keep every step of one full run, for scripts/replay.py to score forecasters and schedules on.

python scripts/trace.py                                     16 calibration prompts of the embedded model
python scripts/trace.py model=flux prompts=calibration prompts.limit=2 trace=FILE
"""

from pathlib import Path

from rich.console import Console

from spectrum.bench.progress import Progress
from spectrum.bench.prompts import numbered_samples, read_prompts
from spectrum.bench.trace import record_trace
from spectrum.commands.guard import quiet, split_options, with_defaults
from spectrum.commands.help import wants_config_help
from spectrum.config.compose import compose
from spectrum.config.sampling import Sampling
from spectrum.config.schema import RunConfig
from spectrum.core.errors import refuse
from spectrum.models.identity import model_identity
from spectrum.models.offload import check_whole
from spectrum.models.pipelines import device_of, load_pipeline
from spectrum.records.files import identity, writable


def file_of(config: RunConfig) -> Path:
    """Where a config's trace lies unless `trace=` says otherwise."""
    about = [model_identity(config.model), read_prompts(config.prompts), config.seeds, vars(Sampling.of(config))]
    return Path(config.out) / "traces" / f"{config.model.name}-{identity(about)}.pt"


OPTIONS = {"trace": "the file to write; under outputs/traces by default"}


def main(words: list[str]) -> None:
    """Sample in full, and write the trace.

    Args:
        words: `trace=FILE`, and the config's overrides.
    """
    if wants_config_help(words, __doc__ or "", OPTIONS):
        return
    given, words = split_options(words, OPTIONS, "python scripts/trace.py [trace=FILE] [key=value ...]")
    config = compose(with_defaults(words, "prompts=calibration", "prompts.limit=16"))
    check_whole(config)
    path = Path(given["trace"]) if "trace" in given else file_of(config)
    if path.is_dir():
        refuse(f"trace={path} is a folder: type trace=FILE")
    writable(*((path.parent, "trace") if "trace" in given else (Path(config.out), "out")))
    prompts = read_prompts(config.prompts)
    quiet()
    pipe = load_pipeline(config.model, device_of(config.device))
    about = {"model": model_identity(config.model), "prompts": prompts, "seeds": config.seeds}
    batch, sampling = numbered_samples(prompts, config.seeds), Sampling.of(config)
    with Progress(Console()) as progress:
        advance = progress.start("trace", len(batch) * sampling.steps)
        trace = record_trace(pipe, batch, sampling, about, lambda: advance(len(batch)))
    trace.save(path)
    size = path.stat().st_size / 1e6
    print(f"trace={path}   {len(prompts)} prompts, {trace.steps} steps, {len(trace.branches)} branches, {size:.0f} MB")
