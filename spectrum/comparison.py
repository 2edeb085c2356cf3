"""After a multirun: a table and a sheet over its jobs, one for each reference they share.

Jobs may run in other processes, or on other machines of one file system, so each leaves a line in the sweep's folder.
"""

import json
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from eval.pictures import load_images
from spectrum import report
from spectrum.logger import logger_of
from spectrum.store import identity, read_record, write_bytes, write_json


def sweep_folder(config: DictConfig) -> Path:
    """The folder of a multirun, the same for all its jobs."""
    return Path(config.hydra.sweep.dir)


class ComparisonCallback(Callback):
    """Collects what each job of a multirun wrote and shows it together when the last has ended."""

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        """Leave a job's folder in the sweep's; a failed job leaves none."""
        value = getattr(job_return, "_return_value", None)
        if isinstance(value, str) and str(config.hydra.mode).endswith("MULTIRUN"):
            write_json(sweep_folder(config) / "jobs" / f"{config.hydra.job.num}.json", str(Path(value).resolve()))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print each comparison, and write its table, its sheet and the names of its records."""
        base = sweep_folder(config)
        jobs = sorted((base / "jobs").glob("*.json"), key=lambda path: int(path.stem))
        folders = list(dict.fromkeys(Path(json.loads(path.read_text())) for path in jobs))
        records = {folder: read_record(folder / "record.json") for folder in folders}
        settings: Any = OmegaConf.to_container(config.logger) if config.get("logger") else None
        logger = logger_of(settings, config.out)
        for reference in sorted({record["reference"] for record in records.values()}):
            rows = {f: r for f, r in records.items() if r["reference"] == reference}
            rows = dict(sorted(rows.items(), key=lambda item: report.order(item[1])))
            folder = base / identity([r["id"] for r in rows.values()])
            compare(rows, folder)
            if logger is not None:
                logger.comparison(list(rows.values()), folder, base.name)


def compare(rows: dict[Path, dict[str, Any]], folder: Path) -> None:
    """Show records of one reference, by the folders of their samples, and write the comparison under `folder`."""
    records = list(rows.values())
    write_bytes(folder / "comparison.md", report.markdown(records).encode())
    write_json(folder / "records.json", [str(f / "record.json") for f in rows])
    draw(folder / "sheet.png", rows)
    report.show(records)
    Console().print(f"comparison: {folder}", highlight=False, soft_wrap=True)


def draw(path: Path, rows: dict[Path, dict[str, Any]], columns: int = 8) -> None:
    """One sheet of the reference and every other run, for the first prompts; differences too while they are few.

    Runs whose record is here and whose pictures are not are left out; without a reference there is no sheet.
    """
    folder, first = next(iter(rows.items()))
    files = [f"{i:05d}-s{first['seeds'][0]}.png" for i in range(min(columns, len(first["prompts"])))]
    reference = folder.parent / first["reference"]
    if not _drawn(reference, files):
        return
    pictures = {f"all {first['steps']} steps": load_images(reference / "images", files)}
    for folder, record in rows.items():
        if record["id"] != record["reference"] and _drawn(folder, files):
            pictures[f"{record['label']}, {record['nfe']:.3g} runs"] = load_images(folder / "images", files)
    report.sheet(path, first["prompts"][: len(files)], pictures, gain=4.0 if len(pictures) < 6 else None)


def _drawn(folder: Path, files: list[str]) -> bool:
    return all((folder / "images" / name).exists() for name in files)
