"""After a multirun: one table and one sheet over all its jobs."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console

from eval.fidelity import load_images
from spectrum import report
from spectrum.record import identity, write_bytes, write_json


class ComparisonCallback(Callback):
    """Collects what each job of a multirun wrote and shows them together when the last has ended."""

    def __init__(self) -> None:
        self._folders: list[Path] = []

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        """Note a job's folder; a failed job has none."""
        value = getattr(job_return, "_return_value", None)
        if isinstance(value, str):
            self._folders.append(Path(value))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the comparison, and write its table, its sheet and the names of its records."""
        if not self._folders:
            return
        records = sorted((report.read_record(f / "record.json") for f in self._folders), key=report.order)
        folder = Path(config.out) / "multirun" / identity([record["id"] for record in records])
        write_bytes(folder / "comparison.md", report.markdown(records).encode())
        write_json(folder / "records.json", [str(f / "record.json") for f in self._folders])
        draw_comparison(
            folder / "sheet.png", records, {r["id"]: f for r, f in zip(records, self._in_order(records), strict=True)}
        )
        report.show(records)
        Console().print(f"comparison: {folder}", highlight=False, soft_wrap=True)

    def _in_order(self, records: list[dict[str, Any]]) -> list[Path]:
        by_name = {folder.name: folder for folder in self._folders}
        return [by_name[record["id"]] for record in records]


def draw_comparison(path: Path, records: list[dict[str, Any]], folders: dict[str, Path], rows: int = 5) -> None:
    """One sheet of the reference and every cached run of the records, for the first prompts."""
    first = records[0]
    files = [f"{i:05d}-s{first['seeds'][0]}.png" for i in range(min(rows, len(first["prompts"])))]
    reference = folders[first["id"]].parent / first["reference"] / "images"
    columns = {f"all {first['steps']} steps": load_images(reference, files)}
    for record in records:
        if record["method"]["name"] != "none":
            columns[f"{record['label']}, {record['nfe']:g} runs"] = load_images(folders[record["id"]] / "images", files)
    report.sheet(path, first["prompts"][: len(files)], columns)
