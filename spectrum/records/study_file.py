"""A study of plans as a file: each row's plan and the PSNR of every sample, with what it was measured on."""

import dataclasses
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectrum.core.errors import refuse
from spectrum.records.digests import record_digest
from spectrum.records.files import finite, write_json
from spectrum.records.timing import STRICT

FORMAT = 1
AGAIN = "make it again with python scripts/plans.py"


@dataclass(frozen=True)
class StudyRow:
    """One row: a plan, or another method, sampled on held-out prompts.

    Attributes:
        keys: what sets the row apart, as in `configs/plan_study`.
        run_steps: the steps at which the blocks ran; empty where the data decide.
        nfe: steps at which the blocks ran, the mean over samples.
        psnr: of each sample to the uncached run with the same settings, dB; prompts outermost, seeds inner.
        expected: what the plan was expected to give, dB; None where nothing was.
        plan: digest of the plan's file; None for a plan without one, and for a method without a plan.
        full_runs: what fitting the plan cost, in uncached runs of one sample; None for a method without a plan.
        weights: the plan's, by CFG branch, see `spectrum.records.plan_file`; None for a method without a plan.
        made_with: command, commit, versions and hardware of the row.
    """

    __pydantic_config__ = STRICT
    keys: dict[str, Any]
    run_steps: list[int]
    nfe: float
    psnr: list[float]
    expected: float | None
    full_runs: float | None
    weights: dict[str, list[list[float]]] | None
    made_with: dict[str, Any]
    plan: str | None = None


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        format: `FORMAT`.
        name: its file in `configs/plan_study`.
        model: the model's name.
        model_kind: embedded, real weights, or random weights, for people.
        model_identity: what pins the weights.
        prompts: digest of the prompts that are sampled.
        samples: number of samples of each row.
        seeds: the seeds of each prompt.
        batch: samples per denoiser call.
        rows: the rows.
        digest: of all else; empty until the study is written.
    """

    __pydantic_config__ = STRICT
    format: int
    name: str
    model: str
    model_kind: str
    model_identity: str
    prompts: str
    samples: int
    seeds: list[int]
    batch: int
    rows: list[StudyRow]
    digest: str = ""


@functools.cache
def _adapter() -> Any:
    import pydantic

    return pydantic.TypeAdapter(Study)


def read_study(path: Path) -> Study:
    """The study in a file. It is data: nothing in it is run.

    Raises:
        SpectrumError: if the file is no whole study, of another format, or changed after it was written.
    """
    import pydantic

    try:
        content = json.loads(path.read_text())
        study: Study = _adapter().validate_json(path.read_text())
    except (OSError, ValueError, pydantic.ValidationError) as error:
        return refuse(f"{path} is no whole study of plans ({str(error).splitlines()[0]}): {AGAIN}")
    if study.format != FORMAT or study.digest != record_digest(content):
        return refuse(f"{path} is of another version, or was changed after it was written: {AGAIN}")
    if any(len(row.psnr) != study.samples for row in study.rows):
        return refuse(f"{path} has rows that lack samples: {AGAIN}")
    return study


def read_studies(folder: Path) -> list[Study]:
    """The studies in a folder, by name; none where there is no such folder."""
    return [read_study(path) for path in sorted(folder.glob("*.json"))]


def write_study(path: Path, study: Study) -> None:
    """Write a study with its digest, whole or not at all."""
    sealed = dataclasses.replace(study, digest=record_digest(dataclasses.asdict(study)))
    write_json(path, finite(dataclasses.asdict(sealed)))
