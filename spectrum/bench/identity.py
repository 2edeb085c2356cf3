"""The ids of runs: digests of all that changes their pixels."""

from typing import Any

import spectrum
from spectrum.config.code import method_code
from spectrum.config.sampling import Sampling
from spectrum.config.schema import RunConfig, changed_settings
from spectrum.core.method import Method
from spectrum.models.identity import model_identity
from spectrum.records.files import identity


def schedule_settings(schedule: dict[str, Any]) -> dict[str, Any]:
    """The settings of a schedule that it runs with."""
    return {key: value for key, value in schedule.items() if key != "runs_search"}


def settings_id(config: RunConfig, prompts: list[str]) -> str:
    """Names all settings that change pixels: weights, method, schedule, sampling, prompts, seeds, dtype, our version.

    Args:
        config: the config, with what was fitted filled in.
        prompts: the prompts.
    """
    caches = config.method.forecast is not None
    model = config.model
    return identity(
        {
            "model": model_identity(model),
            "pipeline": model.pipeline,
            "dtype": model.dtype,
            **({"vae": model.vae} if model.vae else {}),
            "method": changed_settings(config.method) if caches else None,
            "schedule": schedule_settings(config.schedule) if caches else None,
            "sampling": {k: v for k, v in vars(Sampling.of(config)).items() if v is not None},
            "prompts": prompts,
            "seeds": config.seeds,
            "version": spectrum.__version__,
        }
    )


def sample_id(settings: str, method: Method) -> str:
    """Names all that changes pixels: the settings and the code of the method's functions."""
    return settings if method.forecast is None else identity([settings, method_code(method)])
