"""After a multirun: a table and a sheet over its jobs, one for each reference they share."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console

from eval.fidelity import load_images
from spectrum import report
from spectrum.record import identity, write_bytes, write_json


class ComparisonCallback(Callback):
    """Collects what each job of a multirun wrote and shows it together when the last has ended."""

    def __init__(self) -> None:
        self._folders: list[Path] = []

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        """Note a job's folder; a failed job has none."""
        value = getattr(job_return, "_return_value", None)
        if isinstance(value, str) and Path(value) not in self._folders:
            self._folders.append(Path(value))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print each comparison, and write its table, its sheet and the names of its records."""
        records = {folder: report.read_record(folder / "record.json") for folder in self._folders}
        for reference in sorted({record["reference"] for record in records.values()}):
            rows = {f: r for f, r in records.items() if r["reference"] == reference}
            rows = dict(sorted(rows.items(), key=lambda item: report.order(item[1])))
            compare(rows, Path(config.out) / "multirun" / identity([r["id"] for r in rows.values()]))


def compare(rows: dict[Path, dict[str, Any]], folder: Path) -> None:
    """Show records of one reference, by the folders of their samples, and write the comparison under `folder`."""
    records = list(rows.values())
    write_bytes(folder / "comparison.md", report.markdown(records).encode())
    write_json(folder / "records.json", [str(f / "record.json") for f in rows])
    draw(folder / "sheet.png", rows)
    report.show(records)
    Console().print(f"comparison: {folder}", highlight=False, soft_wrap=True)


def draw(path: Path, rows: dict[Path, dict[str, Any]], columns: int = 8) -> None:
    """One sheet of the reference and every other run, for the first prompts; differences too while they are few."""
    folder, first = next(iter(rows.items()))
    files = [f"{i:05d}-s{first['seeds'][0]}.png" for i in range(min(columns, len(first["prompts"])))]
    pictures = {f"all {first['steps']} steps": load_images(folder.parent / first["reference"] / "images", files)}
    for folder, record in rows.items():
        if record["id"] != record["reference"]:
            pictures[f"{record['label']}, {record['nfe']:.3g} runs"] = load_images(folder / "images", files)
    report.sheet(path, first["prompts"][: len(files)], pictures, gain=4.0 if len(pictures) < 6 else None)
