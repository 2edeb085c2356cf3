"""Mirrors of records: W&B and TensorBoard. They are written from a record that is stored already, and never read."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from eval.metrics.columns import METRICS
from eval.tables.comparison import column_titles, comparison_markdown, record_cells, shown_metrics
from spectrum.config.targets import bound_function
from spectrum.core.errors import refuse
from spectrum.records.record import Record

PICTURES = ("sheet", "timeline", "error")
MODES = ("offline", "online", "disabled")


class Logger(Protocol):
    """What a mirror does with one run, and with the comparison that a multirun ends with."""

    def run(self, record: Record, folder: Path, group: str | None) -> None:
        """Mirror a record, and the pictures beside it in `folder`."""
        ...

    def comparison(self, records: Sequence[Record], folder: Path, group: str) -> None:
        """Mirror the table over `records`, and the pictures in `folder`."""
        ...


def scalars(record: Record) -> dict[str, float]:
    """The numbers of a record, by the names that dashboards show them under."""
    known = record.cache_bytes
    size = known.seen_per_sample if known.predicted_per_sample is None else known.predicted_per_sample
    found = {"nfe": record.nfe, "cache_bytes_per_sample": size}
    for name, entry in record.metrics.items():
        parts = {name: entry.mean, f"{name}_worst_5_percent": entry.worst_5_percent}
        found |= {key: value for key, value in parts.items() if value is not None}
    if record.timing is not None:
        seconds = record.timing.seconds_per_sample["candidate"]
        found |= {"speedup": record.timing.speedup, "speedup_end_to_end": record.timing.speedup_end_to_end}
        found |= {"latency_denoise_s": seconds["denoise"], "latency_total_s": seconds["total"]}
    return found


def per_sample(record: Record) -> tuple[list[str], list[list[Any]]]:
    """(column titles, rows): prompt, seed and each metric's value, for every sample.

    Metrics that have one value a prompt are left out.
    """
    names = [name for name, column in METRICS.items() if column.per == "sample"]
    names = [name for name in names if name in record.metrics and record.metrics[name].values]
    pairs = [(prompt, seed) for prompt in record.prompts for seed in record.seeds]
    values = zip(*((record.metrics[name].values or []) for name in names), strict=True) if names else [()] * len(pairs)
    return ["prompt", "seed", *names], [[*pair, *each] for pair, each in zip(pairs, values, strict=True)]


class Wandb:
    """Writes to W&B: config, metrics, image sheets, tables, latencies. The runs of a multirun share a group."""

    def __init__(self, out: str, mode: str, project: str, entity: str | None) -> None:
        if mode not in MODES:
            refuse(f"logger.mode={mode} is unknown: type one of {', '.join(MODES)}")
        self._wandb = _import("wandb", "logger=wandb")
        if mode == "online" and not has_key():
            how = "type wandb login, set WANDB_API_KEY, or type logger.mode=offline"
            refuse(f"logger.mode=online needs an API key: {how}")
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        self._given = {"mode": mode, "project": project, "entity": entity, "dir": str(folder)}

    def _open(self, **about: Any) -> Any:
        settings = self._wandb.Settings(silent=True, disable_git=True, console="off")
        return self._wandb.init(**self._given, **about, settings=settings, reinit="create_new")

    def run(self, record: Record, folder: Path, group: str | None) -> None:
        """Write a record as one W&B run."""
        keys = ("model", "method", "schedule", "seeds", "steps", "batch", "model_kind", "git")
        config = {key: getattr(record, key) for key in keys}
        config |= {"record": record.id, "prompts_from": dataclasses.asdict(record.prompts_from)}
        with self._open(group=group, job_type="run", name=record.label, config=config) as run:
            heads, rows = per_sample(record)
            logged: dict[str, Any] = {"samples": self._wandb.Table(columns=heads, data=rows)}
            logged |= {name: self._wandb.Image(str(path)) for name, path in _pictures(folder)}
            if (folder / "film.mp4").exists():
                logged["film"] = self._wandb.Video(str(folder / "film.mp4"), format="mp4")
            if record.timing is not None:
                calls = [r.candidate for r in record.timing.rounds]
                rows = [[n, seconds["denoise"], seconds["total"]] for n, seconds in enumerate(calls)]
                logged["latency"] = self._wandb.Table(columns=["round", "denoise_s", "total_s"], data=rows)
            run.log({**scalars(record), **logged})
            run.summary.update(scalars(record))

    def comparison(self, records: Sequence[Record], folder: Path, group: str) -> None:
        """Write the table and the sheet of a multirun as one W&B run."""
        with self._open(group=group, job_type="comparison", name=f"comparison {group}") as run:
            shown = shown_metrics(records)
            data = [list(record_cells(record, shown)) for record in records]
            logged: dict[str, Any] = {"comparison": self._wandb.Table(columns=list(column_titles(records)), data=data)}
            logged |= {name: self._wandb.Image(str(path)) for name, path in _pictures(folder)}
            run.log(logged)


class TensorBoard:
    """Writes the same numbers and pictures to TensorBoard event files."""

    def __init__(self, out: str) -> None:
        module = _import("torch.utils.tensorboard", "logger=tensorboard")
        self._writer: Callable[[str], Any] = module.SummaryWriter
        self._folder = Path(out) / "tensorboard"

    def run(self, record: Record, folder: Path, group: str | None) -> None:
        """Write a record as one event file."""
        with self._writer(str(self._folder / (group or "runs") / record.id)) as writer:
            for name, value in scalars(record).items():
                writer.add_scalar(name, value)
            writer.add_text("label", record.label)
            _add_pictures(writer, folder)

    def comparison(self, records: Sequence[Record], folder: Path, group: str) -> None:
        """Write the table as text in one event file."""
        with self._writer(str(self._folder / group / "comparison")) as writer:
            writer.add_text("comparison", comparison_markdown(records))
            _add_pictures(writer, folder)


def wandb_logger(out: str, *, mode: str = "offline", project: str = "spectrum", entity: str | None = None) -> Logger:
    """A mirror on W&B.

    Args:
        out: the folder that it may write to.
        mode: offline, online or disabled.
        project: W&B's project.
        entity: W&B's account; None for the default one.

    Raises:
        SpectrumError: if the package is not installed, the mode is unknown, or online mode has no key.
    """
    return Wandb(out, mode, project, entity)


def tensorboard_logger(out: str) -> Logger:
    """A mirror in TensorBoard event files under `out/tensorboard`.

    Args:
        out: the folder that it may write to.

    Raises:
        SpectrumError: if the package is not installed.
    """
    return TensorBoard(out)


def logger_of(settings: Mapping[str, Any] | None, out: str, plugins: Sequence[str] = ()) -> Logger | None:
    """The mirror that a `logger` config asks for.

    Args:
        settings: the config, a function by `_target_` with its parameters; None for no mirror.
        out: the folder that it may write to.
        plugins: packages outside the project whose functions may be named.

    Raises:
        SpectrumError: if its package is not installed, or its settings are wrong.
    """
    if settings is None:
        return None
    return bound_function(settings, "logger", "the logger lacks a setting: type logger=wandb", plugins)(out)


def _pictures(folder: Path) -> list[tuple[str, Path]]:
    return [(name, folder / f"{name}.png") for name in PICTURES if (folder / f"{name}.png").exists()]


def _add_pictures(writer: Any, folder: Path) -> None:
    import numpy as np
    from PIL import Image

    for name, path in _pictures(folder):
        writer.add_image(name, np.asarray(Image.open(path).convert("RGB")), dataformats="HWC")


def _import(name: str, asked: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.rpartition(".")[2]
        return refuse(f"{asked} needs the package {package}: type pip install -r requirements-eval.lock")


def has_key() -> bool:
    """Whether W&B would find a key, without asking it: its variable, or a line in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import netrc

    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").partition("://")[2].partition("/")[0]
    try:
        return netrc.netrc(str(path)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
