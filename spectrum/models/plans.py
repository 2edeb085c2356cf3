"""Plans a config's method over its model's steps, and tells the bytes it stores; without torch for one denoiser."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from spectrum.config.reader import group_file
from spectrum.config.sampling import Sampling
from spectrum.config.schema import BYTES, RunConfig
from spectrum.core.choices import Keep
from spectrum.core.memory import packed_bytes
from spectrum.core.method import Method, Plan, Site, plan_method
from spectrum.models.kept_rehearsals import kept_outputs

REPEATING = ("PNDMScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler")
"""Schedulers with more timesteps than the steps that they are asked for."""


def plan_of(config: RunConfig, method: Method) -> Plan:
    """What a method will do over the steps of a config; each denoiser of the pipeline begins its own history."""
    steps, described = Sampling.of(config).steps, config.model.architecture or {}
    settings = described.get("settings", {})
    if described.get("components", {}).get("scheduler", {}).get("class") in REPEATING:
        from spectrum.models.architectures import count_of_calls_of

        steps = count_of_calls_of(config.model, steps)
    if settings.get("boundary_ratio") is None:
        return plan_method(method, steps)
    from spectrum.models.architectures import starts_of

    return plan_method(method, steps, starts=starts_of(config.model, steps))


def cache_bytes(config: RunConfig, plan: Plan, batch: int = 1) -> int | None:
    """Bytes that the stored features of a plan take at most: features held x CFG branches x batch x one feature.

    Another height or width than the model's own changes the number of tokens with the area.

    Args:
        config: the config.
        plan: its plan.
        batch: samples per call.

    Returns:
        The bytes; None where a method stores inside the blocks, at the output of a model that ships no rehearsal, or
        the number of frames is not the model's own. They are known from the first run step on.
    """
    if config.method.site == Site.modules or config.model.frames != _own_settings(config).get("frames"):
        return None
    keep = config.method.keep
    each = feature_bytes(config, keep) if config.method.site == Site.exit else _output_bytes(config, keep)
    return None if each is None else plan.features_held * config.model.branches * batch * each


def feature_bytes(config: RunConfig, keep: Keep = Keep.features) -> int:
    """Bytes of one sample's feature at the height and width of a config, with the model's own number of frames.

    Of several features the first is the picture's, which grows with its area.
    """
    return _bytes_of(config, _features(config), keep, _area(config))


def feature_bytes_grown(config: RunConfig, growth: Fraction, keep: Keep = Keep.features) -> int:
    """Bytes of one sample's feature with `growth` times the tokens of the model's own, whatever makes it grow."""
    return _bytes_of(config, _features(config), keep, growth)


def _features(config: RunConfig) -> Sequence[Sequence[int]]:
    feature: Any = config.model.feature
    return feature if isinstance(feature[0], list) else [feature]


def _output_bytes(config: RunConfig, keep: Keep) -> int | None:
    """The same of what the denoiser returns; None where it is not known before the run."""
    shapes = kept_outputs(config)
    return None if shapes is None else _bytes_of(config, shapes, keep, _area(config))


def _bytes_of(config: RunConfig, shapes: Sequence[Sequence[int]], keep: Keep, growth: Fraction) -> int:
    """Bytes of tensors of one sample, of which the first has `growth` times the tokens."""
    (tokens, width), *others = shapes
    shapes = ((math.ceil(tokens * growth), width), *others)
    return sum(packed_bytes(keep, shape, BYTES[config.model.dtype]) for shape in shapes)


def _area(config: RunConfig) -> Fraction:
    """How many times the model's own area a picture of a config has."""
    model, own = config.model, _own_settings(config)
    return Fraction(model.height * model.width, own["height"] * own["width"])


def _own_settings(config: RunConfig) -> Mapping[str, Any]:
    """What the model's file says, for `weights=tiny` with the settings of its toy."""
    own: Mapping[str, Any] = group_file("model", config.model.name)
    return {**own, **(own.get("tiny") or {})} if config.model.weights == "tiny" else own
