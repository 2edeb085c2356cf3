"""The main job: plan, sample the reference and the method on the same noise, time both, compare, report."""

import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from eval import fidelity, statistics
from spectrum import report, timing
from spectrum.accelerate import Accelerated
from spectrum.config import DTYPES, RunConfig, at_runs, build_method, fill, method_file
from spectrum.errors import refuse
from spectrum.generate import Sampling, draw, generate, sample_id, with_solver
from spectrum.method import Method, Plan, plan_method
from spectrum.pipeline import calibration, device_of, load_pipeline, model_identity, weights_folder
from spectrum.prompts import Sample, check_length, read_prompts, samples
from spectrum.record import environment, finite, write_bytes, write_json

NONE = {"name": "none", "forecast": None}
ALWAYS = {"function": "spectrum.schedule.always"}


def cache_bytes(config: RunConfig, plan: Plan, batch: int = 1) -> int:
    """Bytes that a plan's features take: kept features x CFG branches x the batch's feature."""
    tokens, width = config.model.feature
    return plan.kept * config.model.branches * batch * tokens * width * DTYPES[config.model.dtype].itemsize


def reference_of(config: RunConfig) -> RunConfig:
    """The uncached run that a config is compared with: same model, prompts, seeds and steps."""
    return dataclasses.replace(config, method=dict(NONE), schedule=dict(ALWAYS), runs=None)


def resolve(config: RunConfig) -> tuple[RunConfig, Method]:
    """The config with `runs` met and what was fitted for the model filled in, and its method, checked by planning."""
    fitted = calibration(config.model)
    config = at_runs(config, fitted)
    own = fitted.get(config.method["name"], {})
    config = dataclasses.replace(config, method=fill(config.method, own), schedule=fill(config.schedule, own))
    method = build_method(config.method, config.schedule, fitted, config.model.name)
    steps = Sampling.of(config).steps
    if steps > config.model.steps:
        refuse(f"method.steps={steps} must be at most model.steps={config.model.steps}: type method.steps= or runs=")
    plan_method(method, steps)
    return config, method


def announce(console: Console, config: RunConfig, method: Method, count: int) -> None:
    """Print the plan: runs, ideal speed-up, bytes."""
    sampling = Sampling.of(config)
    plan = plan_method(method, sampling.steps)
    steps = config.model.steps
    runs = "decided by the data" if plan.nfe is None else f"{plan.nfe} of {steps}"
    ideal = "" if not plan.nfe else f", ideal speed-up {steps / plan.nfe:.2f}x"
    size = cache_bytes(config, plan, min(count, config.batch)) / 2**20
    most = "at most " if plan.nfe is None else ""
    console.print(
        f"[bold]{label(config)}[/bold] on {config.model.name}: block runs {runs}{ideal}, cache {most}{size:.1f} MiB"
    )
    if plan.runs and plan.skipped:
        console.print(f"run steps: {' '.join(map(str, plan.runs))}", highlight=False)


def label(config: RunConfig) -> str:
    """The method's name in tables, with its schedule's parameter and what differs from its own file."""
    method, schedule = config.method, config.schedule
    usual = method_file(method["name"])
    shown = {
        k: v for k, v in method.items() if k == "order" or (v != usual.get(k) and k not in ("steps", "coefficients"))
    }
    shown |= {k: schedule[k] for k in ("growth", "interval", "threshold") if schedule.get(k) is not None}
    inside = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())
    return f"{method['name']} ({inside})" if inside else method["name"]


def run(config: RunConfig) -> Path:
    """Do the job of a config and return its folder, which holds the pictures and `record.json`."""
    console = Console()
    prompts = read_prompts(config.prompts)
    config, method = resolve(config)
    todo = samples(prompts, config.seeds)
    announce(console, config, method, len(todo))
    base = reference_of(config)
    out = writable(Path(config.out) / config.model.name)
    folder = out / f"{config.method['name']}-{sample_id(config, prompts)}"
    base_folder = out / f"none-{sample_id(base, prompts)}"
    device = device_of(config.device)
    pipe = load_pipeline(config.model, device)
    with_solver(pipe, Sampling.of(config).solver)
    check_length(pipe, prompts, config.model.call.get("max_sequence_length", 77))
    _, uncached = resolve(base)
    with _progress(console) as progress:
        _sample(progress, "reference", pipe, uncached, todo, Sampling.of(base), base_folder)
        ledger = _sample(progress, config.method["name"], pipe, method, todo, Sampling.of(config), folder)
        errors = _probe(pipe, method, todo[: min(config.probe, config.batch)], Sampling.of(config))
        seconds = _time(progress, pipe, (uncached, base), (method, config), todo)
    record = assemble(config, method, prompts, ledger, base_folder, folder, errors, seconds, device)
    write_json(folder / "record.json", record)
    if config.records:
        write_json(Path(config.records) / f"{record['id']}.json", record)
    _draw(config, record, todo, base_folder, folder)
    report.show([record], console)
    console.print(f"pictures, sheet, timeline and record: {folder}", highlight=False, soft_wrap=True)
    return folder


def writable(folder: Path) -> Path:
    """Make `folder`, and refuse one that cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / ".writable", b"")
        (folder / ".writable").unlink()
    except OSError as error:
        refuse(f"out={folder} cannot be written to ({error.strerror}): type out=FOLDER")
    return folder


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn(), TextColumn("sample steps"))
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)


def _sample(
    progress: Progress, name: str, pipe: Any, method: Method, todo: list[Sample], sampling: Sampling, folder: Path
) -> list[dict[str, Any]]:
    task = progress.add_task(name, total=len(todo) * sampling.steps)
    return generate(pipe, method, todo, sampling, folder, lambda n: progress.update(task, advance=n))


def _probe(pipe: Any, method: Method, batch: list[Sample], sampling: Sampling) -> dict[str, Any]:
    if method.forecast is None or not batch:
        return {}
    with Accelerated(pipe, method, probe=True) as handle:
        draw(pipe, batch, sampling)
        return handle.report()


def _time(
    progress: Progress, pipe: Any, base: tuple[Method, RunConfig], own: tuple[Method, RunConfig], todo: list[Sample]
) -> dict[str, Any] | None:
    repeats, batch = own[1].timing, todo[: min(4, own[1].batch)]
    if not repeats:
        return None
    task = progress.add_task("timing", total=None)
    sides = [(method, Sampling.of(config)) for method, config in (base, own)]
    seconds = timing.compare(pipe, sides[0], sides[1], batch, repeats)
    progress.update(task, total=1, completed=1)
    return seconds


def assemble(
    config: RunConfig,
    method: Method,
    prompts: list[str],
    ledger: list[dict[str, Any]],
    base_folder: Path,
    folder: Path,
    probed: dict[str, Any],
    seconds: dict[str, Any] | None,
    device: Any,
) -> dict[str, Any]:
    """The record of a finished run, with its fidelity to the reference."""
    files = [entry["file"] for entry in ledger]
    own, reference = (fidelity.load_images(f / "images", files) for f in (folder, base_folder))
    values = {"psnr": fidelity.psnr(own, reference), "ssim": fidelity.ssim(own, reference)}
    masks = [runs for entry in ledger for runs in entry["runs"].values()]
    plan = plan_method(method, Sampling.of(config).steps)
    metrics = {}
    for name, each in values.items():
        mean, spread = statistics.interval(each)
        metrics[name] = {"mean": mean, "interval": spread, "worst_5_percent": statistics.worst(each), "values": each}
    return finite(
        {
            "id": folder.name,
            "label": label(config),
            "model": dataclasses.asdict(config.model),
            "model_kind": "embedded, trained" if weights_folder(config.model) else "real weights",
            "model_identity": model_identity(config.model),
            "method": config.method,
            "schedule": config.schedule,
            "prompts": prompts,
            "seeds": config.seeds,
            "samples": len(ledger),
            "steps": config.model.steps,
            "nfe": sum(map(len, masks)) / len(masks),
            "runs": ledger[0]["runs"],
            "weights": [{"step": s.step, "sum": s.total, "l1": s.l1} for s in plan.skipped],
            "forecast_errors": {name: branch["errors"] for name, branch in probed.items()},
            "cache_bytes": {
                "predicted_per_sample": cache_bytes(config, plan),
                "seen_per_sample": sum(b["cache_bytes"] for b in probed.values())
                // max(1, min(config.probe, config.batch, len(ledger))),
            },
            "reference": base_folder.name,
            "metrics": metrics,
            "timing": seconds,
            **environment(device),
        }
    )


def _draw(config: RunConfig, record: dict[str, Any], todo: list[Sample], base_folder: Path, folder: Path) -> None:
    shown = todo[:8]
    files = [sample.file for sample in shown]
    pictures = {
        f"all {config.model.steps} steps": fidelity.load_images(base_folder / "images", files),
        f"{config.method['name']}, {record['nfe']:g} runs": fidelity.load_images(folder / "images", files),
    }
    report.sheet(folder / "sheet.png", [sample.prompt for sample in shown], pictures)
    steps = Sampling.of(config).steps
    report.timeline(folder / "timeline.png", record["runs"], steps, f"{record['label']}: steps that ran the blocks")
    if any(record["forecast_errors"].values()):
        title = f"{record['label']}: forecast against the true feature, {min(config.probe, config.batch)} samples"
        report.forecast_errors(folder / "error.png", record["forecast_errors"], title)
