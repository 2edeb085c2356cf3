"""What was fitted for a model (coefficients, ratios, thresholds), by method name."""

import json
from pathlib import Path
from typing import Any

from spectrum.config.reader import choices, group_file
from spectrum.config.schema import BUILT, ModelConfig
from spectrum.core.errors import refuse
from spectrum.models.identity import digest, model_identity, weights_folder

CALIBRATION = "calibration.json"
"""The file beside a model's weights that holds what was fitted on them."""


def read_calibration(path: Path) -> dict[str, Any]:
    """The fits in a `calibration.json`, by method name; empty if there is no such file.

    Raises:
        SpectrumError: if it cannot be read, or is no calibration.
    """
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(map(_is_fit, found.values())):
        refuse(f"{path} is no whole calibration: delete it, and fit again with python scripts/calibrate.py")
    return found


def _is_fit(fit: Any) -> bool:
    """Whether a fit says on what it was made, and has settings by the number of block runs."""
    if not isinstance(fit, dict) or not isinstance(fit.get("fitted_on"), dict):
        return False
    by_runs = fit.get("by_runs", {})
    return isinstance(by_runs, dict) and all(
        runs.isdecimal() and isinstance(settings, dict) for runs, settings in by_runs.items()
    )


def fits_of(model: ModelConfig) -> dict[str, Any]:
    """What was fitted for a model, by method: from `calibration.json` beside its weights, then from its config.

    A fit counts for the weights, the config and the number of steps that it was made on. Others are left out, as if
    they had never been made.

    Args:
        model: the model's config.
    """
    if model.weights in BUILT:
        return {}
    folder = weights_folder(model)
    found = read_calibration(folder / CALIBRATION) if folder else {}
    here = {"config": model.name, "model": model_identity(model), "steps": model.steps} if found else {}
    own = {name: fit for name, fit in found.items() if here.items() <= fit["fitted_on"].items()}
    return {**own, **(model.calibration or {})}


def fits_for(pipe: Any) -> dict[str, Any]:
    """What is kept for a pipeline's weights, by method: beside them in their folder, or in their model's config.

    Args:
        pipe: a diffusers pipeline, loaded by `from_pretrained`.
    """
    from spectrum.models.attached import loaded_from  # which loads torch

    name = loaded_from(pipe)
    for model in choices("model"):
        if name and name == group_file("model", model)["hub"]:
            return dict(group_file("model", model).get("calibration") or {})
    if not name or not (Path(name) / CALIBRATION).is_file():
        return {}
    own = digest(Path(name))
    found = read_calibration(Path(name) / CALIBRATION)
    return {method: fit for method, fit in found.items() if fit["fitted_on"].get("model") == own}
