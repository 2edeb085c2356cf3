"""The digest of all settings that change pixels. A run's id is made of it, and a record is checked against it."""

import dataclasses
from typing import Any

from spectrum.config.sampling import Sampling
from spectrum.config.schema import MethodConfig, RunConfig, changed_settings
from spectrum.records.files import identity

ALWAYS: dict[str, Any] = {"_target_": "spectrum.core.schedule.always", "_partial_": True}
"""The schedule of the uncached run."""


def schedule_settings(schedule: dict[str, Any]) -> dict[str, Any]:
    """The settings of a schedule that it runs with."""
    return {key: value for key, value in schedule.items() if key != "runs_search"}


def settings_digest(config: RunConfig, prompts: list[str], weights: str, version: str) -> str:
    """Names all settings that change pixels: weights, method, schedule, sampling, prompts, seeds, dtype, our version.

    Args:
        config: the config, with what was fitted filled in.
        prompts: the prompts.
        weights: what pins the model's weights, from `spectrum.models.identity.model_identity`.
        version: of this project.

    Returns:
        12 hex digits.
    """
    caches = config.method.forecast is not None
    model = config.model
    return identity(
        {
            "model": weights,
            "pipeline": model.pipeline,
            "dtype": model.dtype,
            **({"vae": model.vae} if model.vae else {}),
            "method": changed_settings(config.method) if caches else None,
            "schedule": schedule_settings(config.schedule) if caches else None,
            "sampling": {k: v for k, v in vars(Sampling.of(config)).items() if v is not None},
            "prompts": prompts,
            "seeds": config.seeds,
            "version": version,
        }
    )


def reference_of(config: RunConfig) -> RunConfig:
    """The uncached run that a config is compared with: same model, prompts, seeds and steps."""
    return dataclasses.replace(config, method=MethodConfig(name="none"), schedule=dict(ALWAYS), runs=None)
