"""The ids of runs: digests of all that changes their pixels."""

import spectrum
from spectrum.config.code import method_code
from spectrum.config.identity import settings_digest
from spectrum.config.schema import RunConfig
from spectrum.core.method import Method
from spectrum.models.identity import model_identity
from spectrum.records.files import identity


def settings_id(config: RunConfig, prompts: list[str]) -> str:
    """Names all settings that change pixels: weights, method, schedule, sampling, prompts, seeds, dtype, our version.

    Args:
        config: the config, with what was fitted filled in.
        prompts: the prompts.
    """
    return settings_digest(config, prompts, model_identity(config.model), spectrum.__version__)


def sample_id(settings: str, method: Method) -> str:
    """Names all that changes pixels: the settings and the code of the method's functions."""
    return settings if method.forecast is None else identity([settings, method_code(method)])
