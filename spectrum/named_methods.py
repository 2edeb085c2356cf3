"""Methods by their names in `configs/method`, for `accelerate`. The only part of the library that needs Hydra."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from spectrum.config.messages import config_message
from spectrum.config.methods import build_method, method_config, uses_fit, with_runs
from spectrum.core.errors import SpectrumError, refuse
from spectrum.core.method import Method
from spectrum.models.fitted import fits_for


def load_method(name: str, overrides: Sequence[str] = (), fits: Any = None) -> Method:
    """The method that `configs/method/NAME.yaml` describes.

    Args:
        name: the method's name.
        overrides: changes, as on the command line: `method.forecast.blend=0.5`, `schedule=explicit`, `runs=14`.
        fits: what was fitted for the model, by method name.

    Returns:
        The method, checked.

    Raises:
        SpectrumError: for a bad name or setting, and for a control that caches nothing.

    Example:
        >>> load_method("taylorseer", ["method.forecast.order=2"]).name
        'taylorseer'
    """
    fits = fits or {}
    try:
        config = method_config(name, overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if isinstance(error, SpectrumError):
            raise
        raise SpectrumError(config_message(error)) from None
    config = with_runs(config, fits)
    method = build_method(config.method, config.schedule, fits, plugins=config.plugins)
    fit = fits.get(name, {})
    used = uses_fit(config, fits) or str(config.runs) in fit.get("by_runs", {})
    return replace(method, fitted_steps=fit.get("fitted_on", {}).get("steps")) if used else method


def named_method(pipe: Any, name: str, overrides: Sequence[str], runs: int | None, schedule: str | None) -> Method:
    """The method that `accelerate` was given by name, with what was fitted for the pipeline's weights.

    Args:
        pipe: a diffusers pipeline.
        name: the method's name.
        overrides: changes, as on the command line.
        runs: block runs asked for; None leaves the method's own.
        schedule: the name of another schedule; None leaves the method's own.

    Raises:
        SpectrumError: for a bad setting, and for a control: it samples with fewer steps and caches nothing.
    """
    words = list(overrides)
    if schedule is not None:
        words.append(f"schedule={schedule}")
    if runs is not None:
        words.append(f"runs={runs}")
    if name.startswith("fewer_steps"):
        refuse(
            f"{name} caches nothing, it samples with fewer steps: call the pipeline with num_inference_steps=14 instead"
        )
    return load_method(name, words, fits_for(pipe))
