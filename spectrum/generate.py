"""Sampling: prompts x seeds to numbered pictures and a line each in `samples.jsonl`, going on where a run broke off.

The unit of resuming is a batch. Batches lie on a fixed grid, so a picture is made with the same neighbours, by the same
kernels, whether the run was broken off or not, and comes out byte-equal.
"""

import functools
import hashlib
import inspect
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

import spectrum
from spectrum.architecture import prompt_inputs
from spectrum.config import RunConfig
from spectrum.errors import refuse
from spectrum.library import Accelerated
from spectrum.method import Method
from spectrum.pipeline import BUILT, model_identity
from spectrum.prompts import Sample
from spectrum.solver import with_solver
from spectrum.store import identity, write_bytes


@dataclass(frozen=True)
class Sampling:
    """How a pipeline is called: steps, solver, size, the pipeline's own arguments, and samples per call.

    `frames` and `fps` are a video's. `embeds` is what stands for prompts where a model has no text encoder, or takes
    class numbers, see `spectrum.architecture`.
    """

    steps: int
    solver: str | None
    height: int
    width: int
    call: dict[str, Any]
    batch: int
    frames: int | None = None
    fps: int | None = None
    embeds: dict[str, Any] | None = None

    @classmethod
    def of(cls, config: RunConfig) -> "Sampling":
        """The sampling that a config asks for; a method may set its own `steps` and `solver`."""
        steps = config.method.get("steps") or config.model.steps
        model, solver = config.model, config.method.get("solver")
        embeds: dict[str, Any] = (model.architecture or {}).get("embeds", {})
        if model.weights not in BUILT:
            embeds = {name: spec for name, spec in embeds.items() if isinstance(spec, dict) and "labels" in spec}
        size = model.height, model.width
        return cls(steps, solver, *size, model.call, config.batch, model.frames, model.fps, embeds or None)


def sample_id(config: RunConfig, prompts: list[str]) -> str:
    """Names all that changes pixels: weights, method, schedule, sampling, prompts, seeds, dtype and our version."""
    method, schedule = dict(config.method), {k: v for k, v in config.schedule.items() if k != "ladder"}
    sampling = Sampling.of(config)
    return identity(
        {
            "model": model_identity(config.model),
            "pipeline": config.model.pipeline,
            "dtype": config.model.dtype,
            **({"vae": config.model.vae} if config.model.vae else {}),
            "method": None if method["forecast"] is None else method,
            "schedule": None if method["forecast"] is None else schedule,
            "sampling": {k: v for k, v in vars(sampling).items() if v is not None},
            "prompts": prompts,
            "seeds": config.seeds,
            "version": spectrum.__version__,
        }
    )


def draw(pipe: Any, batch: list[Sample], sampling: Sampling, on_step: Callable[[], None] | None = None) -> Tensor:
    """Sample one batch: (batch, 3, height, width) float32 in [0, 1] on the CPU; of videos (batch, frames, 3, ...)."""
    call = dict(sampling.call)
    known = inspect.signature(type(pipe).__call__).parameters
    if sampling.embeds is not None:
        call.pop("negative_prompt", None)
        call |= {"negative_prompt": None} if "negative_prompt" in known else {}
        call |= prompt_inputs(pipe, sampling.embeds, [sample.prompt for sample in batch])
    else:
        call["prompt"] = [sample.prompt for sample in batch]
    if isinstance(call.get("negative_prompt"), str):
        call["negative_prompt"] = [call["negative_prompt"]] * len(batch)
    given = {"height": sampling.height, "width": sampling.width, "num_frames": sampling.frames}
    call |= {key: value for key, value in given.items() if value is not None and key in known}
    with _told(pipe.scheduler, on_step):
        result = pipe(
            num_inference_steps=sampling.steps,
            generator=[torch.Generator("cpu").manual_seed(sample.noise_seed) for sample in batch],
            output_type="pt",
            **call,
        )
    images: Tensor = result.frames if hasattr(result, "frames") else result.images
    if not torch.isfinite(images).all():
        refuse("the pipeline returned NaN or infinite pixels: try another model.dtype")
    return images.float().cpu()


@contextmanager
def _told(scheduler: Any, on_step: Callable[[], None] | None) -> Iterator[None]:
    """Call `on_step` after each step of a scheduler (not every pipeline has a callback)."""
    if on_step is None:
        yield
        return
    usual = scheduler.step

    @functools.wraps(usual)
    def step(*args: Any, **kwargs: Any) -> Any:
        moved = usual(*args, **kwargs)
        on_step()
        return moved

    scheduler.step = step
    try:
        yield
    finally:
        del scheduler.step


def done(folder: Path) -> dict[str, dict[str, Any]]:
    """The lines of `samples.jsonl` whose picture is there whole, by file name. A torn last line is dropped."""
    found: dict[str, dict[str, Any]] = {}
    ledger = folder / "samples.jsonl"
    if not ledger.exists():
        return found
    for line in ledger.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            break
        picture = folder / "images" / entry["file"]
        if picture.exists() and hashlib.sha256(picture.read_bytes()).hexdigest() == entry["sha256"]:
            found[entry["file"]] = entry
    return found


def whole_ledger(folder: Path, samples: list[Sample]) -> list[dict[str, Any]] | None:
    """The ledger of `samples`, a dict a sample, in order; None unless every one of their pictures is there whole."""
    have = done(folder)
    return [have[s.file] for s in samples] if all(s.file in have for s in samples) else None


def generate(
    pipe: Any,
    method: Method,
    samples: list[Sample],
    sampling: Sampling,
    folder: Path,
    on_step: Callable[[int], None] = lambda count: None,
) -> list[dict[str, Any]]:
    """Sample what `folder` still lacks and return its ledger, a dict a sample, in order.

    Writes `images/NNNNN-sS.png` and appends to `samples.jsonl` only after a whole batch is on disk. `on_step(n)` is
    told after each denoising step that `n` samples advanced by one. One process at a time works on a folder; another
    waits, and finds the samples there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        for draft in folder.rglob(".draft-*"):
            draft.unlink()
        return _generate(pipe, method, samples, sampling, folder, on_step)


def _generate(
    pipe: Any,
    method: Method,
    samples: list[Sample],
    sampling: Sampling,
    folder: Path,
    on_step: Callable[[int], None],
) -> list[dict[str, Any]]:
    have = done(folder)
    grid = [samples[i : i + sampling.batch] for i in range(0, len(samples), sampling.batch)]
    kept = [b for b in grid if all(s.file in have for s in b)]
    _rewrite(folder, [have[s.file] for b in kept for s in b])
    ledger = [have[s.file] for b in kept for s in b]
    pipe = with_solver(pipe, sampling.solver)
    with Accelerated(pipe, method) as handle:
        for batch in grid:
            if batch in kept:
                on_step(len(batch) * sampling.steps)
                continue
            images = draw(pipe, batch, sampling, _counting(on_step, len(batch)))
            entries = _store(folder, batch, images, handle.report(), sampling.fps)
            _append(folder, entries)
            ledger += entries
    ledger.sort(key=lambda entry: (entry["index"], entry["seed"]))
    _rewrite(folder, ledger)
    return ledger


def _counting(on_step: Callable[[int], None], count: int) -> Callable[[], None]:
    return lambda: on_step(count)


def _store(
    folder: Path, batch: list[Sample], images: Tensor, report: dict[str, Any], fps: int | None
) -> list[dict[str, Any]]:
    runs = {name: branch["run_steps"] for name, branch in report.items()}
    calls = {name: len(branch["run_steps"]) + len(branch["skipped"]) for name, branch in report.items()}
    entries = []
    for sample, image in zip(batch, images, strict=True):
        content = encoded(image, fps)
        write_bytes(folder / "images" / sample.file, content)
        entry = {"index": sample.index, "seed": sample.seed, "prompt": sample.prompt, "file": sample.file}
        entries.append({**entry, "sha256": hashlib.sha256(content).hexdigest(), "runs": runs, "calls": calls})
    return entries


def encoded(image: Tensor, fps: int | None = None) -> bytes:
    """A picture (3, height, width) in [0, 1] as PNG, a video (frames, 3, height, width) as animated PNG, lossless."""
    frames = image if image.ndim == 4 else image[None]
    pixels = (frames.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    first, *rest = [Image.fromarray(frame) for frame in pixels]
    moving = {"save_all": True, "append_images": rest, "duration": 1000 / (fps or 8)} if rest else {}
    buffer = io.BytesIO()
    first.save(buffer, format="PNG", **moving)
    return buffer.getvalue()


def _lines(entries: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(entry) + "\n" for entry in entries).encode()


def _rewrite(folder: Path, entries: list[dict[str, Any]]) -> None:
    ledger = folder / "samples.jsonl"
    if not ledger.exists() or ledger.read_bytes() != _lines(entries):
        write_bytes(ledger, _lines(entries))


def _append(folder: Path, entries: list[dict[str, Any]]) -> None:
    with (folder / "samples.jsonl").open("ab") as file:
        file.write(_lines(entries))
        file.flush()
        os.fsync(file.fileno())
